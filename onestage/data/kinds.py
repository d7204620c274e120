"""Which kind a row is, from the columns that it has. Never a guess: two readings are an error.

A row has a column when it is present and not null, because one Parquet file of many kinds has
every column in every row. `text` and what a checkable problem has (`answer`, `solution`,
`target`) are weak: rendered copies and reference answers are common extras, so they count only where
there is no response.

Numbers that judge a response: scores of a declared range -> [0, 1], ratings, labels, weights.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any

from onestage.data.record import KINDS, Kind, RowError, shown

NEEDS: Mapping[Kind, tuple[str, ...]] = {
    "demonstration": ("prompt", "completion"),
    "score": ("prompt", "completion", "score"),
    "label": ("prompt", "completion", "label"),
    "pair": ("prompt", "chosen", "rejected"),
    "group": ("prompt", "completions", "scores"),
    "text": ("text",),
    "check": ("prompt",),
}


CHECKED = ("answer", "solution", "target")
"""Beside a `prompt` without a response, any of these says that the answer can be checked."""


FEEDBACK = ("score", "label", "scores", "chosen_score", "rejected_score")


READS_FEEDBACK: Mapping[Kind, tuple[str, ...]] = {
    "demonstration": (),
    "score": ("score",),
    "label": ("label",),
    "pair": ("chosen_score", "rejected_score"),
    "group": ("scores",),
    "text": (),
    "check": (),
}


class NoFeedback(Exception):
    """The row holds nothing that makes a record; record_of says so with the row's columns."""


def stated_kind(value: object) -> Kind:
    """The kind that a row or a source names, checked."""
    for kind in KINDS:
        if value == kind:
            return kind
    raise RowError(f"`kind` must be one of {', '.join(KINDS)}, found {shown(value)}")


@lru_cache(maxsize=4096)
def inferred_kind(present: tuple[str, ...]) -> Kind:
    """The one kind that these columns (by our names) speak of; cached, as files repeat themselves.

    Raises RowError when they speak of two, or when feedback beside them would be left unread;
    NoFeedback when they speak of none.
    """
    readings = _readings(present)
    if len(readings) > 1:
        found = " and ".join(f"{columns} ({kind})" for columns, kind in readings)
        raise RowError(f"found {found} in one row: set `kind` to say which is meant")
    if not readings:
        return _weak_kind(present)
    columns, kind = readings[0]
    if columns == "`completion`" and "label" in present and "score" in present:
        raise RowError(
            "found both `label` and `score` beside `completion`: set `kind` to label or score"
        )
    _refuse_unread(kind, columns, present)
    return kind


def repeats_chosen(found: Mapping[str, Any]) -> bool:
    """Whether `messages` only repeats the chosen conversation, as in UltraFeedback binarized."""
    return "chosen" in found and found.get("messages") == found["chosen"]


def _readings(present: tuple[str, ...]) -> list[tuple[str, Kind]]:
    readings: list[tuple[str, Kind]] = []
    if "messages" in present:
        readings.append(("`messages`", "demonstration"))
    if "conversations" in present:
        readings.append(("`conversations`", "demonstration"))
    if "completion" in present:
        judged: Kind = "label" if "label" in present else "demonstration"
        readings.append(("`completion`", "score" if "score" in present else judged))
    if "chosen" in present or "rejected" in present:
        sides = [f"`{side}`" for side in ("chosen", "rejected") if side in present]
        readings.append((", ".join(sides), "pair"))
    if "completions" in present:
        readings.append(("`completions`", "group"))
    return readings


def _weak_kind(present: tuple[str, ...]) -> Kind:
    if "text" in present:
        beside = [f"`{name}`" for name in ("prompt", "answer") if name in present]
        if beside:
            raise RowError(
                f"found {' and '.join(beside)} beside `text`: set `kind` to text, or "
                "set columns: {completion: text} if it is the response"
            )
        _refuse_unread("text", "`text`", present)
        return "text"
    found = [f"`{name}`" for name in CHECKED if name in present]
    if "prompt" in present and found:
        _refuse_unread("check", ", ".join(found), present)
        return "check"
    raise NoFeedback


def _refuse_unread(kind: Kind, columns: str, present: tuple[str, ...]) -> None:
    unread = [name for name in FEEDBACK if name in present and name not in READS_FEEDBACK[kind]]
    if unread:
        raise RowError(
            f"found `{unread[0]}` beside {columns}, where it has no meaning: set `kind` to {kind} "
            f"to leave it out, or give the columns of the kind meant "
            f"({unread[0]} belongs to {', '.join(_owner(unread[0]))})"
        )


def _owner(feedback: str) -> tuple[str, ...]:
    kind = next(kind for kind in KINDS if feedback in READS_FEEDBACK[kind])
    return NEEDS[kind]


def unit_score(value: object, name: str, score_range: tuple[float, float]) -> float:
    """`value` out of the declared range, mapped linearly to [0, 1]; the ends are hit exactly."""
    low, high = score_range
    number = _number(value, name)
    if not low <= number <= high:
        raise RowError(
            f"`{name}` must lie in the declared range {low:g} to {high:g}, found {value!r}: "
            "set `score_range`"
        )
    return (number - low) / (high - low)


def rated_score(
    row: Mapping[str, Any], ratings: Mapping[str, float], score_range: tuple[float, float]
) -> float:
    """Weighted sum of rating columns, mapped so that the worst row scores 0 and the best 1.

    HelpSteer2: weights .65, .8 and .45 on ratings of 0 to 4; (3, 4, 4) -> 6.95 / 7.6 = .914.
    A negative weight is a penalty: its worst rating is the highest.
    """
    low, high = score_range
    total = worst = best = 0.0
    for name, weight in ratings.items():
        total += weight * _rating(row, name, score_range)
        worst += weight * (low if weight > 0 else high)
        best += weight * (high if weight > 0 else low)
    return min(1.0, max(0.0, (total - worst) / (best - worst)))


def unit_label(value: object) -> float:
    """1.0 for a thumb up, 0.0 for a thumb down: a bool, or 0 or 1."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return float(value)
    raise RowError(f"`label` must be true or false (or 1 or 0), found {shown(value)}")


def row_weight(value: object) -> float:
    """How much the row counts: finite and above 0 (leave a row out rather than weigh it 0)."""
    number = _number(value, "weight")
    if not 0 < number <= sys.float_info.max:
        raise RowError(f"`weight` must be finite and above 0, found {value!r}")
    return float(number)


def checked_range(score_range: Sequence[float]) -> tuple[float, float]:
    """The declared range as two floats; ValueError unless finite and increasing."""
    if len(score_range) == 2:
        low, high = score_range
        if all(isinstance(end, Real) for end in (low, high)) and 0 < high - low < float("inf"):
            return float(low), float(high)
    raise ValueError(f"score_range must be two increasing finite numbers, found {score_range!r}")


def _rating(row: Mapping[str, Any], name: str, score_range: tuple[float, float]) -> float:
    low, high = score_range
    number = _number(row.get(name), name)
    if not low <= number <= high:
        raise RowError(
            f"rating `{name}` must lie in the declared range {low:g} to {high:g}, found {number!r}"
        )
    return number


def _number(value: object, name: str) -> float:
    if type(value) is float or type(value) is int:
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise RowError(f"`{name}` must be a number, found {shown(value)}")
