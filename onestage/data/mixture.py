"""Which records make up a step: streams mixed in proportion, by weight, or by count.

Each stream is walked in an order that is a function of (seed, stream, epoch) alone. How many records a
step takes from each stream is arithmetic on the step, spread as evenly as whole numbers allow, so every
part of a run sees the same mixture, and a mixture has no state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from heapq import heapify, heapreplace
from math import lcm
from typing import Any

import numpy as np

from onestage.data.columns import number_type
from onestage.data.encoded import Encoded
from onestage.data.kinds import Kind
from onestage.data.portions import Lap, Portions
from onestage.data.store import Store
from onestage.data.strangers import with_strangers
from onestage.randomness import generator


@dataclass(frozen=True, slots=True)
class Reuse:
    """How responses are used that cost a lot to sample: `batches` are sampled together, and gone through
    `passes` times before the next ones."""

    batches: int = 1
    passes: int = 1

    @property
    def steps(self) -> int:
        """Draws until new responses are sampled."""
        return self.batches * self.passes

    def batch(self, draw: int) -> int:
        """Which batch of the stream the `draw`-th draw (from 0) is given."""
        return draw // self.steps * self.batches + draw % self.batches

    def rollout(self, draw: int) -> int:
        """How often was sampled before that draw."""
        return draw // self.steps


@dataclass(frozen=True, slots=True)
class MixedStream:
    """A stream's store and its part in the mixture."""

    name: str
    store: Store
    share: float
    """Records of this stream in a step, on average."""
    numbers: np.ndarray[Any, Any] | None = None
    """Which records of the store; default all."""
    reuse: Reuse | None = None
    """Of a stream whose responses are sampled."""
    beside: Collection[Kind] = ()
    """Kinds whose records are drawn with answers to another prompt (`strangers`)."""
    portions: Portions | None = None
    """Of a stream that is still arriving; the store is the first of them."""

    def __len__(self) -> int:
        return len(self.store) if self.numbers is None else len(self.numbers)

    def lap(self, cursor: int) -> Lap:
        """Where the `cursor`-th record that is drawn lies."""
        if self.portions:
            return self.portions.lap(cursor)
        epoch, at = divmod(cursor, len(self))
        return Lap(str(epoch), 0, len(self), at)

    def __getitem__(self, place: int) -> Encoded:
        store, begin, end = self.store, 0, len(self)
        if self.portions:
            store, begin, end = self.portions.around(place)
        record = store[self._number(place - begin)]
        if record.kind not in self.beside:
            return record
        size = end - begin
        others = (self._number((place - begin + more) % size) for more in range(1, size))
        other = next((n for n in others if store.kind(n) == record.kind), None)
        return record if other is None else with_strangers(record, store[other])

    def _number(self, place: int) -> int:
        return place if self.numbers is None else int(self.numbers[place])


def shares(
    sizes: Mapping[str, int],
    weights: Mapping[str, float | None],
    counts: Mapping[str, int | None],
    batch_size: int,
) -> dict[str, float]:
    """Records a step of each stream: its count where given, the rest by weight or by size.

    Without weights the rest is split by the streams' sizes, so that every record is seen equally
    often. When any stream has a weight, the others count 1.
    """
    fixed = {name: float(count) for name, count in counts.items() if count is not None}
    rest = [name for name in sizes if name not in fixed]
    room = batch_size - sum(fixed.values())
    if room < 0 or (not rest and room > 0) or (rest and room <= 0):
        raise ValueError(
            f"data: per_step counts {fixed} do not fit batch_size {batch_size} "
            f"with {len(rest)} other streams"
        )
    weighed = any(weights[name] is not None for name in rest)
    parts = {name: _part(weights[name], sizes[name], weighed) for name in rest}
    if rest and sum(parts.values()) <= 0:
        raise ValueError("data: the weights of the streams add up to nothing")
    total = sum(parts.values())
    return {name: fixed[name] if name in fixed else room * parts[name] / total for name in sizes}


def _part(weight: float | None, size: int, weighed: bool) -> float:
    if not weighed:
        return float(size)
    return 1.0 if weight is None else float(weight)


