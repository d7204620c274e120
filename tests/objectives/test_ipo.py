"""IPO against hand arithmetic, and against TRL's."""

from __future__ import annotations

import pytest
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives.ipo import IPO


def pair(chosen: float, rejected: float):
    return scored([("pair", [NAN, NAN])], log_ratios=[chosen, rejected], lengths=[4, 2])


def test_by_hand() -> None:
    """(2 - (-1) - 1 / 0.2)^2 = (3 - 5)^2 = 4."""
    assert IPO(beta=0.1)(pair(2.0, -1.0)).loss_U.item() == pytest.approx(4.0, rel=1e-5)


def test_average_by_hand() -> None:
    """(2 / 4 + 1 / 2 - 5)^2 = 16."""
    loss = IPO(beta=0.1, average=True)(pair(2.0, -1.0))
    assert loss.loss_U.item() == pytest.approx(16.0, rel=1e-5)


def test_it_is_least_at_its_margin_and_rises_on_both_sides() -> None:
    at = {margin: IPO(beta=0.1)(pair(margin, 0.0)).loss_U.item() for margin in (4.0, 5.0, 6.0)}
    assert at[5.0] == pytest.approx(0.0, abs=1e-9)
    assert at[4.0] == pytest.approx(1.0, rel=1e-4)
    assert at[6.0] == pytest.approx(1.0, rel=1e-4)


def test_trl_says_the_same() -> None:
    agree(IPO(beta=0.3, average=True), some_pairs(6), trl_dpo("ipo", 0.3))
