"""SPPO against hand arithmetic, TRL's own loss, and a tie."""

from __future__ import annotations

import pytest
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives.sppo import SPPO


def test_by_hand() -> None:
    """Beta 0.1: winners aim at 5, losers at -5, a win rate of 0.7 at 2."""
    batch = scored([("pair", [NAN, NAN]), ("score", [0.7])], log_ratios=[2.0, -1.0, 3.0])
    want = [(2 - 5) ** 2, (-1 + 5) ** 2, (3 - 2) ** 2]
    assert SPPO(beta=0.1)(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)


def test_given_scores_of_a_pair_are_no_win_rates() -> None:
    """The pair is what was said; its scores may lie on any scale."""
    given = scored([("pair", [0.9, 0.8])], log_ratios=[2.0, -1.0])
    plain = scored([("pair", [NAN, NAN])], log_ratios=[2.0, -1.0])
    assert SPPO()(given).loss_U.tolist() == SPPO()(plain).loss_U.tolist()


def test_an_even_answer_is_held_at_the_reference() -> None:
    batch = scored([("group", [0.5, 0.5])], log_ratios=[0.0, 0.0])
    assert SPPO()(batch).loss_U.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_trl_says_the_same() -> None:
    agree(SPPO(beta=0.05), some_pairs(), trl_dpo("sppo_hard", 0.05))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="beta"):
        SPPO(beta=0.0)
