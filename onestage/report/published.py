"""Published rows with a model's own under them: the tables of the papers, as `published.json` has them.

A number is put under a published one only where it was measured in the same way: the suite says so.
What the papers leave out (seeds, standard errors, of some the way of asking) stays left out; the error
that is shown is ours, of the items. A number of a part of the items (`--limit`, a file that holds fewer)
is marked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from onestage.report.benchmarks import evaluation_file, fresh, inside, models_in, place_in
from onestage.report.cells import Compared
from onestage.report.markup import Html, el, fold, join, table
from onestage.report.reading import Reader, is_number, mapping

SAME = {
    **{name: ("open_llm_v2", name) for name in ("bbh", "gpqa", "mmlu_pro", "musr", "math_hard")},
    **{name: ("open_llm_v1", name) for name in ("truthfulqa", "winogrande", "arc", "hellaswag")},
    **{"mmlu": ("open_llm_v1", "mmlu"), "mmlu_1_shot": ("mmlu", "mmlu")},
    **{"average_new": ("open_llm_v2", "average"), "average_old": ("open_llm_v1", "average")},
    **{"mt_bench": ("mt_bench", "score"), "lc_win_rate": ("alpaca_eval", "lc_win_rate")},
    **{"ifeval": ("open_llm_v2", "ifeval"), "gsm8k": ("open_llm_v1", "gsm8k")},
}
"""Where a column's number stands in `evaluation.json`: suite and metric."""
CALLED = {
    **{
        "bbh": "BBH",
        "gpqa": "GPQA",
        "mmlu_pro": "MMLU-Pro",
        "musr": "MuSR",
        "math_hard": "MATH level 5",
    },
    **{
        "truthfulqa": "TruthfulQA",
        "winogrande": "WinoGrande",
        "arc": "ARC",
        "hellaswag": "HellaSwag",
    },
    **{"mmlu": "MMLU", "mmlu_1_shot": "MMLU, one example", "ifeval": "IFEval", "gsm8k": "GSM8K"},
    **{"average_new": "mean of the new six", "average_old": "mean of the old six"},
    **{"mt_bench": "MT-Bench", "lc_win_rate": "AlpacaEval, length-controlled win rate"},
}
"""Columns as the field spells them."""
ALSO = {"ifeval": ("ifeval", "mean"), "gsm8k": ("gsm8k", "mean")}
"""And where it stands too."""
PLAIN = frozenset({"mt_bench"})
"""Columns that are no parts of a hundred."""
SHOTS = {"gsm8k": 5, "mmlu": 1}
"""Examples in front that the papers had, of suites that can be told another number."""
ITEMS = {"ifeval": 541, "gsm8k": 1319, "mt_bench": 80, "alpaca_eval": 805}
"""Of suites whose items come from files: how many the benchmark has."""
SAME_TEXT = 0.9
"""Share of the questions that must be the benchmark's: its data set may have mended a few since."""
GRADED = frozenset({"mt_bench", "alpaca_eval"})
"""Suites of conversations; in all others the papers gave raw prompts."""


@dataclass(frozen=True)
class Measured:
    """A model's number, as the papers write it, and its standard error where that is known."""

    value: float
    stderr: float | None
    part: str = ""
    """Of how many items, where the papers' are of more."""


@cache
def tables() -> list[dict[str, Any]]:
    """`paper`, `tables`, `model`, `about`, `against` (the row that is the paper's own method),
    `columns`, and `rows`, of a name and numbers."""
    text = resources.files("onestage.report").joinpath("published.json").read_text()
    found: list[dict[str, Any]] = json.loads(text)
    return found


def published_section(found: Compared) -> Html | None:
    """The tables that have a number in common with what was measured of the runs, their rows below."""
    reader = Reader(found.troubles)
    models: dict[str, dict[str, Measured]] = {}
    for cell in found.cells:
        if cell.trained is not None:
            models |= dict(models_of(cell.trained.folder, reader))
    models = {name: numbers for name, numbers in models.items() if numbers}
    drawn = {_title(one): _table(one, models) for one in tables()}
    shown = {title: one for title, one in drawn.items() if one is not None}
    if not shown:
        return None
    folds = [fold(title, one, open_=n == 0) for n, (title, one) in enumerate(shown.items())]
    note = (
        "Rows of papers as they were printed, single runs without errors; below them the runs of this "
        "page, ± their standard error over items, and their distance from the paper's own method. "
        "Another base model, judge or prompt makes another number: compare changes before values. Of "
        "the papers' columns those that were measured here."
    )
    return join([el("p", note, class_="note"), *folds])


