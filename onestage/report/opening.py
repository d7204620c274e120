"""The beginning of a chapter: what it is, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared
from onestage.report.markup import Html, el, fold, join
from onestage.report.numbers import setting
from onestage.report.reading import Trouble, mapping

SHOWN = 8


def opening(found: Compared) -> Html:
    """The study in a few lines, then a box with what is unfinished, failed or damaged."""
    about = found.about
    describes = about.get("description")
    facts = [
        ("methods", str(len(found.methods))),
        ("seeds", _listed(about.get("seeds")) or str(len({c.seed for c in found.tested}))),
        ("axes", "; ".join(f"{name}: {_listed(values)}" for name, values in found.axes.items())),
        ("budget", _pairs(about.get("budget")) + (" each" if about.get("budget") else "")),
        ("tuning", _pairs(about.get("tune")) or ("none" if found.is_study else "")),
        ("world", _pairs(about.get("world"))),
        ("written", str(about.get("written") or "")),
    ]
    if not found.is_study:
        facts = [("runs", str(sum(cell.trained is not None for cell in found.cells)))]
        facts.append(("seeds", _listed(sorted({cell.seed for cell in found.tested}))))
    pairs = [(el("dt", name), el("dd", value)) for name, value in facts if value]
    notes = [el("li", el("strong", name), ": ", note) for name, note in _notes(about)]
    paragraphs = str(describes).strip().split("\n\n") if describes else []
    return join(
        [
            *(el("p", paragraph) for paragraph in paragraphs),
            el("dl", *(item for pair in pairs for item in pair), class_="facts"),
            fold("the methods", el("ul", *notes)) if notes else None,
            warnings(found),
        ]
    )


def _notes(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(note)) for name, note in mapping(about.get("notes")).items()]


def warnings(found: Compared) -> Html | None:
    """What a reader must know before believing the numbers."""
    if not found.troubles:
        return None
    states = [c.state for c in found.cells if found.is_study or c.trained]
    counts = {
        "failed": states.count("failed"),
        "unfinished": sum(state in ("waiting", "running", "unfinished", "") for state in states),
    }
    what_is = "cells" if found.is_study else "runs"
    told = [f"{count} of {len(states)} {what_is} {what}" for what, count in counts.items() if count]
    whole = ", ".join(told) or "Not all is as it should be"
    items = [_item(trouble) for trouble in found.troubles]
    more = el("ul", *items[SHOWN:]) if len(items) > SHOWN else None
    return el(
        "div",
        el("strong", f"{whole}. "),
        "The page shows what there is.",
        el("ul", *items[:SHOWN]),
        fold(f"{len(items) - SHOWN} more", more) if more else None,
        class_="warning",
        role="note",
    )


def _item(trouble: Trouble) -> Html:
    return el("li", el("strong", trouble.where), ": ", trouble.what)


def _listed(values: Any) -> str:
    return ", ".join(setting(value) for value in values) if isinstance(values, list) else ""


def _pairs(told: Any) -> str:
    items = mapping(told).items()
    return ", ".join(
        f"{key} {_listed(value) if isinstance(value, list) else setting(value)}"
        for key, value in items
        if value not in (None, {}, [])
    )
