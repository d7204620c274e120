"""The beginning of a chapter: what it is, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared
from onestage.report.markup import Html, el, fold, join, prose
from onestage.report.numbers import setting
from onestage.report.reading import Trouble, is_number, mapping

SHOWN = 8


def opening(found: Compared) -> Html:
    """The study in a few lines, then a box with what is unfinished, failed or damaged."""
    about = found.about
    describes = about.get("description")
    facts = [
        ("methods", str(len(found.methods))),
        ("seeds", _listed(about.get("seeds")) or str(len({c.seed for c in found.tested}))),
        ("axes", "; ".join(f"{name}: {_listed(values)}" for name, values in found.axes.items())),
        ("budget", _budget(mapping(about.get("budget")))),
        ("tuning", _tuning(mapping(about.get("tune")), _tried(found))),
        ("world", _world(mapping(about.get("world")))),
        ("written", str(about.get("written") or "")),
    ]
    if not found.is_study:
        states = [cell.state for cell in found.cells if cell.trained is not None]
        done = states.count("done")
        told = f"{len(states)}, {'all' if done == len(states) else done} finished"
        facts = [
            ("runs", told if len(states) > 1 else f"1, {'finished' if done else 'not finished'}")
        ]
        facts.append(("seeds", _listed(sorted({cell.seed for cell in found.tested}))))
    pairs = [(el("dt", name), el("dd", value)) for name, value in facts if value]
    notes = [el("li", el("strong", name), ": ", prose(note)) for name, note in _notes(about)]
    paragraphs = str(describes).strip().split("\n\n") if describes else []
    return join(
        [
            *(el("p", prose(paragraph)) for paragraph in paragraphs),
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
        "unfinished": sum(state in ("waiting", "running", "") for state in states),
        "not finished (interrupted, or still running)": states.count("interrupted"),
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
    return el("li", el("strong", trouble.where), ": ", prose(trouble.what))


def _listed(values: Any) -> str:
    return ", ".join(setting(value) for value in values) if isinstance(values, list) else ""


def _budget(told: Mapping[str, Any]) -> str:
    parts = [f"{setting(value)} {what}" for what, value in told.items() if value]
    return f"{', '.join(parts)} for each method, over all its stages" if parts else ""


def _tried(found: Compared) -> str:
    """Trials of a method: as many for each, or more where grids were widened."""
    given = [mapping(one).get("trials") for one in found.tuning.values()]
    counts = sorted({len(trials) for trials in given if isinstance(trials, list)})
    return " to ".join(map(str, [counts[0], counts[-1]][: len(counts)])) if counts else ""


def _tuning(told: Mapping[str, Any], tried: str) -> str:
    if not told:
        return ""
    least = mapping(told.get("at_least")).items()
    reach = [f", among those that reach {v:g} of the best {k}" for k, v in least if is_number(v)]
    most = mapping(told.get("at_most")).items()
    reach += [f", with {k} at most {v:g}" for k, v in most if is_number(v)]
    seeds, count = _listed(told.get("seeds")), tried or told.get("trials")
    trials = f"{count} trials of a method, " if count else ""
    split = (
        f"validation split of seed{'s' * (',' in seeds)} {seeds}" if seeds else "validation split"
    )
    return f"{trials}by {setting(told.get('metric'))} on the {split}{''.join(reach)}"


def _world(told: Mapping[str, Any]) -> str:
    options = _pairs({key: value for key, value in told.items() if key != "name"})
    return setting(told.get("name") or "") + (f" ({options})" if options else "")


def _pairs(told: Any) -> str:
    items = mapping(told).items()
    return ", ".join(
        f"{key} {_listed(value) if isinstance(value, list) else setting(value)}"
        for key, value in items
        if value not in (None, {}, [])
    )