def models_of(folder: Path, reader: Reader) -> Iterator[tuple[str, dict[str, Measured]]]:
    """The models of a folder's evaluation, bases and what was trained again since left out, with their
    numbers by column."""
    file = evaluation_file(folder)
    if file is None:
        return
    content = mapping(reader.json(file, folder.name))
    suites = {k: mapping(v) for k, v in mapping(content.get("suites")).items()}
    models = models_in(content)
    bases = {one.get("base") for one in models}
    for one in models:
        name = str(one.get("name"))
        here = Path(name).is_dir() and not inside(Path(name), folder)
        place = None if here else place_in(name, folder)
        # What is too old is told by the chapter already.
        old = place is not None and not fresh(file, place, folder.name, Reader())
        if one.get("name") not in bases and not old:
            # Of several runs that were measured together, each by its own name.
            whose = folder.name if place else "/".join(Path(name).parts[-3:-1])
            yield f"{whose}: {Path(name).name}", _numbers(one, suites)


def _name(suite: Mapping[str, Any]) -> str:
    """`ifeval` of `onestage.rollout.suites.ifeval:IFEval`."""
    given = str(mapping(suite.get("options")).get("name", ""))
    return given.partition(":")[0].rpartition(".")[2]


def _asked_so(name: str, suite: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether a model was asked what the papers asked, and as they did."""
    options = mapping(suite.get("options"))
    shots = options.get("shots", SHOTS.get(name))
    raw = told.get("chat") is not True
    return (
        (raw or name in GRADED)
        and (name not in SHOTS or shots == SHOTS[name])
        and not _own_questions(told)
        and options.get("system") is None
    )


def _own_questions(told: Mapping[str, Any]) -> bool:
    """Whether it was asked other questions under the benchmark's name."""
    known, items = told.get("of_benchmark"), told.get("items")
    return is_number(known) and is_number(items) and known < SAME_TEXT * items


def _part(name: str, suite: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """What a model was asked of a suite, where that is not all of it."""
    items, limit = told.get("items"), mapping(suite.get("options")).get("limit")
    if name not in ITEMS:
        return f"the first {limit:,} of each task" if isinstance(limit, int) else ""
    whole = ITEMS[name]
    known = items if isinstance(items, int) else limit if isinstance(limit, int) else whole
    return f"{known:,} of {whole:,}" if known < whole else ""


def _numbers(
    model: Mapping[str, Any], suites: Mapping[str, Mapping[str, Any]]
) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for label, told in mapping(model.get("suites")).items():
        metrics, suite = mapping(mapping(told).get("metrics")), suites.get(label, {})
        name = _name(suite) or label
        for column, place in [*ALSO.items(), *SAME.items()]:
            if not _asked_so(name, suite, mapping(told)):
                continue
            value = mapping(metrics.get(place[1])).get("value") if place[0] == name else None
            if is_number(value):
                times = 1 if column in PLAIN else 100
                stderr = mapping(metrics[place[1]]).get("stderr")
                known = stderr * times if is_number(stderr) else None
                found[column] = Measured(value * times, known, _part(name, suite, mapping(told)))
    return found


def _table(one: Mapping[str, Any], models: Mapping[str, Mapping[str, Measured]]) -> Html | None:
    own = {name: m for name, m in models.items() if any(column in m for column in one["columns"])}
    if not own:
        return None
    places = [n for n, c in enumerate(one["columns"], 1) if any(c in m for m in own.values())]
    columns = [one["columns"][n - 1] for n in places]
    printed = {row[0]: [row[n] for n in places] for row in one["rows"]}
    rows: list[list[object]] = [[name, *(f"{x:.2f}" for x in row)] for name, row in printed.items()]
    for name, numbers in own.items():
        rows.append([el("strong", name), *(_cell(numbers.get(c)) for c in columns)])
        apart = [
            None if one is None else replace(one, value=one.value - x)
            for one, x in zip(map(numbers.get, columns), printed[one["against"]], strict=True)
        ]
        rows.append([f"minus {one['against']}", *(_cell(x, "+") for x in apart)])
    parts = {
        f"{name}, {column}: {numbers[column].part}": None
        for name, numbers in own.items()
        for column in columns
        if column in numbers and numbers[column].part
    }
    note = el("p", f"* not of all items: {'; '.join(parts)}.", class_="note") if parts else None
    heads = ["row", *(f"{CALLED.get(column, column)} ↑" for column in columns)]
    return join([table(heads, rows, class_="results"), note])


def _title(one: Mapping[str, Any]) -> str:
    return f"{one['paper']}, {one['tables']}: {one['about']} ({one['model']})"


def _cell(one: Measured | None, sign: str = "") -> str:
    if one is None:
        return ""
    told = f"{one.value:{sign}.2f}"
    told = told if one.stderr is None else f"{told} ± {one.stderr:.2f}"
    return f"{told} *" if one.part else told
