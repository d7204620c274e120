"""Suites against the benchmarks' own code, and what is kept of an evaluation that is interrupted."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.tiny import REAL_DATA, make_tokenizer, tiny_llama, write_rows

from onestage.models.policy import Policy
from onestage.rollout import suites
from onestage.rollout.engines import Decoding
from onestage.rollout.evaluation import make_suites
from onestage.rollout.suites import Kept, Measured, Subject, measure, scored

needs_the_benchmark = pytest.mark.skipif(not find_spec("lm_eval"), reason="extra: eval")

PROMPTS = [
    {
        "key": 7,
        "prompt": "Write without commas, in at least 12 words.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "at least", "num_words": 12}],
    },
    {
        "key": 8,
        "prompt": "Say it twice: say it twice.",
        "instruction_id_list": ["combination:repeat_prompt"],
        "kwargs": [{"prompt_to_repeat": "Say it twice: say it twice."}],
    },
    {
        "key": 9,
        "prompt": "Wrap everything in double quotation marks, in lower case.",
        "instruction_id_list": ["startend:quotation", "change_case:english_lowercase"],
        "kwargs": [{}, {}],
    },
]
WRITTEN = {
    "7": "**one two, three**\nfour five six seven eight nine ten eleven twelve thirteen",
    "8": "Say it twice: say it twice. Here it is.",
    "9": 'Sure!\n"the sea is wide and blue and the wind is Cold"',
}
PROBLEMS = [
    {"question": "Two and two?", "answer": "2+2=4\n#### 4"},
    {"question": "A thousand and one?", "answer": "#### 1,001"},
    {"question": "Half of $7?", "answer": "7/2\n#### 3.5"},
    {"question": "None?", "answer": "#### 0"},
]
SOLVED = [
    " It is 4.\n#### 4",
    " #### 1001 then #### 5, so 1,001.",
    " The answer is $3.50 or $3.5.",
    " no idea",
]


@pytest.fixture
def subject() -> Subject:
    return Subject.of(Policy(tiny_llama(), make_tokenizer()))


def written(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def judged(suite: Any, written: Sequence[str]) -> Measured:
    items = suite.items(False)
    answers = {i.id: {"completion": text} for i, text in zip(items, written, strict=True)}
    return scored(suite, items, answers)


def as_the_benchmark_says(prompts: Sequence[Any], responses: Sequence[str]) -> dict[str, float]:
    """lm-eval's own verdicts and means."""
    from onestage.rollout.rewards._ifeval_benchmark import load

    utils = load()
    each = [
        utils.process_results(doc, [text]) for doc, text in zip(prompts, responses, strict=True)
    ]
    found = {}
    for name in each[0]:
        values = [one[name] for one in each]
        flat = name.startswith("inst")
        found[name] = utils.agg_inst_level_acc(values) if flat else sum(values) / len(values)
    return found


@needs_the_benchmark
def test_ifeval_is_the_benchmarks(tmp_path: Path) -> None:
    suite = suites.make({"name": "ifeval", "path": written(tmp_path, PROMPTS)})
    found = judged(suite, [*WRITTEN.values()])
    theirs = as_the_benchmark_says(PROMPTS, [*WRITTEN.values()])
    mine = {name: found.metrics[name].value for name in theirs}
    assert mine == pytest.approx(theirs, abs=1e-12)
    assert 0 < min(theirs.values()) < max(theirs.values()) < 1
    assert found.headline.value == pytest.approx(sum(theirs.values()) / 4)


