"""GAC: its closed form, its guards, and that the closed form is the least error."""

from __future__ import annotations

import pytest

from onestage.schedules import Slopes, make
from onestage.schedules.gac import GAC

TERMS = {"dpo": 0.6, "sft": 0.4}


def felt(own: float, others: float, apart: float) -> Slopes:
    """Two gradients at right angles, so far apart in the mean, with this much noise."""
    inner = {
        "sft": {"sft": apart / 2 + own, "dpo": 0.0},
        "dpo": {"sft": 0.0, "dpo": apart / 2 + others},
    }
    return Slopes(inner, {"sft": own, "dpo": others})


def rested(own: float, others: float, apart: float, **options: float) -> float:
    rule = GAC(TERMS, prior=0.0, rate=1.0, cap=1.0, ema_rate=1.0, **options)
    rule.feel(0, felt(own, others, apart))
    return rule.weigh(1)["sft"]


def test_the_closed_form() -> None:
    """(.4 * 2 + 3) / (2 + 1 + 3)."""
    assert rested(1.0, 3.0, 2.0) == pytest.approx(3.8 / 6)


def test_its_limits() -> None:
    """Without disagreement weights are by the inverse of the noise; without noise they are given."""
    assert rested(1.0, 3.0, 0.0) == pytest.approx(3 / 4)
    assert rested(0.0, 0.0, 2.0) == pytest.approx(0.4)


def test_no_other_weight_has_a_smaller_error() -> None:
    own, others, apart, alpha = 0.7, 1.9, 1.1, 0.4

    def error(mu: float) -> float:
        return (mu - alpha) ** 2 * apart + mu**2 * own + (1 - mu) ** 2 * others

    found = rested(own, others, apart)
    assert all(error(found) <= error(n / 1000) + 1e-12 for n in range(1001))


def test_several_others_are_one_gradient() -> None:
    """Their noise counts by the squares of their shares, 3/4 and 1/4."""
    rule = GAC({"sft": 0.5, "a": 0.375, "b": 0.125}, prior=0.0, rate=1.0, cap=1.0, ema_rate=1.0)
    terms = ("sft", "a", "b")
    noise = {"sft": 1.0, "a": 2.0, "b": 4.0}
    inner = {x: {y: noise[x] if x == y else 0.0 for y in terms} for x in terms}
    rule.feel(0, Slopes(inner, noise))  # gradients of mean 0: nothing but noise
    mixed = 9 / 16 * 2 + 1 / 16 * 4
    weights = rule.weigh(1)
    assert weights["sft"] == pytest.approx(mixed / (1 + mixed))
    assert weights["a"] == pytest.approx(3 * weights["b"])


def test_its_guards() -> None:
    """A step moves mu by at most the cap; half of mu is the given weight; and it stays in its bounds."""
    rule = GAC(TERMS, rate=1.0, ema_rate=1.0)
    assert rule.weigh(0) == pytest.approx(TERMS)
    rule.feel(0, felt(0.0, 9.0, 0.0))
    assert rule.weigh(1)["sft"] == pytest.approx(0.41)
    for step in range(1, 100):
        rule.feel(step, felt(0.0, 9.0, 0.0))
    assert rule.weigh(100)["sft"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.9)


def test_a_term_whose_noise_is_unknown_moves_nothing() -> None:
    rule = GAC(TERMS)
    rule.feel(0, Slopes(felt(1.0, 3.0, 2.0).inner, {"sft": 1.0}))
    assert rule.weigh(1) == pytest.approx(TERMS)


def test_its_state_goes_on() -> None:
    rule, again = GAC(TERMS), GAC(TERMS)
    for step in range(5):
        rule.feel(step, felt(1.0 + step, 3.0, 2.0))
    again.restore(rule.state())
    for one in (rule, again):
        one.feel(5, felt(2.0, 1.0, 0.5))
    assert again.weigh(6) == rule.weigh(6)
    assert again.state() == rule.state()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": {"dpo": 1, "grpo": 1}}, "no term 'sft'"),
        ({"weights": {"sft": 1, "dpo": 0}}, "needs another term"),
        ({"rate": 0}, "rate"),
        ({"least": 0.9, "most": 0.5}, "least < most"),
    ],
)
def test_bad_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make({"name": "gac", **options})
