"""The data, the recipe, and how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared, first_of_each
from onestage.report.figures import Look
from onestage.report.markup import Html, el, fold, join, table
from onestage.report.numbers import UNKNOWN, duration, mean_of, setting
from onestage.report.reading import is_number, mapping
from onestage.report.trained import Part

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
    listed = el("ul", *(el("li", reason) for reason in reasons[:50]))
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
    if not rows:
        return None
    summary = f"what was tried and chosen ({len(rows)} cells)"
    return fold(summary, table(("method", "purpose", "seed", "choice", "state"), rows))


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
    rows: list[tuple[str, object]] = [
        ("command", join(el("div", el("code", one)) for one in told)),
        ("seeds", ", ".join(str(seed) for seed in seeds) if isinstance(seeds, list) else seeds),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("git commit", ", ".join(sorted(commits)) or about.get("git")),
        ("machine", ", ".join(str(value) for value in machine.values())),
        ("folder", el("code", found.folder)),
    ]
    return join([table(("", ""), [row for row in rows if row[1]], class_="facts"), _times(found)])


def _times(found: Compared) -> Html | None:
    rows = []
    for one in found.settings():
        cells = [c for c in found.tested if c.setting == one and c.results]
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