@needs_the_benchmark
@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "ifeval_prompts.jsonl.gz").is_file(), reason="no real data")
def test_ifeval_is_the_benchmarks_on_real_prompts() -> None:
    """But for two of 541, of whose letter (`#`, `!`) the benchmark makes another one at random."""
    with gzip.open(REAL_DATA / "ifeval_prompts.jsonl.gz", "rt") as opened:
        docs = [json.loads(line) for line in opened][:120]
    docs = [doc for doc in docs if all(k.get("letter", "a").isalpha() for k in doc["kwargs"])]
    assert len(docs) == 118
    texts = [
        f"* {doc['prompt']}\n\nHere it is, and *so* on.\nP.S. <<Title>> [one] [two]" for doc in docs
    ]
    suite = suites.make({"name": "ifeval", "data": REAL_DATA})
    known = {str(doc["key"]) for doc in docs}
    items = [item for item in suite.items(False) if item.id in known]
    answers = {i.id: {"completion": text} for i, text in zip(items, texts, strict=True)}
    found = scored(suite, items, answers)
    theirs = as_the_benchmark_says(docs, texts)
    assert {n: found.metrics[n].value for n in theirs} == pytest.approx(theirs, abs=1e-12)


@needs_the_benchmark
@pytest.mark.real_data
@pytest.mark.skipif(
    not (REAL_DATA / "mt_bench_questions.jsonl.gz").is_file(), reason="no real data"
)
def test_a_benchmarks_own_questions_are_known() -> None:
    suite = suites.make({"name": "mt_bench", "judge": {"model": "x"}, "data": REAL_DATA})
    items = suites.chosen(suite, True)
    assert suites.of_benchmark(suite, items) == len(items) == 80
    suite = suites.make({"name": "gsm8k", "shots": 0, "data": REAL_DATA, "limit": 100})
    assert suites.of_benchmark(suite, suites.chosen(suite, False)) == 100


def test_other_questions_of_the_name_are_not(tmp_path: Path) -> None:
    rows = [{"question": f"{n} + {n}?", "answer": f"#### {2 * n}"} for n in range(300)]
    suite = suites.make({"name": "gsm8k", "shots": 0, "path": written(tmp_path, rows)})
    assert suites.of_benchmark(suite, suites.chosen(suite, False)) == 0
    text = suites.make({"name": "text", "path": written(tmp_path, [{"text": "a"}])})
    assert suites.of_benchmark(text, suites.chosen(text, False)) is None


def test_a_system_message_stands_in_front(tmp_path: Path) -> None:
    """Of what is asked through the chat template; answers are kept apart, and nothing else changes."""
    asked = {"name": "gsm8k", "shots": 0, "path": written(tmp_path, PROBLEMS)}
    plain, safe = suites.make(asked), suites.make({**asked, "system": "Be kind."})
    before, after = suites.chosen(plain, True), suites.chosen(safe, True)
    lead = {"role": "system", "content": "Be kind."}
    assert [item.prompt for item in after] == [(lead, *item.prompt) for item in before]
    assert suites.digest(plain, before) != suites.digest(safe, after)
    assert suites.digest(plain, before) == suites.digest(safe, before)
    with pytest.raises(ValueError, match=r"gsm8k has no place for a system message.* raw text"):
        suites.chosen(safe, False)


def test_both_turns_of_mt_bench_stand_behind_it(tmp_path: Path) -> None:
    from onestage.rollout.suites.mt_bench import _prompt

    path = written(tmp_path, [{"question_id": 1, "turns": ["One?", "Two?"], "category": "writing"}])
    how = {"name": "mt_bench", "judge": {"model": "x"}, "path": path, "system": "Be kind."}
    (item,) = suites.chosen(suites.make(how), True)
    roles = [one["role"] for one in _prompt(item, 1, ["First."])]
    assert roles == ["system", "user", "assistant", "user"]


