"""Sampled answers as they stand: what objectives remember of them before the first update on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from onestage.data.deal import deal
from onestage.data.encoded import Encoded, Floats, Sampled
from onestage.data.packing import Batch, Row, by_path, pack_records
from onestage.data.record import ROLES
from onestage.models.exchange import Ranks
from onestage.models.policy import Policy
from onestage.training.terms import Terms, score

Reference = Callable[[], AbstractContextManager[Policy]]

Parts = dict[str, tuple[Floats, ...]]
"""Numbers by name, of each path's scored tokens."""
Told = tuple[int, str, tuple[Floats, ...]]
"""Record number, the name that they are kept by, and the numbers."""


@dataclass(frozen=True)
class Remembering:
    """Scores sampled responses with the policy and the reference as they stand."""

    policy: Policy
    terms: Terms
    reference: Reference | None
    """The reference, for as long as the context lasts; None where no objective needs it."""
    accelerator: Accelerator | None
    """None: this process alone, in the policy's own precision."""
    tokens_per_row: int

    def __call__(self, records: Sequence[Encoded], *, again: bool) -> list[Encoded]:
        """The records with what their objectives remember of them, in the same order.

        All of them must have been sampled together: baselines may be means over them. `again`: whether
        the policy is updated before the last step that uses them.
        """
        term_of = [self.terms.name_of(record) for record in records]
        found: dict[int, Encoded] = {}
        order = sorted(range(len(records)), key=lambda n: term_of[n])
        for name, numbers in groupby(order, key=lambda n: term_of[n]):
            places = list(numbers)
            mine = [records[n] for n in places]
            found |= dict(zip(places, self._of_term(name, mine, again), strict=True))
        return [found[n] for n in range(len(records))]

    def _of_term(self, name: str, records: Sequence[Encoded], again: bool) -> Iterator[Encoded]:
        objective = self.terms.objectives[name]
        reference: set[str] = {"reference"} & objective.needs
        asked: set[str] = reference | objective.asks(again)
        known = self._known(records, asked)
        joined = {
            what: torch.from_numpy(np.concatenate([p for parts in known for p in parts[what]]))
            for what in asked
        }
        remembered = objective.remember(score(records, joined, self.terms.state[name]), again)
        made = _by_record(remembered, records)
        for record, parts, mine in zip(records, known, made, strict=True):
            assert record.sampled is not None
            kept = {**mine, **{what: parts[what] for what in reference}}
            yield _own(replace(record, sampled=Sampled(record.sampled.roles, kept)))

    def _known(self, records: Sequence[Encoded], asked: Collection[str]) -> list[Parts]:
        """Numbers of the policy and the reference; processes share the work and all know everything."""
        found: list[Parts] = [{} for _ in records]
        if not asked:
            return found
        ranks = Ranks.of(self.accelerator) if self.accelerator else Ranks()
        batch = pack_records(records, self.tokens_per_row, ranks=ranks.ranks)
        rows, own = deal(batch.rows, ranks.rank, ranks.ranks), set(asked) - {"reference"}
        told = self._look(self.policy, rows, batch, {name: name for name in own})
        if "reference" in asked:
            assert self.reference is not None
            with self.reference() as other:
                told += self._look(other, rows, batch, {"logp": "reference"})
        for number, name, parts in _told_to_all(told, sorted(asked), records, ranks):
            found[number][name] = parts
        return found

    def _look(
        self, policy: Policy, rows: Sequence[Row], batch: Batch, name_of: Mapping[str, str]
    ) -> list[Told]:
        """What a policy says of some rows."""
        told: list[Told] = []
        cast = self.accelerator.autocast() if self.accelerator else nullcontext()
        with policy.evaluating(), cast:
            for row in rows if name_of else ():
                said = policy.look(row, name_of)
                for what, name in name_of.items():
                    parts = by_path(row, batch, said[what].float().cpu().numpy())
                    told += [(number, name, values) for number, values in parts.items()]
        return told


def _own(record: Encoded) -> Encoded:
    """Without what a teacher read: it has said its part."""
    sampled = record.sampled
    assert sampled is not None
    left = len(sampled.roles) - sampled.roles.count(ROLES.index("taught"))
    if left == len(sampled.roles):
        return record
    # They stand last, each with a path of its own.
    paths = len(record.paths) - (len(sampled.roles) - left)
    kept = {name: parts[:paths] for name, parts in sampled.kept.items()}
    return replace(
        record,
        paths=record.paths[:paths],
        scores=record.scores[:left],
        sampled=Sampled(sampled.roles[:left], kept),
    )


def _told_to_all(
    told: Sequence[Told], names: Sequence[str], records: Sequence[Encoded], ranks: Ranks
) -> Iterator[Told]:
    """What each rank was told, on all of them."""
    if ranks.ranks == 1:
        yield from told
        return
    places = [(number, names.index(name)) for number, name, _ in told]
    values = [np.concatenate([np.empty(0, np.float32), *parts]) for _, _, parts in told]
    for flat, *found in ranks.gather([np.asarray(places, np.int64).reshape(-1), *values]):
        for (number, name), joined in zip(flat.reshape(-1, 2).tolist(), found, strict=True):
            ends = np.cumsum([path.scored for path in records[number].paths])
            yield number, names[name], tuple(np.split(joined, ends[:-1]))


def _by_record(values: Mapping[str, Tensor], records: Sequence[Encoded]) -> list[Parts]:
    """Numbers of all tokens (K each), cut into those of each record's paths."""
    sizes = [path.scored for record in records for path in record.paths]
    cut = {name: iter(torch.split(value_K.float(), sizes)) for name, value_K in values.items()}
    return [
        # Copies: a record that waits would otherwise keep the numbers of all records in memory.
        {name: tuple(next(some).numpy().copy() for _ in record.paths) for name, some in cut.items()}
        for record in records
    ]
