"""Which records a step gets: every term has a feed, walked at that term's own pace.

No feed needs the length of another, a term that is not trained on draws nothing, and nothing that was
drawn is thrown away, unless a schedule says so (`skip`). How far each feed has been walked is all the
state there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onestage.data.encoded import Encoded
from onestage.data.mixture import Mixture

TOGETHER = ""
"""The name of the feed of a run whose terms share one batch."""


@dataclass
class Feeds:
    own: Mapping[str, Mixture]
    """A mixture for each term, over the streams (or parts of streams) that it is given."""
    together: Mixture | None = None
    """One mixture over all streams: then every batch is drawn from that."""
    measure_fraction: float = 1.0
    """Size of a batch that is only measured, against one that is trained on; a record at least."""
    drawn: dict[str, int] = field(default_factory=dict)
    """Batches drawn, by feed."""
    measured: dict[str, int] = field(default_factory=dict)
    """Batches drawn apart from the training, only to be measured, by term."""

    def draw(self, terms: Iterable[str]) -> list[Encoded]:
        """The next batch of each of the terms, in the order of the feeds; moves on past them."""
        if self.together:
            feeds = {TOGETHER: self.together}
        else:
            feeds = {name: self.own[name] for name in self._ordered(terms)}
        records = []
        for name, feed in feeds.items():
            records += feed.draw(self.drawn.get(name, 0))
            self.drawn[name] = self.drawn.get(name, 0) + 1
        return records

    def skip(self, terms: Iterable[str]) -> None:
        """Pass over the next batch of each of the terms, which was measured and is not trained on."""
        for name in terms:
            self.drawn[name] = self.drawn.get(name, 0) + 1

    def to_measure(self, terms: Iterable[str], *, next_batch: bool) -> list[Encoded]:
        """Records to measure the terms on: the batch each would train on next, or one of its own.

        Neither moves `drawn`: what a run trains on must not depend on how often it was measured.
        """
        records = []
        for name in self._ordered(terms):
            if next_batch:
                records += self.own[name].draw(self.drawn.get(name, 0))
            else:
                records += self._apart(name).draw(self.measured.get(name, 0))
                self.measured[name] = self.measured.get(name, 0) + 1
        return records

    def probe(self, terms: Iterable[str], number: int) -> list[Encoded]:
        """Records for a run's `number`-th probe: a batch of each term, in an order of its own."""
        return [r for name in self._ordered(terms) for r in self._probed(name).draw(number)]

    def _ordered(self, terms: Iterable[str]) -> list[str]:
        wanted = set(terms)
        return [name for name in self.own if name in wanted]

    def _apart(self, name: str) -> Mixture:
        records = sum(stream.share for stream in self.own[name].streams)
        fraction = max(self.measure_fraction, min(1.0, 1 / records))
        return self.own[name].part(fraction, "look")

    def _probed(self, name: str) -> Mixture:
        return self.own[name].part(1.0, "probe")

    def planned(
        self, draws: Mapping[str, int], measured: Mapping[str, int], probes: int
    ) -> Iterator[Iterator[Encoded]]:
        """For each stream of each feed: the records that so many batches of each sort visit."""
        if self.together:
            walks = [(self.together, max(draws.values()))]
        else:
            walks = [(self.own[name], count) for name, count in draws.items() if count]
        walks += [(self._apart(name), count) for name, count in measured.items()]
        walks += [(self._probed(name), probes) for name in self.own]
        for mixture, count in walks:
            for stream in mixture.streams if count else ():
                yield mixture.planned(count, stream.name)

    def trial(self) -> list[Encoded]:
        """A few sampled responses, to try everything on before the first step; here there are none."""
        return []

    def answered(self, records: Sequence[Encoded]) -> tuple[list[Encoded], dict[str, float]]:
        """The same records with responses, as they are evaluated, and what was measured doing so."""
        return list(records), {}

    def report(self) -> dict[str, float]:
        """What was measured while sampling since the last report."""
        return {}

    def examples(self) -> list[Mapping[str, Any]]:
        """Some sampled responses since the last time, to be shown."""
        return []

    def waiting_records(self) -> list[dict[str, Any]]:
        """Sampled responses that later steps will use (again), as plain data and tensors."""
        return []

    def refill(self, waiting: Sequence[Mapping[str, Any]]) -> None:
        """Put back what `waiting_records` gave."""

    def close(self) -> None:
        """Let go of what sampling held."""

    def state(self) -> dict[str, Any]:
        return {"drawn": dict(self.drawn), "looked": dict(self.measured)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.drawn, self.measured = dict(state["drawn"]), dict(state["looked"])
