"""What answers are worth, against a careful reader's verdicts (../shared/field/answers)."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onestage.rollout.rewards import Answer, Failure, make

FOLDER = Path(__file__).parents[3] / "shared" / "field" / "answers"
CHECKERS: dict[str, dict[str, Any]] = {
    "countdown": {"name": "countdown"},
    "gsm8k": {"name": "gsm8k"},
    "knights_knaves": {"name": "knights_knaves"},
    "format": {"name": "format"},
    "math": {"name": "math"},
    "math_last_line": {"name": "math", "final": "last_line"},
    "ifeval": {"name": "ifeval"},
}
BENCHMARK = {"name": "ifeval", "rules": "compat"}
"""IFEval's own verdicts, to compare scores by: here to be seen beside ours."""


def rows(name: str) -> list[dict[str, Any]]:
    """The answers of a file: `facts`, `response`, `want` (1, 0 or "?"), perhaps `prompt`."""
    lines = (FOLDER / f"{name}.jsonl").read_text().split("\n")
    return [json.loads(line) for line in lines if line]


def outcomes(options: dict[str, Any], given: list[dict[str, Any]]) -> list[str]:
    """`paid`, `not` or `undecided` of each answer, judged as in a run. Raises `ValueError` for a reward
    that could not be found for another reason."""
    checker = make({**options, "deadline": 10.0})
    found = []
    for value in checker([Answer(r.get("prompt", ""), r["response"], r["facts"]) for r in given]):
        if isinstance(value, Failure):
            # The benchmark's own code raises where it does not know a language: nothing is paid.
            if value.sort != "undecided" and options != BENCHMARK:
                raise ValueError(f"{value.sort}: {value.reason}")
            found.append("undecided")
        else:
            found.append("paid" if value == 1 else "not")
    return found


def table() -> str:
    """One line a checker: right answers paid and missed, wrong ones and undecidable ones paid."""
    lines = [
        "| checker | answers | right: paid | missed | wrong: paid | undecidable: paid |",
        "|---|---|---|---|---|---|",
    ]
    checkers = [(name, name, options) for name, options in CHECKERS.items()]
    if all(map(find_spec, ("lm_eval", "punkt"))):
        checkers.append(("ifeval", "ifeval, `rules: compat`", BENCHMARK))
    for file, name, options in checkers:
        given = rows(file)
        counts = Counter(
            (str(row["want"]), how == "paid")
            for row, how in zip(given, outcomes(options, given), strict=True)
        )
        figures = (("1", True), ("1", False), ("0", True), ("?", True))
        lines.append(f"| {name} | {len(given)} | {' | '.join(str(counts[f]) for f in figures)} |")
    return "\n".join(lines)
