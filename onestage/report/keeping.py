"""The verdict on what a chapter compares, on top of its page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage.report.cells import Compared, Setting
from onestage.report.markup import Html, el
from onestage.report.plain import read_plain
from onestage.report.reading import mapping
from onestage.report.verdict import Candidate, Change, Thresholds, Verdict, judge

KEPT = "kept"
"""The group of what a model was to keep."""
START = "the model it started from"


def verdict_of(found: Compared, asked: Mapping[str, Any] | None = None) -> Verdict | None:
    """On the settings of a chapter against its base, by the chapter's headline measures; None where no
    measure was taken of both. asked: thresholds that go before those of the first run's recipe."""
    if found.base is None:
        return None
    candidates = [
        Candidate(one.label, _changes(found, one))
        for one in found.settings()
        if one.method != found.base
    ]
    base = found.base if found.is_study else START
    return judge(candidates, base, _asked(found, asked or {}))


def verdict_of_run(folder: Path, asked: Mapping[str, Any] | None = None) -> Verdict | None:
    """On one run, against the model it started from."""
    return verdict_of(read_plain([folder]), asked)


def verdict_section(found: Compared, asked: Mapping[str, Any] | None) -> Html | None:
    verdict = verdict_of(found, asked)
    if verdict is None:
        return None
    grounds = [el("li", line) for line in verdict.grounds]
    return el("div", el("strong", verdict.sentence), el("ul", *grounds), class_="verdict")


def _changes(found: Compared, one: Setting) -> list[Change]:
    base, changes = found.base_of(one), []
    for name in found.headline:
        metric, change = found.metrics[name], found.change(one, name)
        before = found.mean(base, name) if base else None
        after = found.mean(one, name)
        if not metric.sign or change is None or before is None or after is None:
            continue
        share = found.share(name)
        if before.mean == 0 and not share:
            continue  # a distance from the start says how far it went, not whether it is better
        low, high = change.low, change.high
        if one.method in found.certain and name in found.certain[one.method]:
            half = found.certain[one.method][name]
            low, high = change.mean - half, change.mean + half
        changes.append(
            Change(
                name,
                after.mean - change.mean,
                after.mean,
                low,
                high,
                metric.better or "higher",
                share,
                metric.group == KEPT,
            )
        )
    return changes


def _asked(found: Compared, given: Mapping[str, Any]) -> Thresholds:
    recipes = [part.recipe for cell in found.cells if cell.trained for part in cell.trained.parts]
    told: Mapping[str, Any] = mapping(recipes[0].get("verdict")) if recipes else {}
    numbers = {k: v for k, v in told.items() if isinstance(v, int | float) and k != "by"}
    return Thresholds.of({**numbers, "by": str(told.get("by") or ""), **given})
