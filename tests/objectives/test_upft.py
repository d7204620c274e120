"""UPFT: which tokens are trained on, and how many problems in full."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, mean
from support.second_opinions import agree, table
from torch import Tensor

from onestage.objectives import Scored
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


def test_the_authors_loss() -> None:
    """Labels as `train_utils/sft_trainer.py` of 1KE-JI/UPFT masks them (what lies behind the first
    tokens, the end token too), cross-entropy as OpenRLHF has it: a mean over an answer's labels, one
    answer at a time. Times their number it is ours. Of ten answers one is whole."""
    objective, ignored = UPFT(first_tokens=2), -100
    batch = kept(
        objective, group(*[[0.0]] * 10, lengths=[4] * 10, logp=[-0.1 * n for n in range(1, 41)])
    )

    def theirs(batch: Scored) -> Tensor:
        said = table(batch, batch.logp_K)
        rest = torch.log1p(-said.exp().clamp(max=1 - 1e-12))
        logits = torch.stack([said, rest], -1)  # of two tokens, the first of which was said
        labels = torch.zeros(10, 4, dtype=torch.int64)
        labels[:9, 2:] = ignored
        means = [
            torch.nn.functional.cross_entropy(row, label, ignore_index=ignored)
            for row, label in zip(logits, labels, strict=True)
        ]
        return torch.stack(means) * (labels != ignored).sum(1)

    agree(objective, batch, theirs)
