"""BCO against hand arithmetic, TRL's own loss, the bound that it is, and its running shift."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives.bco import BCO
from onestage.objectives.dpo import DPO


def test_by_hand() -> None:
    """Up 2, down 3, means of 4 and 0: a shift of 2, logits of 0 and -0.1."""
    batch = scored([("label", [1.0]), ("label", [0.0])], log_ratios=[2.0, 3.0])
    batch = replace(batch, state={"desirable": 4.0, "undesirable": 0.0})
    want = [math.log(2), math.log1p(math.exp(0.1))]
    assert BCO()(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)


def test_trl_says_the_same() -> None:
    """TRL gives the sum of both sides a pair."""
    agree(BCO(beta=0.3, shift="zero"), some_pairs(), trl_dpo("bco_pair", 0.3))


@pytest.mark.parametrize("shift", [-3.0, 0.0, 2.0])
def test_it_bounds_dpo_from_above(shift: float) -> None:
    """Theorem of the paper, at any shift: the two logits are the margin, split in two."""
    batch = replace(some_pairs(), state={"desirable": shift, "undesirable": shift})
    both = BCO()(batch).loss_U.reshape(-1, 2).sum(1)
    assert bool((both > DPO()(batch).loss_U).all())


def test_each_class_has_a_mean_of_its_own() -> None:
    """A step without thumbs down leaves theirs as it was."""
    objective = BCO(decay=0.9)
    batch = scored([("label", [1.0]), ("label", [1.0])], log_ratios=[2.0, 4.0])
    means = {name: s / n for name, (s, n) in objective(batch).observed.items() if n}
    assert means == {"desirable": pytest.approx(3.0)}
    after = objective.advance({"desirable": 1.0, "undesirable": -2.0}, means)
    assert after == {"desirable": pytest.approx(1.2), "undesirable": -2.0}


def test_pairs_and_demonstrations_are_read_as_labels() -> None:
    batch = scored([("pair", [NAN, NAN]), ("demonstration", [NAN])], log_ratios=[2.0, 3.0, 4.0])
    want = [math.log1p(math.exp(-x)) for x in (0.2, -0.3, 0.4)]
    assert BCO()(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"decay": 1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BCO(**options)
