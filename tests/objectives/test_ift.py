"""IFT against hand arithmetic, the released code's weights written anew, and its limit SFT."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored
from torch import Tensor

from onestage.objectives.ift import IFT


def read(losses: list[list[float]]):
    """Demonstrations of which the tokens have these losses, read with guesses."""
    batch = scored([("demonstration", [NAN])] * len(losses), lengths=[len(one) for one in losses])
    mixed_K = -torch.tensor([loss for one in losses for loss in one], dtype=torch.float64)
    return replace(batch, extra={"mixed_logp": mixed_K})


def test_by_hand() -> None:
    """Losses 1, 2, 4 under gamma 1/2: c = 1 + 1 + 1, 2 + 2, 4; L = (3 + 8 + 16) / 11. A response does
    not look into the next one."""
    loss = IFT(gamma=0.5)(read([[1.0, 2.0, 4.0], [3.0], [1.0, 2.0, 4.0]]))
    assert loss.loss_U.tolist() == pytest.approx([27 / 11, 3.0, 27 / 11])
    assert float(loss.weight_U.sum()) == 3


def test_without_weights_it_is_the_mean_over_a_response() -> None:
    assert IFT(gamma=0.0)(read([[1.0, 2.0, 6.0]])).loss_U.tolist() == pytest.approx([3.0])
    assert IFT()(read([[0.0, 0.0]])).loss_U.tolist() == [0.0]


def written_anew(loss: Tensor, gamma: float) -> Tensor:
    """Token by token: what is lost behind each, brought to a mean of 1."""
    behind = [
        sum(gamma ** (s - t) * loss[s] for s in range(t, len(loss))) for t in range(len(loss))
    ]
    weight = torch.stack(behind) * len(loss) / sum(behind)  # type: ignore[arg-type]
    return (weight * loss).sum() / len(loss)


@pytest.mark.parametrize("gamma", [0.95, 1.0])
def test_the_released_codes_weights_and_their_gradient(gamma: float) -> None:
    draw = torch.Generator().manual_seed(0)
    sizes = [1, 7, 40, 16]
    parts = [torch.rand(n, generator=draw, dtype=torch.float64).requires_grad_() for n in sizes]
    batch = scored([("demonstration", [NAN])] * 4, lengths=sizes)
    mine = IFT(gamma=gamma)(replace(batch, extra={"mixed_logp": -torch.cat(parts)})).loss_U
    theirs = torch.stack([written_anew(one, gamma) for one in parts])
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    found = torch.autograd.grad(mine.sum(), parts)
    for one, other in zip(found, torch.autograd.grad(theirs.sum(), parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_what_guessing_costs() -> None:
    batch = replace(read([[1.0, 2.0]]), logp_K=torch.tensor([-0.5, -1.5], dtype=torch.float64))
    assert IFT()(batch).metrics["guessing_cost"].value_M.tolist() == pytest.approx([0.5])
    assert IFT(mix=0.4).numbers == {"mixed_logp": 0.4}


@pytest.mark.parametrize("options", [{"mix": 1.1}, {"gamma": -0.1}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"ift: {next(iter(options))} must be in"):
        IFT(**options)
