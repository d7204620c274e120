"""Which records a step gets: every term has a feed, walked at that term's own pace.

No feed needs the length of another, a term that is not trained on draws nothing, and nothing that was
drawn is thrown away, unless a schedule says so (`skip`). How far each feed has been walked is all the
state there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
    part: float = 1.0
    """Size of a batch that is only looked at, against one that is trained on; a record at least."""
    drawn: dict[str, int] = field(default_factory=dict)
    """Batches drawn, by feed."""
    looked: dict[str, int] = field(default_factory=dict)
    """Batches looked at apart from the training, by term."""

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
        """Pass over the next batch of each of the terms, which was looked at and not wanted."""
        for name in terms:
            self.drawn[name] = self.drawn.get(name, 0) + 1

    def look(self, terms: Iterable[str], where: Literal["next", "apart"]) -> list[Encoded]:
        """Records to measure the terms on: what they would train on next, or others."""
        records = []
        for name in self._ordered(terms):
            if where == "next":
                records += self.own[name].draw(self.drawn.get(name, 0))
            else:
                records += self._apart(name).draw(self.looked.get(name, 0))
                self.looked[name] = self.looked.get(name, 0) + 1
        return records

    def probe(self, terms: Iterable[str], number: int) -> list[Encoded]:
        """Records for a run's `number`-th probe: a batch of each term, in an order of its own."""
        return [r for name in self._ordered(terms) for r in self._probed(name).draw(number)]

    def _ordered(self, terms: Iterable[str]) -> list[str]:
        wanted = set(terms)
        return [name for name in self.own if name in wanted]

    def _apart(self, name: str) -> Mixture:
        records = sum(stream.share for stream in self.own[name].streams)
        return self.own[name].part(max(self.part, min(1.0, 1 / records)), "look")

    def _probed(self, name: str) -> Mixture:
        return self.own[name].part(1.0, "probe")

    def planned(
        self, draws: Mapping[str, int], looks: Mapping[str, int], probes: int
    ) -> Iterator[Iterator[Encoded]]:
        """For each stream of each feed: the records that so many draws, looks and probes visit."""
        walks = [(self.own[name], count) for name, count in draws.items() if not self.together]
        if self.together:
            walks.append((self.together, max(draws.values())))
        walks += [(self._apart(name), count) for name, count in looks.items()]
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
        return {"drawn": dict(self.drawn), "looked": dict(self.looked)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.drawn, self.looked = dict(state["drawn"]), dict(state["looked"])
