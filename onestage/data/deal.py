"""A step's rows to ranks, equally many to each.

Weights that lie in parts on many devices are put together for every forward pass, by all of them: a rank
that has one row less would leave the others waiting. So ranks get empty rows where rows are too few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onestage.data.packing import Row
from onestage.data.trees import TokenPath, plant

_PATH = TokenPath(np.zeros(2, np.int32), ((1, 2),), (0,))
EMPTY = Row(tree=plant([_PATH]), records=(), bounds=(0, 2), paths=(_PATH,))
"""A row of no record, which counts nothing: two tokens, so that the model can be run on it."""


def deal(rows: Sequence[Row], rank: int, ranks: int) -> list[Row]:
    """The rows of one of `ranks` ranks, as many as every other gets; all must ask of the same rows."""
    return padded(rows[rank::ranks], -(-len(rows) // ranks))


def padded(rows: Sequence[Row], size: int) -> list[Row]:
    """Rows, and behind them empty ones until there are `size`."""
    return [*rows, *[EMPTY] * (size - len(rows))]
