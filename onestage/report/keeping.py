"""The verdict on what a chapter compares, on top of its page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onestage.report.cells import Compared, Setting
from onestage.report.markup import Html, el, join, table
from onestage.report.plain import read_plain
from onestage.report.reading import mapping
from onestage.report.verdict import (
    FEW,
    SHOWN,
    Candidate,
    Change,
    Standing,
    Thresholds,
    Verdict,
    judge,
)

KEPT = "kept"
"""The group of what a model was to keep."""
ORDER: tuple[Standing, ...] = ("gained", "lost", "open", "lost, as allowed", "unchanged")
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
    rows = sorted(verdict.changes, key=lambda one: (ORDER.index(one[1]), -abs(one[0].gain)))
    head = ("measure", "before", "after", "change", "95 % interval", "what became of it")
    return join(
        [
            el("div", el("strong", verdict.sentence), class_="verdict"),
            table(
                head, [_row(found, change, standing) for change, standing in rows], class_="results"
            ),
            el("p", verdict.asked, _unjudged(found), class_="note"),
        ]
    )


def _unjudged(found: Compared) -> str:
    """Models that the verdict leaves out, and those that lack what others were judged by."""
    had = {
        one.label: [change.measure for change in _changes(found, one)]
        for one in found.settings()
        if one.method != found.base
    }
    every = dict.fromkeys(name for names in had.values() for name in names)
    lack = {
        label: ", ".join(name for name in every if name not in names)
        for label, names in had.items()
        if set(names) < set(every)
    }
    none = [label for label, names in had.items() if not names]
    few = [f"{label} (no {names})" for label, names in lack.items() if had[label]]
    why = "Not judged, because nothing was measured both before and after"
    return _told(why, none, ", ") + _told("Judged by less than others", few, "; ")


def _told(what: str, models: Sequence[str], between: str) -> str:
    more = f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
    return f" {what}: {between.join(models[:SHOWN])}{more}." if models else ""


def _row(found: Compared, change: Change, standing: Standing) -> list[object]:
    """A line of the table: shares in points of 100, other measures as they are and their change in per
    cent. Good and bad are coloured where an interval makes them sure."""
    scale, unit = (100.0, "") if change.share else (1.0, " %")
    part = 100.0 if change.share else 100 / abs(change.before) if change.before else 1.0
    low, high = part * change.low, part * change.high
    sure = change.sure and change.n >= FEW
    name = {"gained": "good", "lost": "bad"}.get(standing, "") if sure else ""
    return [
        f"{change.measure}{found.metrics[change.measure].arrow}",
        f"{scale * change.before:.4g}",
        f"{scale * change.after:.4g}",
        f"{part * (change.after - change.before):+.1f}{unit}",
        f"{low:+.1f} to {high:+.1f}{unit}" if change.sure else "none known",
        el("strong", standing, class_=name or None),
    ]


def _changes(found: Compared, one: Setting) -> list[Change]:
    base, changes = found.base_of(one), []
    for name in found.judges or found.headline:
        metric, change = found.metrics[name], found.change(one, name)
        before = found.mean(base, name) if base else None
        after = found.mean(one, name)
        if metric.sign and before is not None and name in found.lost.get(one.method, ()):
            kept = metric.group == KEPT
            changes.append(
                Change(name, before.mean, math.nan, better=metric.better or "higher", kept=kept)
            )
            continue
        if not metric.sign or change is None or before is None or after is None:
            continue
        share = found.share(name)
        if before.mean == 0 and not share:
            continue  # a distance from the start says how far it went, not whether it is better
        low, high, count = change.low, change.high, change.n
        if one.method in found.certain and name in found.certain[one.method]:
            half = found.certain[one.method][name]
            low, high, count = change.mean - half, change.mean + half, FEW
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
                count,
            )
        )
    return changes


def _asked(found: Compared, given: Mapping[str, Any]) -> Thresholds:
    recipes = [part.recipe for cell in found.cells if cell.trained for part in cell.trained.parts]
    told: Mapping[str, Any] = mapping(recipes[0].get("verdict")) if recipes else {}
    numbers = {k: v for k, v in told.items() if isinstance(v, int | float) and k != "by"}
    return Thresholds.of({**numbers, "by": str(told.get("by") or ""), **given})
