"""Numbers that judge a response: scores of a declared range to [0, 1], ratings, labels, weights.

They may be written as text ("0.8", "true"), as in every table of text.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from onestage.data._row_error import RowError, shown

WORDS = {
    "true": 1.0,
    "1": 1.0,
    "1.0": 1.0,
    "yes": 1.0,
    "false": 0.0,
    "0": 0.0,
    "0.0": 0.0,
    "no": 0.0,
}
"""Labels in words, in any case."""

DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number in words: as in JSON, and nothing that only Python reads (nan, 1_000)."""


def unit_score(value: object, name: str, score_range: tuple[float, float]) -> float:
    """`value` out of the declared range, mapped linearly to [0, 1]; the ends are hit exactly."""
    low, high = score_range
    number = _number(value, name)
    if not low <= number <= high:
        # No range that can be declared holds these.
        wider = (
            ": set `score_range`"
            if -math.inf < number < math.inf
            else ", which is no number to judge by"
        )
        raise RowError(
            f"`{name}` must lie in the declared range {low:g} to {high:g}, found {value!r}{wider}"
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
    """1.0 for a thumb up, 0.0 for a thumb down: a bool, or 0 or 1, also in words."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in WORDS:
        return WORDS[value.strip().lower()]
    raise RowError(f"`label` must be true or false (or 1 or 0, yes or no), found {shown(value)}")


def row_weight(value: object) -> float:
    """How much the row counts: finite and above 0 (leave a row out rather than weigh it 0)."""
    number = _number(value, "weight")
    if not 0 < number <= sys.float_info.max:
        raise RowError(f"`weight` must be finite and above 0, found {value!r}")
    return float(number)


def checked_range(score_range: Sequence[float]) -> tuple[float, float]:
    """The declared range as two floats; ValueError unless finite and increasing."""
    if isinstance(score_range, list | tuple) and len(score_range) == 2:
        low, high = score_range
        numbers = all(isinstance(end, Real) and not isinstance(end, bool) for end in (low, high))
        if numbers and 0 < high - low < float("inf"):
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
    # Of a column of decimals, as databases write them to Parquet.
    if isinstance(value, Real | Decimal) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and DECIMAL.fullmatch(value.strip()):
        return float(value)
    raise RowError(f"`{name}` must be a number, found {shown(value)}")
