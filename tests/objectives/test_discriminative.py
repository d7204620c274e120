"""Discriminative fine-tuning: by hand, its normaliser over steps, and the authors' loss written anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, sides, some_pairs
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.discriminative import Discriminative

PAIR = [("pair", [NAN, NAN])]


def test_by_hand() -> None:
    """The sampled answer twice as likely as it was: 2 of .85 times 2 and .15 times 1."""
    batch = scored(PAIR, lengths=[1, 1])
    batch.logp_K[:] = torch.tensor([-2.0, -3.0])
    batch.ref_logp_K[:] = torch.tensor([-2.0, -3.0 - math.log(2)])
    loss = Discriminative()(batch)
    assert loss.loss_U.tolist() == pytest.approx([2 - 3 * 2 / 1.85], rel=1e-5)
    assert loss.metrics["factor"].value_M.tolist() == pytest.approx([2 / 1.85], rel=1e-5)
    assert loss.observed == {"size": (pytest.approx(2.0), 1.0)}


def test_the_normaliser_is_a_running_mean_in_the_state() -> None:
    """From e^0 to .15 + .85 * 3, in logarithms; and what it does to the next step's factor."""
    after = Discriminative().advance(Discriminative().start(), {"size": 3.0})
    assert after == {"u": pytest.approx(math.log(2.7))}
    batch = replace(scored(PAIR, log_ratios=[0.0, 0.0]), state=after)
    factor = Discriminative()(batch).metrics["factor"].value_M.tolist()
    assert factor == pytest.approx([1 / (0.85 + 0.15 * 2.7)], rel=1e-5)


def test_at_the_start_both_sides_weigh_the_same() -> None:
    batch = scored(PAIR * 2, log_ratios=[0.0] * 4, seed=1)
    total_N = batch.per_response(batch.logp_K)
    want = (total_N[[1, 3]] - total_N[[0, 2]]).tolist()
    assert Discriminative()(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("form", "tau", "gamma"), [("dft", 1.0, 0.85), ("dft2", 0.3, 0.9), ("dft", 2.0, 0.5)]
)
def test_the_authors_loss(form: str, tau: float, gamma: float) -> None:
    """In logarithms, as they keep u; no gradient goes through the factor."""
    before = -0.4

    def theirs(batch: Scored) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for pair in range(3):
            (chosen, rejected), (_, reference) = (
                sides(batch, pair, value_K) for value_K in (batch.logp_K, batch.ref_logp_K)
            )
            if form == "dft2":
                good, bad = chosen.mean(), rejected.mean()
                d = bad / tau
            else:
                good, bad = chosen.sum(), rejected.sum()
                d = bad / tau - reference.sum()
            u = torch.logaddexp(math.log(1 - gamma) + torch.tensor(before), math.log(gamma) + d)
            total = total - good + torch.exp(d - u).detach() * bad
        return total

    plain = {"dft": (1.0, 0.85), "dft2": (0.3, 0.9)}[form] == (tau, gamma)
    options = {} if plain else {"tau": tau, "gamma": gamma}
    batch = replace(some_pairs(spread=0.3), state={"u": before})
    agree(Discriminative(form=form, **options), batch, theirs)


def test_without_a_reference_none_is_needed() -> None:
    assert Discriminative(form="dft2").needs == {"logp"}
    assert Discriminative().needs == {"logp", "reference"}


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"gamma": 0.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Discriminative(**options)
