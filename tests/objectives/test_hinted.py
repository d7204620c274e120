"""UFT of Liu et al.: without hints it is GRPO, bit for bit; hints add their likelihood and no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.objective_batches import NAN, subset
from support.sampled_batches import gradient, group, kept, later, mean
from support.second_opinions import agree, masked_mean, table
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.grpo import GRPO
from onestage.objectives.hinted import Hinted

LOSS_TYPES = ["grpo", "dapo", "dr_grpo", "sum"]


def hinted(size: int = 2, reward: list[float] | None = None) -> Scored:
    """A problem with a hint of three tokens and one without any."""
    rewards = reward or [1.0] * size
    return group(
        *([NAN, *rewards], rewards),
        lengths=[3, *[2] * size, *[2] * size],
        roles=[1, *[0] * (2 * size)],
        logp=[-0.5, -1.0, -2.5, *[-1.0] * (4 * size)],
    )


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_without_hints_it_is_grpo_bit_for_bit(loss_type: Any) -> None:
    batch = group([1, 0.1, 0], [1, 1, 0.1], lengths=[2, 1, 3, 1, 2, 2], ref=-1.5)
    options = {"loss_type": loss_type, "beta": 0.001}
    plain, mine = GRPO(**options), Hinted(**options)
    ratios = [1.3, 0.9, 1.1, 0.7, 1.0, 1.0, 1.2, 0.95, 1.05, 1.0, 1.0]
    before, after = (later(kept(o, batch, again=True), ratios) for o in (plain, mine))
    assert torch.equal(plain(before).loss_U, mine(after).loss_U)
    assert gradient(plain, before) == gradient(mine, after)


def test_with_nothing_to_reinforce_it_is_the_likelihood_of_hints() -> None:
    """All rewards equal, no KL: 0.001 times the mean over two problems of a hint's NLL, 4 and 0."""
    objective = Hinted(beta=0.0)
    batch = kept(objective, hinted())
    assert mean(objective, batch) == pytest.approx(0.001 * 4.0 / 2)
    assert gradient(objective, batch) == pytest.approx([-0.001 / 2] * 3 + [0] * 8)
    assert objective(batch).metrics["hint_logp"].value_M.tolist() == pytest.approx([-4 / 3])


def test_the_authors_reduction_is_a_mean_over_hint_tokens() -> None:
    objective = Hinted(beta=0.0, hint_reduction="token", hint_coef=0.01)
    batch = kept(objective, hinted())
    assert mean(objective, batch) == pytest.approx(0.01 * 4 / 3)
    nothing = kept(objective, group([1, 0]))
    assert nothing.remembered["hint"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("reduction", ["sum", "token"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_hints_gradient_does_not_depend_on_the_group(loss_type: Any, reduction: Any) -> None:
    objective = Hinted(loss_type=loss_type, hint_reduction=reduction)
    found = [
        gradient(objective, kept(objective, hinted(size, [1.0, *[0.0] * (size - 1)])))[:3]
        for size in (2, 3, 8)
    ]
    assert found[1] == pytest.approx(found[0])
    assert found[2] == pytest.approx(found[0])


def test_hints_have_neither_advantage_nor_kl_nor_entropy() -> None:
    """With no coefficient a hint has no gradient, whatever else there is."""
    objective = Hinted(beta=0.1, entropy_coef=0.1, hint_coef=0.0)
    batch = group([NAN, 1, 0], lengths=[3, 1, 1], roles=[1, 0, 0], ref=-2.0, entropy=[1.0] * 5)
    assert gradient(objective, kept(objective, batch))[:3] == [0.0] * 3


def test_a_rollout_in_two_batches_of_the_same_length_is_the_rollout() -> None:
    """The ratios are of everything sampled together, so equal batches average to the whole."""
    objective = Hinted(beta=0.0)
    batch = kept(objective, hinted())
    parts = [mean(objective, subset(batch, [number])) for number in (0, 1)]
    assert sum(parts) / 2 == pytest.approx(mean(objective, batch))


def test_the_paper_shares_one_beta() -> None:
    assert Hinted().beta == Hinted().hint_coef == 0.001
    assert (Hinted().kl_in, Hinted().kl_estimator, Hinted().epsilon) == ("loss", "k3", 0.2)
    assert (Hinted().entropy_coef, Hinted().eps) == (0.0, 1e-6)


def test_the_authors_loss() -> None:
    """Two problems with hints, after an update: token means of the clipped surrogate, of entropy, of
    k3 and of the hints' likelihood, as `verl/workers/actor/dp_actor.py` of liumy2010/UFT adds them
    up. (Its `core_algos`, run beside this, gives the same to 1e-5 in float64. There every answer's
    row has the hint again, which changes no mean where groups are of one size.)"""
    coefficients = {"beta": 0.002, "hint_coef": 0.003, "entropy_coef": 0.001}
    objective = Hinted(hint_reduction="token", **coefficients)
    lengths, draw = [3, 2, 1, 2, 4, 1], torch.Generator().manual_seed(2)
    numbers = {
        n: torch.rand(13, generator=draw, dtype=torch.float64).tolist() for n in ("ref", "entropy")
    }
    batch = group(
        [NAN, 1, 0.1],
        [NAN, 0, 1],
        roles=[1, 0, 0] * 2,
        lengths=lengths,
        logp=-0.8,
        ref=[-x for x in numbers["ref"]],
        entropy=numbers["entropy"],
    )
    batch = later(
        kept(objective, batch, again=True), (0.6 + torch.rand(13, generator=draw)).tolist()
    )

    def theirs(batch: Scored) -> Tensor:
        tokens = table(batch, torch.ones_like(batch.logp_K))
        hint = torch.tensor([1, 0, 0, 1, 0, 0])[:, None] * tokens
        sampled = tokens - hint
        logp, ref = table(batch, batch.logp_K), table(batch, batch.ref_logp_K)
        scores = torch.tensor([[1, 0.1], [0, 1]], dtype=torch.float64)
        own = (scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-6)
        advantage = torch.nn.functional.pad(own, (1, 0)).reshape(6, 1)
        ratio = torch.exp(logp + 0.8 * tokens)
        surrogate = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        gap = ref - logp
        loss = masked_mean(surrogate, sampled) - 0.001 * masked_mean(
            table(batch, batch.extra["entropy"]), sampled
        )
        loss = loss + 0.002 * masked_mean((gap.exp() - gap - 1).clamp(-10, 10), sampled)
        return (loss + 0.003 * masked_mean(-logp, hint)) * sampled.sum()

    agree(objective, batch, theirs)