@dataclass(frozen=True)
class Mixture:
    """The records of each step."""

    streams: Sequence[MixedStream]
    seed: int
    limit: Mapping[str, int] = field(default_factory=dict)
    """Records a stream gives at most over the run (where the run's length is given in epochs)."""
    purpose: str = ""
    """Another purpose, another order."""

    def take(self, step: int) -> dict[str, int]:
        """How many records step `step` (from 0) takes of each stream."""
        before, after = self.until(step), self.until(step + 1)
        return {name: after[name] - before[name] for name in after}

    def until(self, step: int) -> dict[str, int]:
        """Records taken of each stream before a step.

        The k-th record of a stream falls due at time (k - 1/2) / part, and records are taken in the
        order of their times. So the sequence is one, of which every step is a piece: counts never
        fall, and at most half a record a stream separates them from the exact proportions in time.
        """
        parts, unit = self._parts
        total = sum(parts.values())
        wanted = round(Fraction(total * step, unit))
        # floor(part * wanted / total + 1/2)
        taken = {n: (2 * part * wanted + total) // (2 * total) for n, part in parts.items()}
        # Each rounded by itself, the counts may miss their sum: the records next due make up for it.
        off = wanted - sum(taken.values())
        way = 1 if off > 0 else -1
        ranks = {name: way * rank for rank, name in enumerate(sorted(parts))}
        due = [] if not off else [_due(taken[n], parts[n], way, ranks[n], n) for n in parts]
        heapify(due)
        for _ in range(abs(off)):
            name = due[0][-1]
            taken[name] += way
            heapreplace(due, _due(taken[name], parts[name], way, ranks[name], name))
        return {name: min(count, self.limit.get(name, count)) for name, count in taken.items()}

    @cached_property
    def _parts(self) -> tuple[dict[str, int], int]:
        """The streams' shares as whole numbers of a unit, and the unit's denominator: rounded floats
        could let a count fall from one step to the next, and fractions are slow to add."""
        shares = {stream.name: Fraction(stream.share) for stream in self.streams}
        unit = lcm(*(share.denominator for share in shares.values()))
        return {name: int(share * unit) for name, share in shares.items()}, unit

    def draw(self, step: int) -> list[Encoded]:
        """The records of a step."""
        batches = {s.name: s.reuse.batch(step) if s.reuse else step for s in self.streams}
        # With hundreds of streams this is most of a draw: once a batch, not once a stream.
        until = {n: self.until(n) for batch in set(batches.values()) for n in (batch, batch + 1)}
        records = []
        for stream in self.streams:
            batch = batches[stream.name]
            for cursor in range(until[batch][stream.name], until[batch + 1][stream.name]):
                record = stream[self._place(stream, cursor)]
                # A problem that comes again is answered anew: the visit is part of its random numbers.
                records.append(replace(record, visit=cursor) if record.is_problem else record)
        return records

    def planned(self, steps: int, name: str) -> Iterator[Encoded]:
        """Every record of a stream that `steps` steps visit, once each; of one that is still arriving
        those of its first portion."""
        stream = next(stream for stream in self.streams if stream.name == name)
        end, first = self.until(steps)[name], stream.lap(0)
        # An epoch or more visits all records, in an order that makes no difference here.
        whole = end >= first.size
        for place in range(first.size) if whole else self._order(stream, first)[:end]:
            yield stream[int(place)]

    def part(self, fraction: float, purpose: str) -> Mixture:
        """The same streams in another order, `fraction` of the records a step."""
        streams = [replace(stream, share=stream.share * fraction) for stream in self.streams]
        return Mixture(streams, self.seed, {}, purpose)

    def _place(self, stream: MixedStream, cursor: int) -> int:
        lap = stream.lap(cursor)
        return lap.begin + int(self._order(stream, lap)[lap.at])

    def _order(self, stream: MixedStream, lap: Lap) -> np.ndarray[Any, Any]:
        kept = self._orders.get(stream.name)
        if kept is None or kept[0] != lap.name:
            name = f"{self.purpose}/{stream.name}" if self.purpose else stream.name
            kept = self._orders[stream.name] = lap.name, order(self.seed, name, lap.name, lap.size)
        return kept[1]

    @cached_property
    def _orders(self) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
        """Of each stream, the lap that was walked last and its order: 4 bytes a record."""
        return {}


def _due(taken: int, part: int, way: int, rank: int, name: str) -> tuple[Fraction, int, str]:
    """When a stream gives its next record (`way` 1) or gave its last (-1), to be compared with others:
    the least is the next to give one, or to take one back."""
    return way * Fraction(2 * taken + way, part), rank, name


def order(seed: int, stream: str, epoch: int | str, size: int) -> np.ndarray[Any, Any]:
    """A permutation of range(size), a function of its arguments alone."""
    permutation: np.ndarray[Any, Any] = np.arange(size, dtype=number_type(size))
    # What `Generator.permutation` does, which takes twice the memory.
    generator(f"{seed}/{stream}/{epoch}").shuffle(permutation)
    # A mixture keeps it: whoever wrote into it would change the order of the run.
    permutation.flags.writeable = False
    return permutation
