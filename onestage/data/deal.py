"""Which trees go in which row, and which rows to which rank.

A step ends when the rank with the most to do is done. So trees go, the longest first, to the rank that
has the least so far; and each rank's into rows, the longest first, so that what ranks do at the same
time is of like length: weights that lie in parts on many devices are put together for every forward
pass, by all of them, and a rank that is done waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Of = TypeVar("Of")


def arrange(sizes: Sequence[int], budget: int, ranks: int = 1) -> list[list[int]]:
    """Rows of at most `budget` tokens that hold every tree once, by number; a tree that is longer has a
    row of its own.

    `sizes`: tokens of the trees. With several ranks the rows are those of a first pass, one for each
    rank, then those of a second, ...; of passes in which a rank has nothing to do, its row is empty.
    """
    # The longest first: rows are nearly full, and ranks nearly equal, without a search.
    longest_first = sorted(range(len(sizes)), key=lambda number: -sizes[number])
    hands: list[list[int]] = [[] for _ in range(ranks)]
    held = [0] * ranks
    for number in longest_first:
        least = held.index(min(held))
        hands[least].append(number)
        held[least] += sizes[number]
    rows = [_rows(hand, sizes, budget) for hand in hands]
    if ranks > 1:
        for mine in rows:
            mine.sort(key=lambda row: -sum(sizes[number] for number in row))
    passes = max(map(len, rows))
    return [mine[turn] if turn < len(mine) else [] for turn in range(passes) for mine in rows]


def _rows(numbers: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """First fit, in the order given."""
    rows: list[list[int]] = []
    room: list[int] = []
    for number in numbers:
        place = next((r for r, free in enumerate(room) if free >= sizes[number]), None)
        if place is None:
            rows.append([])
            room.append(budget)
            place = len(rows) - 1
        rows[place].append(number)
        room[place] -= sizes[number]
    return rows


def deal(rows: Sequence[Of], rank: int, ranks: int) -> list[Of]:
    """The rows of one of the `ranks` ranks that they were arranged for, as many as every other gets.

    Raises `ValueError` for rows of another number of ranks.
    """
    if len(rows) % ranks:
        raise ValueError(
            f"{len(rows)} rows cannot be dealt to {ranks} ranks: they are not of passes"
        )
    return list(rows[rank::ranks])
