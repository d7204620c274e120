"""The sentence about a missing column: what a row needs, what it has, what is probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from onestage.data.kinds import A_ROW_NEEDS, FEEDBACK, Kind

ALIASES: Mapping[str, tuple[str, ...]] = {
    column: aliases for kind in FEEDBACK.values() for column, aliases in kind.aliases.items()
}
"""What other data sets call our columns."""

SHOWN_COLUMNS = 12


def nearest_name(wanted: str, candidates: Sequence[str]) -> str | None:
    """The candidate that looks like a slip of the pen for `wanted`, if one does."""
    close = difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.8)
    return close[0] if close else None


def missing_column(
    missing: str,
    kind: Kind,
    row: Mapping[str, Any],
    names: Mapping[str, str],
    unread: Sequence[str],
) -> str:
    """A row whose kind is known lacks a column of it. `names` maps the file's columns to ours."""
    column = next((theirs for theirs, ours in names.items() if ours == missing), missing)
    needed = tuple(dict.fromkeys((*FEEDBACK[kind].needs, missing)))
    needs = ", ".join(f"`{name}`" for name in needed)
    needs += f" (or `{FEEDBACK[kind].instead}`)" if FEEDBACK[kind].instead else ""
    called = f"`{missing}`" if column == missing else f"`{missing}` (here {column!r})"
    state = "null" if column in row else "missing"
    spare = [name for name in _present(row, unread) if names.get(name) not in needed]
    return (
        f"a {kind} row needs {needs}; {called} is {state}, found {_listed(row, unread)}"
        f"{_hint(((missing, column),), spare)}"
    )


def no_feedback(row: Mapping[str, Any], names: Mapping[str, str], unread: Sequence[str]) -> str:
    """A row without any column that speaks of a response."""
    column_of = {ours: theirs for theirs, ours in names.items()}
    wanted = [(ours, column_of.get(ours, ours)) for ours in ALIASES if ours != "prompt"]
    return f"{A_ROW_NEEDS}; found {_listed(row, unread)}{_hint(wanted, _present(row, unread))}"


def _present(row: Mapping[str, Any], unread: Sequence[str]) -> list[str]:
    return [*(column for column, value in row.items() if value is not None), *unread]


def _listed(row: Mapping[str, Any], unread: Sequence[str]) -> str:
    present = _present(row, unread)
    shown = ", ".join(repr(column) for column in present[:SHOWN_COLUMNS])
    more = len(present) - SHOWN_COLUMNS
    return (shown or "no column that is not null") + (f" and {more} more" if more > 0 else "")


def _hint(wanted: Sequence[tuple[str, str]], candidates: Sequence[str]) -> str:
    """Slips of the pen first, for all wanted columns; then other data sets' names for them."""
    for ours, column in wanted:
        near = nearest_name(column, candidates)
        if near:
            return f"; did you mean columns: {{{ours}: {near}}}?"
    for ours, _ in wanted:
        for alias in ALIASES.get(ours, ()):
            near = nearest_name(alias, candidates)
            if near:
                return f"; did you mean columns: {{{ours}: {near}}}?"
    return ""
