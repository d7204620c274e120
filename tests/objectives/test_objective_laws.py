"""The laws of objectives: ours obey them, and each catches the one that breaks it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from support.objective_batches import scored
from test_objectives import OPTIONS
from torch import Tensor

import onestage.objectives
from onestage.objectives import Feedback, Objective, Scored, Stateful, Units, make, names
from onestage.objectives._laws import LAWS, laws
from onestage.testing import ContractError, check_objective

OURS = [(name, {}) for name in names()] + [(n, o) for n, many in OPTIONS.items() for o in many]


@pytest.mark.parametrize(("name", "options"), OURS, ids=str)
def test_ours_obey_them(name: str, options: dict[str, Any]) -> None:
    check_objective(make({"name": name, **options}))


@dataclass(frozen=True)
class Good(Objective):
    """Hinge loss of the margin: the docstring's example."""

    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 1.0

    def losses(self, batch: Scored) -> Tensor:
        return (1 - self.beta * batch.margin_P()).clamp(min=0)


@dataclass
class Thawed(Objective):
    unit = "pair"
    kinds = frozenset({"pair"})

    def losses(self, batch: Scored) -> Tensor:
        return (1 - batch.margin_P()).clamp(min=0)


@dataclass(frozen=True)
class Annotated(Good):
    kinds: frozenset[str] = frozenset({"pair"})  # type: ignore[assignment]


@dataclass(frozen=True)
class OtherKinds(Good):
    kinds = frozenset({"pair", "triple"})  # type: ignore[arg-type]


@dataclass(frozen=True)
class NothingToTrain(Good):
    needs = frozenset({"reference"})


@dataclass(frozen=True)
class Unweighed(Good):
    kinds = frozenset({"pair", "score"})


@dataclass(frozen=True)
class Misaligned(Good):
    def losses(self, batch: Scored) -> Tensor:
        return batch.log_ratio_N()


@dataclass(frozen=True)
class Averaging(Good):
    def losses(self, batch: Scored) -> Tensor:
        return super().losses(batch) / len(batch.feedback.pair_P2)


@dataclass(frozen=True)
class Weighing(Good):
    def losses(self, batch: Scored) -> Tensor:
        return super().losses(batch) * batch.feedback.weight_N[batch.feedback.pair_P2[:, 0]]


@dataclass(frozen=True)
class Comparing(Good):
    def losses(self, batch: Scored) -> Tensor:
        margin_P = batch.margin_P()
        return (margin_P - margin_P.mean().detach() - 1) ** 2


@dataclass(frozen=True)
class Numbering(Good):
    def losses(self, batch: Scored) -> Tensor:
        return super().losses(batch) * (1 + torch.arange(len(batch.feedback.pair_P2)))


@dataclass(frozen=True)
class NotEmpty(Good):
    def losses(self, batch: Scored) -> Tensor:
        margin_P = batch.margin_P()
        return (margin_P.max() - margin_P).detach() * 0 + super().losses(batch)


@dataclass(frozen=True)
class Detached(Good):
    def losses(self, batch: Scored) -> Tensor:
        return super().losses(batch).detach()


@dataclass(frozen=True)
class Exploding(Good):
    def losses(self, batch: Scored) -> Tensor:
        return (-batch.margin_P()).exp()


@dataclass(frozen=True)
class TheWrongWay(Good):
    def losses(self, batch: Scored) -> Tensor:
        return batch.margin_P()


@dataclass(frozen=True)
class Peeking(Good):
    needs = frozenset({"logp"})

    def losses(self, batch: Scored) -> Tensor:
        return (1 - batch.apart_P(batch.per_response(batch.logp_K - 0.5 * batch.ref_logp_K))).clamp(
            0
        )


@dataclass(frozen=True)
class Unasked(Good):
    def losses(self, batch: Scored) -> Tensor:
        return super().losses(batch) * batch.extra["entropy"].mean()


