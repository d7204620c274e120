"""The numbers of now: what objectives keep with sampled responses before the first update on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from onestage.data.encoded import Encoded, Floats, Sampled
from onestage.data.packing import by_path, pack_records
from onestage.models.policy import Policy
from onestage.objectives import Scored
from onestage.training.terms import Terms, feedback_of

Reference = Callable[[], AbstractContextManager[Policy]]


Parts = dict[str, tuple[Floats, ...]]
"""Numbers by name, of each path's scored tokens."""


@dataclass(frozen=True)
class Keeper:
    """Scores sampled responses with the policy and the reference as they stand."""

    policy: Policy
    terms: Terms
    reference: Reference | None
    """The reference, for as long as the context lasts; None where no objective needs it."""
    accelerator: Accelerator
    tokens_per_row: int

    def __call__(self, records: Sequence[Encoded], *, again: bool) -> list[Encoded]:
        """The records with what their objectives keep (`Objective.weigh`), in the same order.

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

    def _of_term(self, name: str, records: Sequence[Encoded], again: bool) -> list[Encoded]:
        objective = self.terms.objectives[name]
        wanted: set[str] = set(objective.knows(again))
        if objective.needs_reference:
            wanted.add("reference")
        known = self._known(records, wanted)
        made = self._weighed(name, records, known, again)
        kept = []
        for record, numbers, weights in zip(records, known, made, strict=True):
            reference = {"reference": numbers["reference"]} if objective.needs_reference else {}
            assert record.sampled is not None
            sampled = Sampled(record.sampled.roles, {**weights, **reference})
            kept.append(replace(record, sampled=sampled))
        return kept

    def _known(self, records: Sequence[Encoded], wanted: set[str]) -> list[Parts]:
        """Numbers of the policy and the reference; processes share the work and all know everything."""
        found: list[Parts] = [{} for _ in records]
        if not wanted:
            return found
        batch = pack_records(records, self.tokens_per_row)
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        rows = batch.rows[rank::ranks]
        reads = wanted & {"entropy", "value"}
        told: list[tuple[int, str, tuple[Floats, ...]]] = []

        def score(policy: Policy, name_of: Mapping[str, str]) -> None:
            with policy.evaluating(), self.accelerator.autocast():
                for row in rows:
                    for what, value_K in policy.look(row, reads & set(name_of)).items():
                        if what in name_of:
                            parts = by_path(row, batch, value_K.float().cpu().numpy())
                            told.extend((n, name_of[what], one) for n, one in parts.items())

        own = wanted & {"logp", "entropy", "value"}
        if own:
            score(self.policy, {name: name for name in own})
        if "reference" in wanted:
            assert self.reference is not None
            with self.reference() as policy:
                score(policy, {"logp": "reference"})
        for number, name, parts in gather_object(told) if ranks > 1 else told:
            found[number][name] = parts
        return found

    def _weighed(
        self, term: str, records: Sequence[Encoded], known: list[Parts], again: bool
    ) -> list[Parts]:
        objective = self.terms.objectives[term]
        device = torch.device("cpu")
        feedback = feedback_of(records, device)
        response_K = torch.repeat_interleave(
            torch.arange(len(feedback.tokens_N)), feedback.tokens_N
        )
        zeros_K = torch.zeros(len(response_K))

        def joined(name: str) -> Tensor:
            parts = [part for numbers in known for part in numbers[name]]
            return torch.from_numpy(np.concatenate(parts))

        names = set(known[0]) if known else set()
        scored = Scored(
            feedback,
            joined("logp") if "logp" in names else zeros_K,
            joined("reference") if "reference" in names else zeros_K,
            response_K,
            self.terms.state[term],
            extra={name: joined(name) for name in names & {"entropy", "value"}},
        )
        kept = {name: value_K.float() for name, value_K in objective.weigh(scored, again).items()}
        sizes = [sum(b - a for a, b in path.spans) for record in records for path in record.paths]
        cut = {name: iter(torch.split(value_K, sizes)) for name, value_K in kept.items()}
        return [
            {
                name: tuple(next(some).numpy().copy() for _ in record.paths)
                for name, some in cut.items()
            }
            for record in records
        ]
