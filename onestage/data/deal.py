"""A step's rows to ranks, equally many to each.

Weights that lie in parts on many devices are put together for every forward pass, by all of them: a rank
that has one row less would leave the others waiting. So ranks get empty rows where rows are too few.
"""

from __future__ import annotations

from collections.abc import Sequence

from onestage.data.packing import Row
from onestage.data.trees import TokenPath, plant


def deal(rows: Sequence[Row], rank: int, ranks: int) -> list[Row]:
    """The rows of one of `ranks` ranks, as many as every other gets; all must ask of the same rows."""
    return padded(rows[rank::ranks], rows, -(-len(rows) // ranks))


def padded(mine: Sequence[Row], rows: Sequence[Row], size: int) -> list[Row]:
    """Rows, and behind them empty ones until there are `size`. `rows`: any, to make empty ones of."""
    missing = size - len(mine)
    return [*mine, *[empty(rows[0])] * missing] if missing else list(mine)


def empty(row: Row) -> Row:
    """A row of no record: two tokens of another one, so that they are tokens the model knows."""
    path = TokenPath(row.paths[0].ids[:2], ((1, 2),), (0,))
    return Row(tree=plant([path]), records=(), bounds=(0, 2), paths=(path,))
