"""Log-probabilities of a batch as an objective sees them, for loops of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import MappingProxyType

import torch

from onestage.data.packing import Batch
from onestage.data.record import ROLES
from onestage.models.beside import Beside
from onestage.models.policy import Policy
from onestage.objectives import DIVERGENCES, Objective, Scored, called
from onestage.training import terms


def score(
    policy: Policy,
    batch: Batch,
    reference: Policy | None = None,
    objective: Objective | None = None,
    state: Mapping[str, float] = MappingProxyType({}),
) -> Scored:
    """What `policy` (and `reference`) say of all responses of a batch, with their feedback.

    The batch is one of `pack`. Log-probabilities of the policy are differentiable, those of the
    reference are not; without one they are 0, which `sft` and others that compare with nothing do not
    look at. An objective makes the loss: `DPO(beta=0.1)(score(policy, batch, reference)).mean()`.

    objective: who will look at it. Then all that it needs is read (entropies, values, whole
    distributions, ...), as in training, and what cannot be read is said. state: what it carries from
    step to step (`kto`, `uft`, ...), empty at the start; `advance` makes the next.

    Raises `ValueError`, with an objective, where the batch holds records that it cannot learn from, or
    where something is missing that it needs.
    """
    records = [batch.records[number] for row in batch.rows for number in row.records]
    numbers = [number for row in batch.rows for number in row.records]
    needs = frozenset({"reference"}) if objective is None else objective.needs
    if objective is not None:
        require(objective, policy, reference)
        _require_records(objective, batch)
        if objective.numbers:
            policy.ask_with({str(what): number for what, number in objective.numbers.items()})
    with _beside(policy, reference if needs & DIVERGENCES else None):
        said = [policy.look(row, needs) for row in batch.rows]
    known = {name: torch.cat([one[name] for one in said]) for name in said[0]}
    if reference is not None and "reference" in needs:
        with reference.evaluating():
            known["reference"] = torch.cat([reference(row) for row in batch.rows])
    return terms.score(records, known, state, numbers)


def require(objective: Objective, policy: Policy, reference: Policy | None) -> None:
    """Raise `ValueError` where a policy cannot say what an objective needs, or nobody can."""
    name, needs = called(objective), objective.needs
    if "reward" in needs and "reward" not in policy.gives:
        raise ValueError(
            f"{name} trains reward models, and the policy is none; load one: "
            'load(Model(name=..., task="reward"))'
        )
    if "logp" in needs and "logp" not in policy.gives:
        raise ValueError(f"{name} needs log-probabilities, and a reward model has none")
    if "reference" in needs and reference is None:
        raise ValueError(
            f"{name} compares with a reference; give reference=, the model as it was at the start"
        )
    if "value" in needs and policy.value_head is None:
        raise ValueError(
            f"{name} needs what a value head expects; call policy.add_value_head() before the "
            "optimiser is made"
        )


def _require_records(objective: Objective, batch: Batch) -> None:
    name, found = called(objective), {record.kind for record in batch.records}
    if odd := sorted(found - objective.kinds):
        raise ValueError(
            f"{name} cannot learn from {', '.join(odd)} records; it takes "
            f"{', '.join(sorted(objective.kinds))}"
        )
    if any(record.is_problem for record in batch.records):
        raise ValueError(
            f"{name} learns from answered problems; `answer` has the policy answer them"
        )
    roles = {role for one in batch.records if one.sampled for role in one.sampled.roles}
    if "stranger" in objective.needs and ROLES.index("stranger") not in roles:
        raise ValueError(
            f"{name} looks at answers behind prompts that they do not belong to; pack "
            "with_strangers(record, other) of onestage.data.strangers"
        )


@contextmanager
def _beside(policy: Policy, reference: Policy | None) -> Iterator[None]:
    """Whole distributions are compared with the reference's for as long as the context lasts."""
    if reference is None:
        yield
        return
    before, policy.beside = policy.beside, Beside(lambda: nullcontext(reference))
    try:
        yield
    finally:
        policy.beside = before
