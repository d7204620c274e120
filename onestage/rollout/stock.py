"""What is drawn as a problem comes out answered: the stock of answers between sampling and training.

Responses that cost a lot to sample are used several times (`Reuse`): what later draws of the same block
will need is sampled together with the first of them and waits here, also in checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from onestage.data.encoded import Encoded, Sampled
from onestage.data.feeds import Walk
from onestage.data.mixture import Reuse
from onestage.data.trees import TokenPath
from onestage.rollout.answer import Answering
from onestage.rollout.outcome import Report
from onestage.rollout.problems import spent

Key = tuple[str, int]
TRIED = 2
"""Problems of each stream that are answered before the first step (`trial`)."""


class Stock:
    """Answered problems: those that wait for the draws that will use them (again)."""

    def __init__(self, answering: Answering, reuse: Reuse) -> None:
        self.answering, self.reuse = answering, reuse
        self.waiting: dict[Key, Encoded | None] = {}
        """By stream and visit; None for one that left nothing to train on."""

    def ready(
        self, records: Sequence[Encoded], walks: Sequence[Walk], *, taken: bool
    ) -> list[Encoded]:
        """Records that are trained on, problems as they were (or are now) answered."""
        if any(r.is_problem and (r.source, r.visit) not in self.waiting for r in records):
            self._sample(records, walks)
        ready = [self.waiting[r.source, r.visit] if r.is_problem else r for r in records]
        if taken and self.reuse.passes == 1:
            for record in records:
                self.waiting.pop((record.source, record.visit), None)
        return [record for record in ready if record is not None]

    def aside(
        self, records: Sequence[Encoded], walks: Sequence[Walk], purpose: str
    ) -> list[Encoded]:
        """Records that are only measured, problems answered for that alone; these stand last."""
        asked = [record for record in records if record.is_problem]
        found = self.answering(asked, self._rollouts(asked, walks), purpose) if asked else []
        return [record for record in records if not record.is_problem] + found

    def trial(self, records: Sequence[Encoded]) -> list[Encoded]:
        """The problems among some records, each answered by a group of two."""
        asked = [record for record in records if record.is_problem]
        return self.answering(asked, [0] * len(asked), "trial", count=2) if asked else []

    def evaluate(self, records: Sequence[Encoded]) -> tuple[list[Encoded], dict[str, float]]:
        """Records as they are evaluated, problems answered and last, and what was measured doing so."""
        asked = [record for record in records if record.is_problem]
        found, metrics = self.answering.evaluate(asked) if asked else ([], {})
        return [record for record in records if not record.is_problem] + found, metrics

    def report(self) -> dict[str, float]:
        """What was measured while sampling since the last report, and what rewards have cost."""
        return self.answering.report.tell() | spent(self.answering.problems)

    def unreported(self) -> dict[str, Any]:
        """What the next report will tell, as plain data for a checkpoint."""
        return dict(vars(self.answering.report))

    def report_on(self, state: Mapping[str, Any]) -> None:
        """Put back what `unreported` gave."""
        self.answering.report = Report.restored(state)

    def examples(self) -> list[Mapping[str, Any]]:
        """Some problems, completions and rewards since the last time, to be shown."""
        return self.answering.shown()

    def close(self) -> None:
        """Let go of what sampling and judging hold."""
        self.answering.close()

    def state(self) -> dict[str, Any]:
        """Of the hint rules, as plain data."""
        return {"hints": self.answering.hint_state}

    def contents(self) -> list[dict[str, Any]]:
        """What waits, as plain data and tensors."""
        return [_plain(key, record) for key, record in self.waiting.items()]

    def restore(self, state: Mapping[str, Any], contents: Sequence[Mapping[str, Any]]) -> None:
        """Put back what `state` and `contents` gave."""
        self.answering.hint_state = {name: dict(kept) for name, kept in state["hints"].items()}
        self.waiting = dict(_restored(item) for item in contents)

    def _sample(self, records: Sequence[Encoded], walks: Sequence[Walk]) -> None:
        """Answer the problems of these records and of the other batches of their block."""
        wanted = {(r.source, r.visit): r for r in records if r.is_problem}
        # The first draw of a block samples for all of it: the later ones find their answers here.
        for mixture, first in walks:
            for number in range(first + 1, first + self.reuse.batches):
                wanted |= {(r.source, r.visit): r for r in mixture.draw(number) if r.is_problem}
        asked = [record for key, record in wanted.items() if key not in self.waiting]
        sources = {record.source for record in asked}
        # What is left of an earlier block was used as often as it should be.
        self.waiting = {key: r for key, r in self.waiting.items() if key[0] not in sources}
        # None stays where nothing comes back (a tie): it was asked and is not to be asked again.
        self.waiting |= dict.fromkeys((r.source, r.visit) for r in asked)
        for record in self.answering(asked, self._rollouts(asked, walks), ""):
            self.waiting[record.source, record.visit] = record

    def _rollouts(self, asked: Sequence[Encoded], walks: Sequence[Walk]) -> list[int]:
        """How often was sampled before for the stream of each problem."""
        of = {
            stream.name: self.reuse.rollout(number)
            for mixture, number in walks
            for stream in mixture.streams
        }
        return [of[record.source] for record in asked]


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
