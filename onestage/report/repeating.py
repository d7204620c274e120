"""The data, the recipe, and how to repeat it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import yaml

from onestage.report.cells import Compared, first_of_each
from onestage.report.figures import Look
from onestage.report.markup import Html, el, fold, join, table
from onestage.report.numbers import UNKNOWN, duration, mean_of, number, setting
from onestage.report.reading import is_number, mapping, texts
from onestage.report.trained import Part

LISTED = 50
"""Reasons that are shown."""
COUNTS = (
    "responses",
    "tokens",
    "scored_tokens",
    "longest",
    "refused",
    "overlong",
    "ties",
    "unlabelled",
    "cut",
)


def data_section(found: Compared) -> Html | None:
    """Rows, kinds and tokens of each stream, of one run of each method; equal tables stand once."""
    users: dict[str, list[str]] = {}
    content: dict[str, dict[str, Any]] = {}
    firsts = first_of_each(found.trained())
    for cell in firsts:
        parts = cell.trained.parts if cell.trained else []
        for part in parts:
            if part.data:
                key = repr(part.data)
                content[key] = part.data
                stage = f" ({part.name})" if len(parts) > 1 else ""
                users.setdefault(key, []).append(f"{cell.method}{stage}")
    if not users:
        return None
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(cell.seed for cell in firsts))
    note = el("p", f"Of seed {seeds}.", class_="note")
    tables = {", ".join(names): _data_table(content[key]) for key, names in users.items()}
    if len(tables) == 1:
        return join([note, *tables.values()])
    folds = [fold(title, one, open_=n == 0) for n, (title, one) in enumerate(tables.items())]
    return join([note, *folds])


def _data_table(data: Mapping[str, Any]) -> Html:
    rows, reasons = [], []
    for part, streams in data.items():
        for name, told in mapping(streams).items():
            told = mapping(told)
            kinds = mapping(told.get("records"))
            records = ", ".join(
                f"{count:,} {kind}" for kind, count in kinds.items() if is_number(count)
            )
            counts = [told.get(key) for key in COUNTS]
            title = (
                name if part == "train" else f"{name} ({'held out' if part == 'eval' else part})"
            )
            told_counts = [f"{count:,}" if is_number(count) else UNKNOWN for count in counts]
            rows.append([title, records or UNKNOWN, *told_counts])
            given = told.get("reasons")
            reasons += [f"{name}: {reason}" for reason in given] if isinstance(given, list) else []
    head = ("stream", "records", *(key.replace("_", " ") for key in COUNTS))
    whole = table(head, rows, class_="results")
    if not reasons:
        return whole
    more = [f"and {len(reasons) - LISTED:,} more"] if len(reasons) > LISTED else []
    listed = el("ul", *(el("li", reason) for reason in [*reasons[:LISTED], *more]))
    return join([whole, fold(f"why rows were refused or cut ({len(reasons)})", listed)])


def recipe_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """The study file, what tuning chose, and one recipe for each method."""
    parts: list[Html] = []
    if found.text:
        parts.append(fold("the study file", el("pre", found.text)))
    chosen = _choices(found)
    if chosen:
        parts.append(chosen)
    for cell in first_of_each(found.trained()):
        of = cell.trained.parts if cell.trained else []
        texts = [el("pre", _titled(part, len(of) > 1)) for part in of if part.text]
        if texts:
            name = el("span", looks[cell.method].chip, f"recipe of {cell.name}", class_="method")
            parts.append(fold(name, *texts))
    return join(parts) if parts else None


def _titled(part: Part, stage: bool) -> str:
    return f"# stage {part.name}\n{part.text}" if stage else part.text


def _choices(found: Compared) -> Html | None:
    """What tuning tried, and what it chose for the test."""
    rows = [
        [
            cell.setting.label,
            cell.purpose,
            str(cell.seed),
            _told(cell.choice),
            cell.state or UNKNOWN,
        ]
        for cell in found.cells
        if cell.choice
    ]
    summary = f"what was tried and chosen ({len(rows)} cells)"
    cells = fold(summary, table(("method", "purpose", "seed", "choice", "state"), rows))
    return join([_chosen(found), cells if rows else None]) if rows or found.tuning else None


def _chosen(found: Compared) -> Html | None:
    """What the trials on validation chose for each method."""
    rows = []
    for method, told in found.tuning.items():
        trials, edges = mapping(told).get("trials"), texts(mapping(told).get("edges"))
        metric = str(mapping(told).get("metric") or "")
        values = [mapping(one).get(metric) for one in trials] if isinstance(trials, list) else []
        known = [value for value in values if is_number(value)]
        sign = found.metrics[metric].sign if metric in found.metrics else 1
        best = max(known, key=lambda value: (sign or 1) * value, default=None)
        choice = _told(mapping(mapping(told).get("best"))) or "nothing"
        edge = f" ({', '.join(edges)}: at the edge of the grid)" if edges else ""
        rows.append((method, choice + edge, str(len(values)), f"{metric} {number(best)}"))
    head = ("method", "chosen", "trials", "the best of them, on validation")
    return fold("what tuning chose", table(head, rows)) if rows else None


def _told(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {setting(value)}" for key, value in choice.items())


def repeat_section(found: Compared) -> Html:
    """Command, versions, commit, seeds and times."""
    about = found.about
    parts = [part for c in found.tested if c.trained for part in c.trained.parts if part.manifest]
    manifest = parts[0].manifest if parts else {}
    commands = [about["command"]] if about.get("command") else []
    if not found.is_study:
        commands = [part.manifest["command"] for part in parts if part.manifest.get("command")]
    told = dict.fromkeys(
        shlex.join(map(str, c)) if isinstance(c, list) else str(c) for c in commands
    )
    versions = mapping(about.get("versions")) or mapping(manifest.get("versions"))
    seeds = about.get("seeds") or sorted({cell.seed for cell in found.tested})
    commits = {str(part.manifest.get("git")) for part in parts if part.manifest.get("git")}
    machine = mapping(manifest.get("machine")) or mapping(about.get("machine"))
    heads = [part.manifest["head"] for part in parts if part.manifest.get("head")]
    rows: list[tuple[str, object]] = [
        ("command", join(el("div", el("code", one)) for one in told)),
        ("seeds", ", ".join(str(seed) for seed in seeds) if isinstance(seeds, list) else seeds),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("git commit", ", ".join(sorted(commits)) or about.get("git")),
        ("machine", ", ".join(str(value) for value in machine.values())),
        ("head computed by", ", ".join(dict.fromkeys(str(h) for h in heads))),
        ("folder", el("code", found.folder)),
    ]
    facts = table(("", ""), [row for row in rows if row[1]], class_="facts")
    return join([facts, _line_by_line(found), _times(found)])


def _line_by_line(found: Compared) -> Html | None:
    """One command for each line of the result table."""
    commands = line_commands(found)
    if not commands:
        return None
    seeds = "One seed is enough to see a line again: name fewer."
    body = [(label, el("code", command)) for label, command in commands.items()]
    whole = table(("line", "command"), body, class_="commands")
    return fold(f"each line of the results by itself ({len(body)} commands)", el("p", seeds), whole)


def line_commands(found: Compared) -> dict[str, str]:
    """By setting; empty where it is not known what was typed for the whole study."""
    begun = _typed(found)
    if not found.is_study or not begun:
        return {}
    commands = {}
    for one in found.settings():
        cells = found.of(one)
        best = mapping(mapping(found.tuning.get(one.method)).get("best"))
        choice = dict(cells[0].choice) or best
        told = {"method": one.method, "seeds": sorted({cell.seed for cell in cells})}
        line = yaml.safe_dump(
            {**told, **dict(one.axes), **choice},
            default_flow_style=True,
            sort_keys=False,
            width=math.inf,
        )
        commands[one.label] = shlex.join([*begun, "--cell", line.strip()])
    return commands


def _typed(found: Compared) -> list[str]:
    """`onestage study FILE` and what it was told to override; [] where that is not known."""
    try:
        words = shlex.split(str(found.about.get("command") or ""))
    except ValueError:
        return []
    if words[:2] != ["onestage", "study"]:
        return []
    files = [word for word in words[2:] if word.endswith((".yaml", ".yml"))]
    flags = [(a, b) for a, b in pairwise(words) if a == "--set" or b.startswith("--set=")]
    given = [b if a == "--set" else b.partition("=")[2] for a, b in flags]
    files = [word for word in files if word not in given and not word.startswith("--")]
    told = [word for one in given for word in ("--set", one)]
    return [*words[:2], *files[:1], *told] if files else []


def _times(found: Compared) -> Html | None:
    rows = []
    for one in found.settings():
        cells = [cell for cell in found.of(one) if cell.results]
        times = mean_of([cell.seconds for cell in cells if cell.seconds is not None])
        spent = mean_of([s for c in cells if c.trained and (s := c.trained.seconds) is not None])
        tokens = mean_of([float(c.trained.tokens) for c in cells if c.trained])
        steps = [sum(part.steps for part in c.trained.parts) for c in cells if c.trained]
        if times is None and spent is None:
            continue
        rows.append(
            [
                one.label,
                len(cells),
                duration(times.mean if times else None),
                duration(spent.mean if spent else None),
                f"{tokens.mean:,.0f}" if tokens else UNKNOWN,
                f"{max(steps):,}" if steps else UNKNOWN,
            ]
        )
    head = ("run times, means", "cells", "whole cell", "in training steps", "tokens", "steps")
    return table(head, rows, class_="results") if rows else None
