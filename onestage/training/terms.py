"""Terms: the objectives of a run, which records each is given, and their losses on a forest row.

This is the seam between numbers and everything else: rows, records and names on one side, the pure
functions of `objectives` on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from onestage.data.encoded import Encoded, Floats
from onestage.data.packing import Batch, Row, feedback_arrays
from onestage.data.record import Kind
from onestage.objectives import Extra, Feedback, Loss, Measured, Objective, Scored, Told
from onestage.training.metrics import measure


@dataclass
class Terms:
    """Objectives by term name, and the rule that gives each (stream, kind) to one of them."""

    objectives: Mapping[str, Objective]
    term_of: Mapping[tuple[str, Kind], str]
    state: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each objective carries from step to step."""

    def __post_init__(self) -> None:
        for name, objective in self.objectives.items():
            self.state.setdefault(name, objective.initial_state())

    @property
    def needs_reference(self) -> bool:
        return any(objective.needs_reference for objective in self.objectives.values())

    def wants_reference(self, record: Encoded) -> bool:
        """Whether the record's objective compares with the reference."""
        return self.objective_of(record).needs_reference

    def wants_worked(self, record: Encoded) -> bool:
        """Whether the worked answer of a problem joins the sampled ones."""
        return self.objective_of(record).uses_worked

    def name_of(self, record: Encoded) -> str:
        """The term a record belongs to."""
        return self.term_of[record.source, record.kind]

    def objective_of(self, record: Encoded) -> Objective:
        """The objective a record is given to."""
        return self.objectives[self.name_of(record)]

    def count(self, records: Sequence[Encoded]) -> dict[str, float]:
        """Units of each term in some records; terms without any are left out."""
        counts = {}
        for name, objective in self.objectives.items():
            mine = [record for record in records if self.name_of(record) == name]
            if mine:
                counts[name] = float(objective.count(feedback_of(mine, torch.device("cpu"))))
        return counts

    def reads(self, records: Iterable[Encoded]) -> frozenset[Extra]:
        """What the objectives of some records read of the policy beside log-probabilities."""
        return frozenset().union(*(self.objective_of(record).reads for record in records))

    def losses(
        self,
        row: Row,
        batch: Batch,
        logp_K: Tensor,
        ref_logp_K: Tensor,
        extra: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> dict[str, Loss]:
        """The loss of each term on one row; `record_U` and metrics are by the batch's records."""
        found = {}
        records = [batch.records[number] for number in row.records]
        lengths = [sum(end - start for p in r.paths for start, end in p.spans) for r in records]
        for name, objective in self.objectives.items():
            mine = np.asarray([self.name_of(record) == name for record in records])
            if not mine.any():
                continue
            keep_K = torch.from_numpy(np.repeat(mine, lengths)).to(logp_K.device)
            chosen = [record for record, m in zip(records, mine, strict=True) if m]
            feedback = feedback_of(chosen, logp_K.device)
            response_K = torch.repeat_interleave(
                torch.arange(len(feedback.tokens_N), device=logp_K.device), feedback.tokens_N
            )
            scored = Scored(
                feedback,
                logp_K[keep_K],
                ref_logp_K[keep_K],
                response_K,
                self.state[name],
                {name: value_K[keep_K] for name, value_K in extra.items()},
                _kept(chosen, logp_K.device),
            )
            numbers = torch.as_tensor(np.asarray(row.records)[mine], device=logp_K.device)
            found[name] = _numbered(objective, scored, numbers)
        return found

    def advance(self, observed: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
        """Move the objectives' states past a step, given (sum, count) of what they observed."""
        for name, objective in self.objectives.items():
            means = {
                what: total / count
                for what, (total, count) in observed.get(name, {}).items()
                if count
            }
            self.state[name] = objective.advance(self.state[name], means)


def _numbered(objective: Objective, scored: Scored, numbers: Tensor) -> Loss:
    """The objective's loss and the common measurements, with the batch's record numbers."""
    loss = objective(scored)
    measured = dict(loss.metrics)
    if objective.task == "causal":
        found = measure(scored, objective.beta, reference=objective.needs_reference)
        measured = {**found, **measured}
    metrics = {
        name: Measured(item.value_M.detach(), numbers[item.record_M])
        for name, item in measured.items()
    }
    told = loss.told
    return Loss(
        loss.loss_U,
        loss.weight_U,
        numbers[loss.record_U],
        metrics,
        loss.observed,
        Told(told.value_M, told.weight_M, numbers[told.record_M]),
    )


def _kept(records: Sequence[Encoded], device: torch.device) -> dict[str, Tensor]:
    """What is kept with sampled responses (K each); zeros for the tokens of other records."""
    names = {name for record in records if record.sampled for name in record.sampled.kept}
    found = {}
    for name in sorted(names):
        parts: list[Floats] = []
        for record in records:
            if record.sampled and name in record.sampled.kept:
                parts += record.sampled.kept[name]
            else:
                parts.append(np.zeros(record.scored, np.float32))
        found[name] = torch.from_numpy(np.concatenate(parts)).to(device)
    return found


def feedback_of(records: Sequence[Encoded], device: torch.device) -> Feedback:
    """What is known about the responses of some records."""
    arrays = feedback_arrays(records)
    return Feedback(
        **{
            name: torch.from_numpy(getattr(arrays, name)).to(device)
            for name in (
                "kind_N",
                "score_N",
                "weight_N",
                "tokens_N",
                "record_N",
                "pair_P2",
                "role_N",
            )
        }
    )
