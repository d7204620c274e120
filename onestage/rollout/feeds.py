"""Feeds of a run with problems to solve: what is drawn as a problem comes out answered.

Responses that cost a lot to sample are used several times (`Reuse`): what later draws of the same block
will need is sampled together with the first of them and waits here, also in checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from onestage.data.encoded import Encoded, Sampled
from onestage.data.feeds import TOGETHER, Feeds
from onestage.data.mixture import Mixture, Reuse
from onestage.data.trees import TokenPath
from onestage.rollout.answer import Answering
from onestage.rollout.problems import spent

Key = tuple[str, int]


TRIED = 2
"""Problems of each stream that are answered before the first step."""


class OnlineFeeds(Feeds):
    def __init__(self, feeds: Feeds, answering: Answering, reuse: Reuse) -> None:
        super().__init__(feeds.own, feeds.together, feeds.measure_fraction)
        self.answering, self.reuse = answering, reuse
        self.waiting: dict[Key, Encoded | None] = {}
        """Answered problems by stream and visit; None for one that left nothing to train on."""

    def draw(self, terms: Iterable[str]) -> list[Encoded]:
        terms = list(terms)
        before = dict(self.drawn)
        records = super().draw(terms)
        ready = self._ready(records, terms, before)
        if self.reuse.passes == 1:
            for record in records:
                self.waiting.pop((record.source, record.visit), None)
        return ready

    def to_measure(self, terms: Iterable[str], *, next_batch: bool) -> list[Encoded]:
        terms = list(terms)
        number = sum(self.measured.get(name, 0) for name in terms)
        records = super().to_measure(terms, next_batch=next_batch)
        if next_batch:
            return self._ready(records, terms, self.drawn)
        return self._answered(records, f"look{number}")

    def probe(self, terms: Iterable[str], number: int) -> list[Encoded]:
        return self._answered(super().probe(terms, number), f"probe{number}")

    def trial(self) -> list[Encoded]:
        """A few problems of each stream, answered by a group of two."""
        mixtures = [self.together] if self.together else list(self.own.values())
        records = [
            record
            for mixture in mixtures
            for stream in mixture.streams
            for record in (stream[place] for place in range(min(TRIED, len(stream))))
        ]
        asked = [record for record in records if record.is_problem]
        return self.answering(asked, [0] * len(asked), "trial", count=2) if asked else []

    def answered(self, records: Sequence[Encoded]) -> tuple[list[Encoded], dict[str, float]]:
        asked = [record for record in records if record.is_problem]
        found, metrics = self.answering.evaluate(asked) if asked else ([], {})
        return [record for record in records if not record.is_problem] + found, metrics

    def planned(
        self, draws: Mapping[str, int], measured: Mapping[str, int], probes: int
    ) -> Iterator[Iterator[Encoded]]:
        for records in super().planned(draws, measured, probes):
            yield (record for record in records if not record.is_problem)

    def report(self) -> dict[str, float]:
        return self.answering.report.tell() | spent(self.answering.problems)

    def examples(self) -> list[Mapping[str, Any]]:
        return self.answering.shown()

    def _ready(
        self, records: Sequence[Encoded], terms: Sequence[str], drawn: Mapping[str, int]
    ) -> list[Encoded]:
        """Records that are trained on, problems as they were (or are now) answered."""
        if any(r.is_problem and (r.source, r.visit) not in self.waiting for r in records):
            self._sample(records, terms, drawn)
        ready = [self.waiting[r.source, r.visit] if r.is_problem else r for r in records]
        return [record for record in ready if record is not None]

    def _sample(
        self, records: Sequence[Encoded], terms: Sequence[str], drawn: Mapping[str, int]
    ) -> None:
        """Answer the problems of these records and of the other batches of their block."""
        wanted = {(r.source, r.visit): r for r in records if r.is_problem}
        for name, mixture in self._walked(terms):
            first = drawn.get(name, 0)
            for draw in range(first + 1, first + self.reuse.batches):
                wanted |= {(r.source, r.visit): r for r in mixture.draw(draw) if r.is_problem}
        asked = [record for key, record in wanted.items() if key not in self.waiting]
        sources = {record.source for record in asked}
        self.waiting = {key: r for key, r in self.waiting.items() if key[0] not in sources}
        self.waiting |= dict.fromkeys((r.source, r.visit) for r in asked)
        for record in self.answering(asked, self._rollouts(asked, terms, drawn), ""):
            self.waiting[record.source, record.visit] = record

    def _answered(self, records: Sequence[Encoded], purpose: str) -> list[Encoded]:
        asked = [record for record in records if record.is_problem]
        rollouts = self._rollouts(asked, self.own, self.drawn)
        found = self.answering(asked, rollouts, purpose) if asked else []
        return [record for record in records if not record.is_problem] + found

    def _rollouts(
        self, asked: Sequence[Encoded], terms: Iterable[str], drawn: Mapping[str, int]
    ) -> list[int]:
        """How often was sampled before for the stream of each problem, after so many draws."""
        of = {
            stream.name: self.reuse.rollout(drawn.get(name, 0))
            for name, mixture in self._walked(terms)
            for stream in mixture.streams
        }
        return [of[record.source] for record in asked]

    def _walked(self, terms: Iterable[str]) -> list[tuple[str, Mixture]]:
        if self.together:
            return [(TOGETHER, self.together)]
        return [(name, self.own[name]) for name in self._ordered(terms)]

    def close(self) -> None:
        self.answering.close()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "hints": self.answering.hint_state}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.answering.hint_state = {k: dict(v) for k, v in state["hints"].items()}

    def waiting_records(self) -> list[dict[str, Any]]:
        return [_plain(key, record) for key, record in self.waiting.items()]

    def refill(self, buffer: Sequence[Mapping[str, Any]]) -> None:
        self.waiting = dict(_restored(item) for item in buffer)


def _plain(key: Key, record: Encoded | None) -> dict[str, Any]:
    if record is None or record.sampled is None:
        return {"source": key[0], "visit": key[1], "dropped": True}
    kept = record.sampled.kept
    return {
        "source": record.source,
        "visit": record.visit,
        "kind": record.kind,
        "weight": record.weight,
        "id": record.id,
        "scores": list(record.scores),
        "roles": list(record.sampled.roles),
        "paths": [
            (torch.from_numpy(path.ids), list(path.spans), list(path.responses))
            for path in record.paths
        ],
        "kept": {name: [torch.from_numpy(v) for v in values] for name, values in kept.items()},
    }


def _restored(item: Mapping[str, Any]) -> tuple[Key, Encoded | None]:
    key = (item["source"], item["visit"])
    if item.get("dropped"):
        return key, None
    paths = tuple(
        TokenPath(ids.numpy(), tuple((a, b) for a, b in spans), tuple(responses))
        for ids, spans, responses in item["paths"]
    )
    kept = {name: tuple(v.numpy() for v in values) for name, values in item["kept"].items()}
    return key, Encoded(
        kind=item["kind"],
        paths=paths,
        scores=tuple(item["scores"]),
        weight=item["weight"],
        source=item["source"],
        id=item["id"],
        visit=item["visit"],
        sampled=Sampled(tuple(item["roles"]), kept),
    )
