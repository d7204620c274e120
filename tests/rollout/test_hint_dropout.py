"""Hint dropout: how often, and that the other rule is asked and told as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.rollout.hints import Adaptive, Staged, make
from onestage.rollout.hints.dropout import Dropout
from onestage.testing import check_hint


def test_half_of_the_hints_of_another_rule() -> None:
    rule, random = Dropout(rule={"name": "staged", "hint_steps": 300}), np.random.default_rng(0)
    lengths = [rule.length(0, 5, random, {}) for _ in range(2000)]
    whole = Staged(hint_steps=300).length(0, 5, random, {})
    assert set(lengths) == {0, whole}
    assert np.mean(np.asarray(lengths) == 0) == pytest.approx(0.5, abs=0.05)


def test_its_two_ends() -> None:
    never, always = Dropout(rule="staged", drop=0.0), Dropout(rule="staged", drop=1.0)
    for step in (0, 100, 299):
        random = np.random.default_rng(step)
        assert never.length(step, 5, random, {}) == Staged().length(step, 5, random, {})
        assert always.length(step, 5, random, {}) == 0


def test_the_other_rule_learns_from_bare_questions_too() -> None:
    rule = Dropout(rule={"name": "adaptive", "target": 0.4}, max_chunks=4)
    assert rule.advance({}, 0, 5, 0.75) == Adaptive(target=0.4, max_chunks=4).advance(
        {}, 0, 5, 0.75
    )


def test_laws_and_options() -> None:
    check_hint(Dropout())
    check_hint(Dropout(rule="adaptive"))
    assert make({"name": "dropout", "rule": "uniform"}) == Dropout(rule="uniform")
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\]"):
        Dropout(drop=1.5)
    with pytest.raises(ValueError, match="counts tokens"):
        Dropout(rule="prefix")
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        Dropout(rule="cosin")
