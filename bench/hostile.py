"""Hostile and random answers through every checker: time, failures, the slowest answer.

    python bench/hostile.py [--count 10000] [--only math,gsm8k]

Each checker judges them in the pool, as in a run. Failures are counted by sort; none may be called right
by a checker whose facts it does not fit (tests/rollout/test_checkers.py holds the small ones against
independent programs).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import hostile

from onestage.rollout.rewards import Answer, Failure, make

PROMPT = "User: .. \nAssistant: Let me solve this step by step.\n<think> "
FACTS = {
    "countdown": {"nums": [44, 19, 35], "target": 98},
    "knights_knaves": {"names": ["Zoey", "Oliver"], "truth": [True, False]},
    "math": {"answer": "\\frac{7}{3}"},
    "gsm8k": {"answer": "so it is 31\n#### 31"},
    "ifeval": {
        "instruction_id_list": [
            "detectable_format:title",
            "length_constraints:number_sentences",
            "detectable_format:number_highlighted_sections",
            "detectable_content:number_placeholders",
            "detectable_format:number_bullet_lists",
            "detectable_format:json_format",
            "length_constraints:nth_paragraph_first_word",
            "change_case:capital_word_frequency",
        ],
        "kwargs": [
            {},
            {"num_sentences": 3, "relation": "at least"},
            {"num_highlights": 2},
            {"num_placeholders": 2},
            {"num_bullets": 3},
            {},
            {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "so"},
            {"capital_frequency": 3, "capital_relation": "at least"},
        ],
    },
}
CHECKERS = [
    ("countdown", {}),
    ("countdown", {"rules": "authors"}),
    ("knights_knaves", {}),
    ("knights_knaves", {"rules": "authors"}),
    ("math", {}),
    ("math", {"rules": "authors"}),
    ("gsm8k", {}),
    ("gsm8k", {"rules": "authors"}),
    ("ifeval", {}),
    ("ifeval", {"level": "instruction", "reading": "loose"}),
    ("format", {}),
    ("format", {"shape": "pattern", "pattern": "^(a+)+$"}),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--deadline", type=float, default=5.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    texts = [*hostile.fixed(), *hostile.huge()]
    texts += itertools.islice(hostile.drawn(0), max(0, options.count - len(texts)))
    texts = texts[: options.count]
    print(f"{len(texts):,} answers, {sum(map(len, texts)) / 1e6:.0f} million characters")
    print(f"{'checker':44} {'s':>6} {'slowest':>8}  rewards and failures; the slowest answer")
    for name, given in CHECKERS:
        if options.only and name not in options.only.split(","):
            continue
        checker = make({"name": name, **given, "deadline": options.deadline})
        answers = [Answer(PROMPT, text, FACTS.get(name, {})) for text in texts]
        checker(answers[:4])  # workers and imports are there
        start = time.perf_counter()
        outcomes = checker(answers)
        seconds = time.perf_counter() - start
        told = Counter(o.sort if isinstance(o, Failure) else round(o, 2) for o in outcomes)
        slowest, text = slowest_of(checker, answers, outcomes)
        label = " ".join([name, *map(str, given.values())])
        print(
            f"{label:44} {seconds:6.1f} {slowest:8.3f}  {dict(told)}; {text[:40]!r} ({len(text)})"
        )
        checker.close()


def slowest_of(checker, answers, outcomes) -> tuple[float, str]:
    """Judged here, one by one, but for those that failed: those take as long as they may."""
    checker.prepare()
    worst, text = 0.0, ""
    for answer, outcome in zip(answers, outcomes, strict=True):
        if isinstance(outcome, Failure):
            if outcome.sort == "deadline" and worst < checker.deadline:
                worst, text = checker.deadline, answer.completion
            continue
        start = time.perf_counter()
        checker.judge(answer)
        seconds = time.perf_counter() - start
        if seconds > worst:
            worst, text = seconds, answer.completion
    return worst, text


if __name__ == "__main__":
    main()
