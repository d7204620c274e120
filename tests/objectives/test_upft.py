"""UPFT: which tokens are trained on, and how many problems in full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, mean

from onestage.objectives.upft import UPFT


def test_the_first_tokens_by_hand() -> None:
    """Two of four tokens of the first answer, the one token of the second; hints and worked: none."""
    objective = UPFT(first_tokens=2, full_share=0.0)
    batch = group(
        [NAN, 0.0, 1.0], [0.0], lengths=[2, 4, 3, 1], roles=[1, 0, 2, 0], logp=[-0.5] * 10
    )
    batch = kept(objective, batch)
    assert mean(objective, batch) == pytest.approx((2 * 0.5 + 0.5) / 2)
    want = [0, 0, -0.5, -0.5, 0, 0, 0, 0, 0, -0.5]
    assert gradient(objective, batch) == want


@given(st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_the_share_in_full_is_met(problems: int, share: float) -> None:
    batch = group(*[[0.0]] * problems, lengths=[5] * problems)
    trained = UPFT(first_tokens=2, full_share=share).remember(batch, False)["trained"]
    lengths = trained.reshape(problems, 5).sum(1).tolist()
    assert set(lengths) <= {2, 5}
    assert lengths.count(5) == int(share * problems + 1e-6)


def test_groups_are_whole_or_not() -> None:
    batch = group([0, 0], [0, 0], lengths=[3] * 4)
    trained = UPFT(first_tokens=1, full_share=0.5).remember(batch, False)["trained"]
    assert trained.reshape(4, 3).sum(1).tolist() == [1, 1, 3, 3]