def test_gsm8k_is_read_as_lm_eval_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="extra: eval")
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    suite = suites.make({"name": "gsm8k", "path": written(tmp_path, PROBLEMS), "shots": 0})
    found = judged(suite, SOLVED)
    how = {"ignore_case": True, "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}
    filters = {
        "strict": RegexFilter("#### (\\-?[0-9\\.\\,]+)"),
        "flexible": RegexFilter("(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1),
    }
    for name, one in filters.items():
        read = [x for (x,) in one.apply([[text] for text in SOLVED], [])]
        right = [
            float(exact_match_hf_evaluate([x], [row["answer"]], **how)["exact_match"])
            for x, row in zip(read, PROBLEMS, strict=True)
        ]
        assert [found.scores[str(n)][name] for n in range(4)] == right
    assert found.metrics["strict"].value == 0.5
    assert found.metrics["flexible"].value == 0.75


def test_examples_in_front_are_others(tmp_path: Path) -> None:
    path = written(tmp_path, PROBLEMS)
    suite = suites.make({"name": "gsm8k", "path": path, "shots_path": path, "shots": 2})
    for item in suite.items(False):
        assert isinstance(item.prompt, str)
        assert item.prompt.count(item.facts["question"]) == 1
        assert item.prompt.count("Question: ") == 3
        assert item.prompt.endswith("\nAnswer:")
    with pytest.raises(ValueError, match="shots_path"):
        suites.make({"name": "gsm8k", "path": path}).items(False)


@needs_the_benchmark
def test_a_model_is_asked_and_goes_on_where_it_was(tmp_path: Path, subject: Subject) -> None:
    """Two of three answers are lost, a line is cut off: the numbers are those of one go."""
    path = written(tmp_path, PROMPTS)
    suite = suites.make({"name": "ifeval", "path": path, "max_completion_length": 8})
    file = tmp_path / "answers.jsonl"
    first = measure(suite, subject, Kept(file))
    lines = file.read_text().splitlines()
    assert len(lines) == 3
    file.write_text(lines[0] + "\n" + lines[1][:20])
    again = measure(suite, subject, Kept(file))
    assert again.answers == first.answers
    assert again.metrics == first.metrics
    asked = len(file.read_text())
    measure(suite, subject, Kept(file))
    assert len(file.read_text()) == asked


def test_answers_are_ended_where_somebody_has_less_time_than_the_suite(subject: Subject) -> None:
    """The same tokens as far as they go, and who was ended is known."""
    from dataclasses import replace

    asked, how = ["Write a poem.", "one two three"], Decoding(24, temperature=0)
    whole = subject.write(asked, how, ["a", "b"])
    short = replace(subject, most=5, stopped=[])
    for long, cut in zip(whole, short.write(asked, how, ["a", "b"]), strict=True):
        assert long["completion"].startswith(cut["completion"])
        assert cut["tokens"] == min(5, long["tokens"])
    assert short.stopped == [k for k, one in zip("ab", whole, strict=True) if one["tokens"] > 5]
    assert short.stopped
    enough = replace(subject, most=24, stopped=[])
    assert enough.write(asked, how, ["a", "b"]) == whole
    assert not enough.stopped


def test_a_mistyped_suite_is_named_where_no_lm_eval_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"did you mean 'ifeval'.*needs the package lm-eval: pip"):
        make_suites(["ifevall"])


def test_what_is_missing_is_said_in_a_line(tmp_path: Path, subject: Subject) -> None:
    with pytest.raises(ValueError, match="unknown suite 'ifevel'; did you mean 'ifeval'"):
        suites.make("ifevel")
    suite = suites.make({"name": "ifeval", "path": written(tmp_path, [{"prompt": "Hello."}])})
    assert suite.lower_is_better("unchecked")
    assert not suite.lower_is_better("mean")
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: ifeval needs the columns"):
        suite.items(False)
    how = Decoding(512, temperature=0)
    with pytest.raises(ValueError, match="no room for a prompt in the model's context of 512"):
        subject.write(["Hello."], how, ["a"])
    (cut,) = subject.write(["Hello there, " * 9], Decoding(505, temperature=0), ["a"])
    assert cut["cut"] > 0
    suite = suites.make({"name": "text", "chat": True})
    with pytest.raises(ValueError, match="text is to be asked through a chat template"):
        suites.chosen(suite, templated=False)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        suites.make({"name": "ifeval", "limit": 0})


def test_text_reads_a_system_column_and_refuses_raw_messages(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    path = write_rows(tmp_path / "text.jsonl", [{"messages": turns, "system": "Be kind."}])
    told = {"name": "text", "path": str(path)}
    (item,) = suites.make(told).items(chat=True)
    assert item.prompt == ({"role": "system", "content": "Be kind."}, *turns)
    with pytest.raises(ValueError, match=r"leave chat: false \(--raw\) out"):
        suites.make({**told, "chat": False}).items(chat=False)
