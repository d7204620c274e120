"""Terms: the objectives of a run, which records each is given, and their losses on a forest row.

This is the seam between numbers and everything else: rows, records and names on one side, the pure
functions of `objectives` on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.config import RecipeError
from onestage.data.encoded import Encoded, Floats
from onestage.data.kinds import FEEDBACK, Kind
from onestage.data.packing import Batch, Row
from onestage.objectives import CODE, Feedback, Loss, Need, Objective, Scored, Stateful
from onestage.objectives._host import sent, there_of
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
            start = objective.start() if isinstance(objective, Stateful) else {}
            self.state.setdefault(name, start)

    @property
    def needs(self) -> frozenset[Need]:
        """What the objectives need, all together."""
        return frozenset().union(*(objective.needs for objective in self.objectives.values()))

    def needs_of(self, *records: Encoded) -> frozenset[Need]:
        """What the objectives of some records need."""
        return frozenset().union(*(self.objective_of(record).needs for record in records))

    def name_of(self, record: Encoded) -> str:
        """The term a record belongs to."""
        return self.term_of[record.source, record.kind]

    def objective_of(self, record: Encoded) -> Objective:
        """The objective a record is given to."""
        return self.objectives[self.name_of(record)]

    def apart(self, records: Sequence[Encoded]) -> list[list[Encoded]]:
        """The records of each term that has some."""
        found = [[r for r in records if self.name_of(r) == name] for name in self.objectives]
        return [mine for mine in found if mine]

    def count(self, records: Sequence[Encoded]) -> dict[str, float]:
        """Units of each term in some records; terms without any are left out."""
        counts = {}
        for name, objective in self.objectives.items():
            mine = [record for record in records if self.name_of(record) == name]
            if mine:
                counts[name] = float(objective.units(feedback_of(mine)).count)
        return counts

    def losses(self, row: Row, batch: Batch, known: Mapping[str, Tensor]) -> dict[str, Loss]:
        """The loss of each term on one row, with the batch's record numbers.

        `known`: what is known of the row's scored tokens (K each): `logp`, `reference`, and what else
        the objectives need of the policy.
        """
        found = {}
        records = [batch.records[number] for number in row.records]
        names = np.asarray([self.name_of(record) for record in records])
        # Tokens stand in the order of the records (`Row.paths`).
        name_K = np.repeat(names, [record.scored for record in records])
        for name, objective in self.objectives.items():
            places = np.flatnonzero(names == name)
            if not len(places):
                continue
            keep_K = there_of(
                torch.from_numpy(np.flatnonzero(name_K == name)), known["logp"].device
            )
            scored = score(
                [records[place] for place in places],
                {what: value_K[keep_K] for what, value_K in known.items()},
                self.state[name],
                [row.records[place] for place in places],
            )
            loss = objective(scored)
            if "logp" in objective.needs:  # of rewards there are no log-ratios
                common = measure(scored, objective.beta, reference="reference" in objective.needs)
                loss = replace(loss, metrics={**common, **loss.metrics})
            found[name] = loss
        return found

    def advance(self, observed: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
        """Move the objectives' states past a step, given (sum, weight) of what they observed."""
        for name, objective in self.objectives.items():
            if isinstance(objective, Stateful):
                seen = observed.get(name, {}).items()
                means = {what: total / count for what, (total, count) in seen if count}
                self.state[name] = objective.advance(self.state[name], means)


def numbers_of(terms: Terms) -> dict[str, float]:
    """The numbers that go with what is asked of the policy (`Objective.numbers`).

    Raises `RecipeError` where two objectives ask the same with other numbers.
    """
    found: dict[str, tuple[str, float]] = {}
    for name, objective in terms.objectives.items():
        for what, number in objective.numbers.items():
            first, before = found.setdefault(what, (name, number))
            if before != number:
                raise RecipeError(
                    f"objective {first} asks the policy for {what} with {before:g} and {name} with "
                    f"{number:g}, which is read once for both: give both the same number"
                )
    return {what: number for what, (_, number) in found.items()}


def score(
    records: Sequence[Encoded],
    known: Mapping[str, Tensor],
    state: Mapping[str, float] = MappingProxyType({}),
    numbers: Sequence[int] | None = None,
) -> Scored:
    """Some records as an objective sees them; what is not known of their tokens (K each) is 0.

    `numbers`: of the records, where they are not 0, 1, 2, ...
    """
    extra = {name: value_K for name, value_K in known.items() if name not in ("logp", "reference")}
    device = next((value_K.device for value_K in known.values()), torch.device("cpu"))
    feedback = feedback_of(records, numbers, device)
    zeros_K = torch.zeros(sum(record.scored for record in records), device=device)
    return Scored(
        feedback,
        known.get("logp", zeros_K),
        known.get("reference", zeros_K),
        feedback.response_K,
        state,
        extra,
        {
            name: there_of(torch.from_numpy(kept_K(records, name)), device)
            for name in sorted({n for r in records if r.sampled for n in r.sampled.kept})
        },
    )


def kept_K(records: Iterable[Encoded], name: str) -> Floats:
    """A number that is kept with sampled responses; zeros for the tokens of other records."""
    parts: list[Floats] = []
    for record in records:
        if record.sampled and name in record.sampled.kept:
            parts += record.sampled.kept[name]
        else:
            parts.append(np.zeros(record.scored, np.float32))
    return np.concatenate(parts)


def feedback_of(
    records: Sequence[Encoded],
    numbers: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> Feedback:
    """What is known about the responses of some records, in order; `numbers`: as for `score`."""
    whole: dict[str, list[Any]] = {
        name: [] for name in ("kind", "tokens", "record", "pair", "role")
    }
    real: dict[str, list[float]] = {"score": [], "weight": []}
    for number, record in zip(numbers or range(len(records)), records, strict=True):
        size, first = len(record.scores), len(real["score"])
        tokens = [0] * size
        for path in record.paths:
            for (start, end), response in zip(path.spans, path.responses, strict=True):
                tokens[response] += end - start
        whole["kind"] += [CODE[record.kind]] * size
        whole["tokens"] += tokens
        whole["record"] += [number] * size
        whole["pair"] += [(first, first + 1)] if FEEDBACK[record.kind].paired else []
        whole["role"] += record.sampled.roles if record.sampled else [0] * size
        real["score"] += record.scores
        real["weight"] += [record.weight * w for w in record.weights or (1.0,) * size]
    int_of = {n: torch.tensor(v, dtype=torch.int64) for n, v in whole.items()}
    float_of = {n: torch.tensor(v, dtype=torch.float32) for n, v in real.items()}
    known = Feedback(
        kind_N=int_of["kind"],
        score_N=float_of["score"],
        weight_N=float_of["weight"],
        tokens_N=int_of["tokens"],
        record_N=int_of["record"],
        pair_P2=int_of["pair"].reshape(-1, 2),
        role_N=int_of["role"],
        scored=sum(whole["tokens"]),
    )
    return sent(known, device)
