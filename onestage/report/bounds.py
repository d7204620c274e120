"""What became of bounds on forgetting: the certificates of the runs (docs/forgetting.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared
from onestage.report.markup import Html, el, join, table
from onestage.report.numbers import number
from onestage.report.reading import is_number

HEAD = ("run", "kept", "at most", "before", "after", "change", "95 % interval", "verdict", "price")


def bounds_section(found: Compared) -> Html | None:
    """A row for each bound of each finished run; None where nobody set one."""
    rows = [
        [cell.name, *_told(one)]
        for cell in found.cells
        for part in (cell.trained.parts if cell.trained else ())
        for one in part.bounds
    ]
    if not rows:
        return None
    note = (
        "Measured on held-out records that nothing of the run looked at, in nats; the interval is over "
        "records. Held: its upper end keeps the bound. Price: what one nat more would be worth in the "
        "weighted loss of the goals."
    )
    return join([table(HEAD, rows), el("p", note, class_="note")])


def _told(one: Mapping[str, Any]) -> list[str]:
    def of(key: str) -> str:
        value = one.get(key)
        return number(value if is_number(value) else None)

    relaxed = one.get("relaxed_to")
    verdict = str(one.get("verdict", ""))
    return [
        f"{one.get('what', '')} of {one.get('name', '')}, by {one.get('by', '')}",
        *map(of, ("at_most", "before", "after", "change")),
        f"{of('low')} to {of('high')}",
        f"{verdict}, relaxed to {number(relaxed)}" if is_number(relaxed) else verdict,
        of("price"),
    ]
