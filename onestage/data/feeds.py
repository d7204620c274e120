"""Which records a step gets: every term has a feed, walked at that term's own pace.

No feed needs the length of another, a term that is not trained on draws nothing, and nothing that was
drawn is thrown away, unless a schedule says so (`skip`). How far each feed has been walked is all the
state there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from onestage.data.encoded import Encoded
from onestage.data.mixture import Mixture
from onestage.data.portions import Portions

TOGETHER = ""
"""The name of the feed of a run whose terms share one batch."""
Walk = tuple[Mixture, int]
"""A mixture, and how many batches were drawn from it before."""


class Answers(Protocol):
    """What answers the problems among the records that are drawn; other records stay as they are.

    `walks`: the mixtures that training walks, as they stood before the draw.
    """

    def ready(
        self, records: Sequence[Encoded], walks: Sequence[Walk], *, taken: bool
    ) -> list[Encoded]:
        """The records as they are trained on; those that left nothing to train on are missing. `taken`:
        now, and not only measured before."""

    def aside(
        self, records: Sequence[Encoded], walks: Sequence[Walk], purpose: str
    ) -> list[Encoded]:
        """The records with answers of their own, which training never sees. `purpose` decides the random
        numbers."""


@dataclass
class Feeds:
    own: Mapping[str, Mixture]
    """A mixture for each term, over the streams (or parts of streams) that it is given."""
    together: Mixture | None = None
    """One mixture over all streams: then every batch is drawn from that."""
    measure_fraction: float = 1.0
    """Size of a batch that is only measured, against one that is trained on; a record at least."""
    answers: Answers | None = None
    """Of a run that has problems to solve."""
    drawn: dict[str, int] = field(default_factory=dict)
    """Batches drawn, by feed."""
    measured: dict[str, int] = field(default_factory=dict)
    """Batches drawn apart from the training, only to be measured, by term."""
    _parts: dict[tuple[str, str], Mixture] = field(default_factory=dict, repr=False)
    """What is drawn from apart from the training, by term and purpose."""

    def draw(self, terms: Iterable[str]) -> list[Encoded]:
        """The next batch of each of the terms, in the order of the feeds; moves on past them."""
        names = [TOGETHER] if self.together else self._ordered(terms)
        walks = self._walks(names)
        # Only now: `walks` says which draw of each mixture this is, by which answers are kept.
        for name in names:
            self.drawn[name] = self.drawn.get(name, 0) + 1
        records = [record for mixture, number in walks for record in mixture.draw(number)]
        return self.answers.ready(records, walks, taken=True) if self.answers else records

    def skip(self, terms: Iterable[str]) -> None:
        """Pass over the next batch of each of the terms, which was measured and is not trained on."""
        for name in terms:
            self.drawn[name] = self.drawn.get(name, 0) + 1

    def to_measure(self, terms: Iterable[str], *, next_batch: bool) -> list[Encoded]:
        """Records to measure the terms on: the batch each would train on next, or one of its own.

        Neither moves `drawn`: what a run trains on must not depend on how often it was measured.
        """
        names = self._ordered(terms)
        if next_batch:
            records = [r for name in names for r in self.own[name].draw(self.drawn.get(name, 0))]
            walks = self._walks(names)
            return self.answers.ready(records, walks, taken=False) if self.answers else records
        number, records = sum(self.measured.get(name, 0) for name in names), []
        for name in names:
            records += self._apart(name).draw(self.measured.get(name, 0))
            self.measured[name] = self.measured.get(name, 0) + 1
        return self._aside(records, f"look{number}")

    def probe(self, terms: Iterable[str], number: int) -> list[Encoded]:
        """Records for a run's `number`-th probe: a batch of each term, in an order of its own."""
        records = [r for name in self._ordered(terms) for r in self._probed(name).draw(number)]
        return self._aside(records, f"probe{number}")

    def first(self, count: int) -> list[Encoded]:
        """The first so many records of each stream that is drawn from, whatever the terms."""
        return [
            stream[place]
            for mixture, _ in self._walks(self.own)
            for stream in mixture.streams
            for place in range(min(count, len(stream)))
        ]

    def _aside(self, records: list[Encoded], purpose: str) -> list[Encoded]:
        walks = self._walks(self.own)
        return self.answers.aside(records, walks, purpose) if self.answers else records

    def _walks(self, names: Iterable[str]) -> list[Walk]:
        if self.together:
            return [(self.together, self.drawn.get(TOGETHER, 0))]
        return [(self.own[name], self.drawn.get(name, 0)) for name in names]

    def _ordered(self, terms: Iterable[str]) -> list[str]:
        wanted = set(terms)
        return [name for name in self.own if name in wanted]

    def _apart(self, name: str) -> Mixture:
        records = sum(stream.share for stream in self.own[name].streams)
        # With less than a record a step, most measurements would find none.
        fraction = max(self.measure_fraction, min(1.0, 1 / records))
        return self._part(name, fraction, "look")

    def _probed(self, name: str) -> Mixture:
        return self._part(name, 1.0, "probe")

    def _part(self, name: str, fraction: float, purpose: str) -> Mixture:
        if (name, purpose) not in self._parts:
            # Kept, because it keeps the orders in which it walks its streams.
            self._parts[name, purpose] = self.own[name].part(fraction, purpose)
        return self._parts[name, purpose]

    def planned(
        self, draws: Mapping[str, int], measured: Mapping[str, int], probes: int
    ) -> Iterator[Iterator[Encoded]]:
        """For each stream of each feed: the records that so many batches of each sort visit, but for
        problems, which have no responses yet."""
        if self.together:
            # The terms share every batch, so the most drawn of them says how many there are.
            walks = [(self.together, max(draws.values()))]
        else:
            walks = [(self.own[name], count) for name, count in draws.items() if count]
        walks += [(self._apart(name), count) for name, count in measured.items()]
        walks += [(self._probed(name), probes) for name in self.own]
        for mixture, count in walks:
            for stream in mixture.streams if count else ():
                yield (r for r in mixture.planned(count, stream.name) if not r.is_problem)

    def arrived(self, portions: Portions, numbers: range) -> Iterator[Encoded]:
        """Some records of a stream that is still arriving, as they are drawn; but for problems."""
        mixtures = [self.together] if self.together else self.own.values()
        streams = (s for mixture in mixtures for s in mixture.streams if s.portions is portions)
        drawn = (stream[number] for stream in streams for number in numbers)
        return (record for record in drawn if not record.is_problem)

    def state(self) -> dict[str, Any]:
        # `looked` is the name that checkpoints have always had it under.
        return {"drawn": dict(self.drawn), "looked": dict(self.measured)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.drawn, self.measured = dict(state["drawn"]), dict(state["looked"])
