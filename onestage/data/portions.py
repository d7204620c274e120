"""Records that are drawn while those behind them are still to come.

A stream with `portion: N` is read and encoded N rows at a time: the first before a run begins, each of
the others when all before it have been drawn. A portion is a store of its own, named by what is in it,
and has an order of its own. So what a step draws is a function of the seed and of the rows, whenever
these came, on however many ranks, and wherever the run was interrupted. A source that has ended comes
again, in the same portions and in other orders.
"""

from __future__ import annotations

import copy
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from onestage.data.cached import InUse, used
from onestage.data.encoded import Encoded
from onestage.data.reading import read
from onestage.data.store import Store, write_by_content
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder

OPEN = 4
"""Portions that are open at once, beside the first."""


class Lap(NamedTuple):
    """Some records of a stream that are gone through in an order of their own."""

    name: str
    begin: int
    """The number of the first of them."""
    size: int
    at: int
    """Which of them it is."""


def _opened(folder: Path) -> Store:
    used(folder)
    return Store(folder)


class Shelf(Sequence[Store]):
    """Stores one behind the other: the first stays open, of the others those that were read last. What
    is open takes memory and files, and of data without an end there is no last portion."""

    def __init__(self, first: Store) -> None:
        self.first, self.folders = first, [first.folder]
        self._opened = lru_cache(maxsize=OPEN)(_opened)
        self._in_use = InUse()
        self._in_use.add(first.folder)

    def add(self, folder: Path) -> None:
        """One more, behind the others."""
        self.folders.append(folder)
        self._in_use.add(folder)

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, number: Any) -> Any:
        folder = self.folders[number]
        return self.first if folder == self.first.folder else self._opened(folder)


class Portions:
    """The portions of a stream that are there, and how the next one is had."""

    def __init__(self, first: Store, more: Callable[[], Store | None]) -> None:
        """`more`: the next portion, or None where the source has ended."""
        self.stores, self.more, self.ended = Shelf(first), more, False
        self.begun: Callable[[range], None] = lambda numbers: None
        """Told of the records of each portion that has come, before one of them is drawn."""
        self.edges = [0, len(first)]
        """The number of the first record of each portion, and of the one that is to come."""
        self.table = copy.deepcopy(first.table)
        """Of all of them."""

    def __len__(self) -> int:
        """Records that are there."""
        return self.edges[-1]

    def __getitem__(self, number: int) -> Encoded:
        store, begin, _ = self.around(number)
        return store[number - begin]

    def around(self, number: int) -> tuple[Store, int, int]:
        """The portion in which a record lies, and the numbers of its first record and of the one behind
        its last."""
        portion = self._portion(number)
        return self.stores[portion], self.edges[portion], self.edges[portion + 1]

    @property
    def content(self) -> str:
        """A name for what is in all of them."""
        names = "/".join(folder.name for folder in self.stores.folders)
        return hashlib.blake2b(names.encode(), digest_size=16).hexdigest()

    def lap(self, cursor: int) -> Lap:
        """Where the `cursor`-th record that is drawn lies; has the portions come that it takes."""
        while cursor >= len(self) and not self.ended:
            self._next()
        epoch, place = divmod(cursor, len(self)) if self.ended else (0, cursor)
        portion = self._portion(place)
        begin, end = self.edges[portion : portion + 2]
        return Lap(f"{epoch}.{portion}", begin, end - begin, place - begin)

    def reach(self, count: int) -> None:
        """Have so many portions come, if the source has them."""
        while len(self.stores) < count and not self.ended:
            self._next()

    def _portion(self, number: int) -> int:
        return bisect_right(self.edges, number) - 1

    def _next(self) -> None:
        found = self.more()
        if found is None:
            self.ended = True
            return
        odd = sorted(found.counts().keys() - self.stores.first.counts().keys())
        if odd:
            source, here = self.table.source, ", ".join(self.stores.first.counts())
            raise ValueError(
                f"data {source}: {odd[0]} records come in portion {len(self.stores) + 1}, and the first "
                f"holds {here} alone; give each kind a stream of its own"
            )
        self.edges.append(len(self) + len(found))
        self.stores.add(found.folder)
        self.table.merge(found.table)
        # Of columns, a portion tells those of all rows that were read until then.
        self.table.unused, self.table.absent = found.table.unused, found.table.absent
        self.begun(range(*self.edges[-2:]))


class Arriving:
    """A source that is read from its beginning, once; on one process of a machine."""

    def __init__(self, stream: Stream, encoder: Encoder, cache: Path) -> None:
        self.name, self.size = stream.name, stream.portion
        self.reading, self.encoder, self.cache = read(stream), encoder, cache

    def __call__(self) -> Store | None:
        """The next portion, encoded now, of no more rows than it takes; None where none is left."""
        self.reading.noted.clear()  # they are noted with the portion's own rows
        rows = list(islice(self.reading, self.size))
        if not rows:
            return None
        return write_by_content(self.encoder.encode_all(rows), self.name, self.cache, self.reading)