@dataclass(frozen=True)
class NotAsking(Good):
    def remember(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        return {"old": batch.logp_K}


@dataclass(frozen=True)
class Writing(Good):
    def losses(self, batch: Scored) -> Tensor:
        batch.feedback.score_N.fill_(0.5)
        return super().losses(batch)


@dataclass(frozen=True)
class Counting(Good):
    calls: list[int] = field(default_factory=list, compare=False)

    def losses(self, batch: Scored) -> Tensor:
        self.calls.append(1)
        return super().losses(batch) + len(self.calls)


@dataclass(frozen=True)
class Misshapen(Good):
    def metrics(self, batch: Scored) -> dict[str, Any]:
        return {"margin": batch.margin_P()}


@dataclass(frozen=True)
class Foreign(Good):
    def units(self, feedback: Feedback) -> Units:
        units = super().units(feedback)
        return Units(units.weight_U, units.record_U + 1)


@dataclass(frozen=True)
class Forgetful(Good):
    def start(self) -> dict[str, float]:
        return {"mean": 0.0}

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        return {"margin": batch.log_ratio_N()}

    def advance(self, state: Any, observed: Any) -> dict[str, float]:
        return {"average": observed.get("margin", 0.0)}


BROKEN: list[tuple[type[Objective], str]] = [
    *((Thawed, "options"), (Annotated, "options"), (OtherKinds, "declares")),
    *((NothingToTrain, "declares"), (Unweighed, "kinds"), (Misaligned, "units")),
    *((Foreign, "units"), (Weighing, "weights"), (Averaging, "cut"), (Comparing, "cut")),
    *((Numbering, "cut"), (Numbering, "order"), (NotEmpty, "empty"), (Detached, "gradient")),
    *((Exploding, "gradient"), (TheWrongWay, "sign"), (Peeking, "needs"), (Unasked, "kinds")),
    *((NotAsking, "needs"), (Writing, "pure"), (Counting, "pure"), (Misshapen, "metrics")),
    (Forgetful, "state"),
]


def test_the_example_of_the_docstring_is_lawful() -> None:
    assert laws(Good()) == []


@pytest.mark.parametrize(("broken", "law"), BROKEN)
def test_each_law_catches_who_breaks_it(broken: type[Objective], law: str) -> None:
    objective = broken()
    assert any(told.startswith(f"{law}: ") for told in laws(objective)), laws(objective)
    with pytest.raises(ContractError, match=f"{broken.__name__} breaks a law"):
        check_objective(objective)


def test_every_law_catches_somebody() -> None:
    assert {law for _, law in BROKEN} == set(LAWS)


def test_a_law_that_is_meant_to_be_broken_can_be_left_out() -> None:
    assert [told.split(":")[0] for told in laws(TheWrongWay())] == ["sign"]
    check_objective(TheWrongWay(), skip=["sign"])


def test_classes_are_named_by_the_package() -> None:
    assert onestage.objectives.DPO is onestage.objectives.find("dpo")
    assert {"DPO", "BradleyTerry", "PrefixRFT", "make"} <= set(dir(onestage.objectives))
    with pytest.raises(AttributeError, match="no attribute 'Dpo'"):
        _ = onestage.objectives.Dpo


@pytest.mark.parametrize("name", ["dpo", "kto", "grpo", "reinforce"])
def test_a_batch_of_a_users_own_gives_the_papers_number(name: str) -> None:
    """Without a run: no state, and nothing remembered of sampled answers."""
    from support.objective_batches import batch_of

    objective = make(name)
    batch = batch_of(sorted(objective.kinds))
    logp_K = batch.logp_K.clone().requires_grad_()
    mean = objective(Scored(batch.feedback, logp_K, batch.ref_logp_K, batch.response_K)).mean()
    mean.backward()
    assert logp_K.grad is not None
    assert bool(logp_K.grad.any())
    units = objective.units(batch.feedback)
    found = objective(batch)
    assert mean.item() == pytest.approx(float(found.loss_U.sum() / units.count))


STATEFUL = [(n, o) for n, o in OURS if isinstance(make({"name": n, **o}), Stateful)]


@pytest.mark.parametrize(("name", "options"), STATEFUL, ids=str)
def test_what_is_observed_of_a_row_counts_as_often_as_the_row_weighs(
    name: str, options: dict[str, Any]
) -> None:
    objective = make({"name": name, **options})
    kind = next(
        k for k in ("score", "label", "pair", "check", "demonstration") if k in objective.kinds
    )
    batch = scored([(kind, [1.0, 0.0] if kind == "pair" else [float(n)]) for n in (0, 1, 1)])
    weights = torch.tensor([0.5, 2.0, 3.0])[batch.feedback.record_N]
    batch = replace(
        batch, feedback=replace(batch.feedback, weight_N=weights), state=objective.start()
    )
    for what, value_N in objective.observe(batch.detached()).items():
        known = ~value_N.isnan()
        total, weight = objective(batch).observed[what]
        assert weight == pytest.approx(float(weights[known].sum()))
        assert total == pytest.approx(float((weights * value_N)[known].sum()), rel=1e-5)
