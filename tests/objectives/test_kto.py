"""KTO against hand arithmetic and TRL's own loss, and its reference point."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, trl_kto

from onestage.objectives.kto import KTO


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def labels(up: float, down: float, **state: float):
    batch = scored([("label", [1.0]), ("label", [0.0])], log_ratios=[up, down])
    return dataclasses.replace(batch, state=state or {"kl": 0.0})


def test_by_hand() -> None:
    """Up 2, down 3, z 1, beta 0.1: 1 - sigma(0.1) and 1 - sigma(-0.2)."""
    loss = KTO(beta=0.1)(labels(2.0, 3.0, kl=1.0)).loss_U.tolist()
    assert loss == pytest.approx([1 - sigma(0.1), 1 - sigma(-0.2)], rel=1e-5)


@pytest.mark.parametrize("z", [0.4, -1.0])
def test_trls_loss_at_the_published_reference_point(z: float) -> None:
    """A z from mismatched pairs, which is never below 0 in either."""
    records = [("label", [1.0]), ("label", [0.0]), ("label", [1.0]), ("label", [0.0])]
    batch = scored(records, seed=3, dtype=torch.float64)  # type: ignore[arg-type]
    objective = KTO(beta=0.3, desirable_weight=1.5, undesirable_weight=0.5, baseline="mismatched")
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    given = dataclasses.replace(batch, state={"kl": z})
    agree(objective, given, trl_kto(0.3, z, **weights))


def test_start_is_one_half() -> None:
    assert KTO()(labels(0.0, 0.0)).loss_U.tolist() == pytest.approx([0.5, 0.5])


def test_weights_multiply_their_class() -> None:
    plain = KTO()(labels(2.0, 3.0)).loss_U.tolist()
    both = KTO(desirable_weight=2.0, undesirable_weight=0.5)(labels(2.0, 3.0)).loss_U.tolist()
    assert both == pytest.approx([2 * plain[0], 0.5 * plain[1]])


def test_a_negative_reference_point_counts_as_zero() -> None:
    assert (
        KTO()(labels(2.0, 3.0, kl=-5.0)).loss_U.tolist() == KTO()(labels(2.0, 3.0)).loss_U.tolist()
    )
    shifted = KTO()(labels(2.0, 3.0, kl=5.0)).loss_U.tolist()
    assert shifted != KTO()(labels(2.0, 3.0)).loss_U.tolist()
    assert KTO(baseline="zero")(labels(2.0, 3.0, kl=5.0)).loss_U.tolist() == (
        KTO()(labels(2.0, 3.0)).loss_U.tolist()
    )


def test_the_running_mean_weighs_both_classes_the_same() -> None:
    """One up at 4 against nine down at 0: the mean is 2, and a tenth of it is taken in."""
    objective = KTO(decay=0.9)
    observed = objective(labels(4.0, 0.0)).observed
    assert observed == {
        "desirable": (pytest.approx(4.0), 1.0),
        "undesirable": (pytest.approx(0.0, abs=1e-6), 1.0),
    }
    after = objective.advance({"kl": 1.0}, {"desirable": 4.0, "undesirable": 0.0})
    assert after == {"kl": pytest.approx(0.9 * 1.0 + 0.1 * 2.0)}


@pytest.mark.parametrize("score", [1.0, 0.0])
def test_a_missing_class_gives_numbers(score: float) -> None:
    batch = dataclasses.replace(
        scored([("label", [score])] * 2, log_ratios=[1.0, 2.0]), state={"kl": 0.0}
    )
    loss = KTO()(batch)
    assert all(math.isfinite(value) for value in loss.loss_U.tolist())
    means = {name: s / n for name, (s, n) in loss.observed.items() if n}
    assert KTO().advance({"kl": 0.0}, means) == {"kl": pytest.approx(0.15)}
    assert KTO().advance({"kl": 0.3}, {}) == {"kl": 0.3}


def test_pairs_and_demonstrations_are_read_as_labels() -> None:
    records = [("pair", [NAN, NAN]), ("demonstration", [NAN])]
    loss = KTO(beta=0.1)(scored(records, log_ratios=[2.0, 3.0, 4.0])).loss_U.tolist()
    assert loss == pytest.approx([1 - sigma(0.2), 1 - sigma(-0.3), 1 - sigma(0.4)], rel=1e-5)
