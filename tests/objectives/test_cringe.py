"""Pairwise cringe against hand arithmetic, the equation written anew, and its limit without a gate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored
from torch import Tensor

from onestage.objectives.cringe import Cringe


def one_pair(dtype: torch.dtype = torch.float32):
    """A chosen answer of probability 1/2 * 1/4, and a rejected one of 1/4."""
    batch = scored([("pair", [NAN, NAN])], lengths=[2, 1], dtype=dtype)
    return replace(
        batch,
        logp_K=torch.tensor([0.5, 0.25, 0.25], dtype=dtype).log(),
        extra={"rivals": torch.tensor([9.0, 9.0, 0.7], dtype=dtype)},
    )


def test_by_hand() -> None:
    """M = ln 1/8 - ln 1/4 = - ln 2; under a temperature of 1 and no bias the gate is 2/3 open. What
    stands against the chosen answer is not looked at."""
    objective = Cringe(bias=0.0, temperature=1.0, cringe_coef=2.0)
    loss = objective(one_pair())
    assert loss.loss_U.tolist() == pytest.approx([2 / 3 * (math.log(8) + 2 * 0.7)])
    assert loss.metrics["gate"].value_M.tolist() == pytest.approx([2 / 3])
    half = Cringe(bias=-math.log(2), temperature=3.0)(one_pair())
    assert half.loss_U.tolist() == pytest.approx([(math.log(8) + 0.7) / 2])


def test_without_a_gate_it_is_likelihood_and_contrast() -> None:
    loss = Cringe(bias=math.inf)(one_pair())
    assert loss.loss_U.tolist() == pytest.approx([math.log(8) + 0.7])


def written_anew(logits: Tensor, chosen: Tensor, rejected: Tensor, fixed: bool) -> Tensor:
    """The equation from logits of one distribution a token, with the mean over two rivals of each."""
    logp = logits.log_softmax(-1)
    good = logp[: len(chosen)].gather(1, chosen[:, None]).sum()
    bad_logits = logits[len(chosen) :]
    bad = logp[len(chosen) :].gather(1, rejected[:, None]).sum()
    total = -good
    for row, token in zip(bad_logits, rejected.tolist(), strict=True):
        others = torch.cat([row[:token], row[token + 1 :]]).sort(descending=True).values[:2]
        odds = others.exp() / (others.exp() + row[token].exp())
        chance = others.detach().exp() / others.detach().exp().sum()
        total = total - 0.5 * (chance * odds.log()).sum()
    gate = 1 / (1 + ((good - bad + 1.5) / 4).exp())
    return (gate.detach() if fixed else gate) * total


@pytest.mark.parametrize("gate", ["fixed", "learned"])
def test_the_equation_and_its_gradient(gate: str) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=draw, dtype=torch.float64, requires_grad=True)
    chosen, rejected = torch.tensor([1, 6]), torch.tensor([0, 3, 3])
    theirs = written_anew(logits, chosen, rejected, fixed=gate == "fixed")
    (want,) = torch.autograd.grad(theirs, logits)

    target = torch.cat([chosen, rejected])
    logp_KV = logits.log_softmax(-1)
    own_K = logp_KV.gather(1, target[:, None])
    others = logp_KV.scatter(1, target[:, None], -math.inf).topk(2)
    share = others.values.detach().softmax(-1)
    stands_K = (share * (1 + (own_K - others.values).exp()).log()).sum(-1)
    batch = scored([("pair", [NAN, NAN])], lengths=[2, 3], dtype=torch.float64)
    batch = replace(batch, logp_K=own_K[:, 0], extra={"rivals": stands_K})
    objective = Cringe(k=2, cringe_coef=0.5, bias=-1.5, temperature=4.0, gate=gate)  # type: ignore[arg-type]
    mine = objective(batch).loss_U.sum()
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-12)
    (found,) = torch.autograd.grad(mine, logits)
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)


def test_it_says_how_many_rivals() -> None:
    assert Cringe(k=3).numbers == {"rivals": 3}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"k": 0}, "k"),
        ({"cringe_coef": -1.0}, "cringe_coef"),
        ({"temperature": 0.0}, "temperature"),
        ({"bias": -math.inf}, "bias"),
    ],
)
def test_bad_options(options: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=f"cringe: {told}"):
        Cringe(**options)  # type: ignore[arg-type]
