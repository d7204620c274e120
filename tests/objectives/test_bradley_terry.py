"""The losses of reward models against hand arithmetic and plain double loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.objective_batches import NAN, scored

from onestage.objectives import Scored, make
from onestage.objectives.bradley_terry import BradleyTerry

LN2 = math.log(2)


def softplus(x: float) -> float:
    """-log sigma(-x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def judged(records: Sequence[tuple[Any, list[float]]], rewards: Sequence[float]) -> Scored:
    """A batch whose responses have these rewards at their last tokens, and noise before."""
    batch = scored(records, seed=3, dtype=torch.float64)
    value_K, at = batch.logp_K.clone(), -1
    for tokens, reward in zip(batch.feedback.tokens_N.tolist(), rewards, strict=True):
        at += tokens
        value_K[at] = reward
    assert at == len(value_K) - 1
    return replace(batch, logp_K=value_K)


def loss_of(records: Any, rewards: Sequence[float], **options: Any) -> float:
    return float(BradleyTerry(**options)(judged(records, rewards)).loss_U.sum())


def test_a_pair_by_hand() -> None:
    """r_w = 1.5, r_l = 0.5: -log sigma(1) = log(1 + e^-1)."""
    assert loss_of([("pair", [NAN, NAN])], [1.5, 0.5]) == pytest.approx(0.31326168751822286)
    assert loss_of([("pair", [NAN, NAN])], [0.7, 0.7]) == pytest.approx(LN2)


def test_only_the_last_token_is_read() -> None:
    batch = judged([("pair", [NAN, NAN]), ("score", [0.3])], [1.0, 2.0, 0.5])
    value_K = batch.logp_K.clone().requires_grad_()
    BradleyTerry()(replace(batch, logp_K=value_K)).loss_U.sum().backward()
    last_N = batch.feedback.tokens_N.cumsum(0) - 1
    touched = value_K.grad.nonzero()[:, 0]
    assert touched.tolist() == last_N.tolist()
    assert len(value_K) > len(last_N)


def test_margin_is_llama_2s() -> None:
    """Scores 0.8 and 0.3, scale 3: m = 1.5, so d = 2 - 0.5 - 1.5 = 0."""
    pair = [("pair", [0.8, 0.3])]
    assert loss_of(pair, [2.0, 0.5], margin="score", margin_scale=3.0) == pytest.approx(LN2)
    assert loss_of(pair, [2.0, 0.5], margin="score") == pytest.approx(softplus(-1.0))
    assert loss_of(pair, [2.0, 0.5]) == pytest.approx(softplus(-1.5))
    # Without scores, or with scores that contradict the preference, there is none.
    for scores in ([NAN, NAN], [0.3, 0.8]):
        found = loss_of([("pair", scores)], [2.0, 0.5], margin="score")
        assert found == pytest.approx(softplus(-1.5))


def test_centering_by_hand() -> None:
    """0.01 (2 + 0.5)^2 = 0.0625 on top."""
    found = loss_of([("pair", [NAN, NAN])], [2.0, 0.5], centering=0.01)
    assert found == pytest.approx(softplus(-1.5) + 0.0625)


def test_soft_labels_are_mmpos() -> None:
    """gamma 2, scores 0.9 and 0.4: p = sigma(1) = 0.7310585786."""
    p = 1 / (1 + math.exp(-1))
    found = loss_of([("pair", [0.9, 0.4])], [2.0, 0.5], target="soft", gamma=2.0)
    assert found == pytest.approx(p * softplus(-1.5) + (1 - p) * softplus(1.5))
    # Its minimum is where the rewards say what the scores said: d = gamma (s_w - s_l).
    at = {
        d: loss_of([("pair", [0.9, 0.4])], [d, 0.0], target="soft", gamma=2.0)
        for d in (0.9, 1.0, 1.1)
    }
    assert min(at, key=at.__getitem__) == 1.0
    hard = loss_of([("pair", [NAN, NAN])], [2.0, 0.5], target="soft", gamma=2.0)
    assert hard == pytest.approx(softplus(-1.5))


def test_a_group_is_the_mean_of_its_ordered_pairs() -> None:
    """Scores 1, 0.6, 0.6, 0.1: five of six pairs differ."""
    rewards = [1.0, 0.2, 0.9, 0.4]
    found = BradleyTerry()(judged([("group", [1.0, 0.6, 0.6, 0.1])], rewards))
    pairs = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
    want = sum(softplus(rewards[b] - rewards[a]) for a, b in pairs) / 5
    assert float(found.loss_U.sum()) == pytest.approx(want)
    assert float(found.weight_U.sum()) == pytest.approx(1.0)
    assert found.metrics["accuracy"].value_M.tolist() == [1, 1, 1, 0, 1]  # 0.2 is below 0.4


def test_a_group_of_equals_teaches_nothing() -> None:
    batch = judged([("group", [0.5, 0.5, 0.5]), ("pair", [NAN, NAN])], [1.0, 2.0, 3.0, 1.0, 0.0])
    assert float(BradleyTerry().units(batch.feedback).count) == 1.0
    assert float(BradleyTerry()(batch).loss_U.sum()) == pytest.approx(softplus(-1.0))
    alone = judged([("group", [0.5, 0.5])], [1.0, 2.0])
    assert float(BradleyTerry().units(alone.feedback).count) == 0.0
    assert len(BradleyTerry()(alone).loss_U) == 0


def test_labels_and_scores_are_probabilities() -> None:
    found = loss_of([("label", [1.0]), ("label", [0.0]), ("score", [0.3])], [1.0, 1.0, -0.5])
    want = softplus(-1.0) + softplus(1.0) + 0.3 * softplus(0.5) + 0.7 * softplus(-0.5)
    assert found == pytest.approx(want)
    lowest = math.log(0.3 / 0.7)
    at = {r: loss_of([("score", [0.3])], [r]) for r in (lowest - 0.1, lowest, lowest + 0.1)}
    assert min(at, key=at.__getitem__) == lowest


def test_metrics_by_hand() -> None:
    batch = judged(
        [("pair", [NAN, NAN]), ("pair", [NAN, NAN]), ("label", [0.0])], [2.0, 0.5, -1.0, 1.0, -3.0]
    )
    found = {name: item.value_M.tolist() for name, item in BradleyTerry()(batch).metrics.items()}
    assert found == {
        "reward": [2.0, 0.5, -1.0, 1.0, -3.0],
        "accuracy": [1.0, 0.0],
        "margin": [1.5, -2.0],
        "chosen_reward": [2.0, -1.0],
        "rejected_reward": [0.5, 1.0],
        "label_accuracy": [1.0],
    }


def by_loops(batch: Scored, o: BradleyTerry) -> torch.Tensor:
    """The same loss, a response at a time, from the docstring's formula."""
    feedback, total, at = batch.feedback, torch.zeros((), dtype=torch.float64), -1
    reward, records = [], {}
    for number, tokens in enumerate(feedback.tokens_N.tolist()):
        at += tokens
        reward.append(batch.logp_K[at])
        records.setdefault(int(feedback.record_N[number]), []).append(number)
    pairs = {tuple(pair) for pair in feedback.pair_P2.tolist()}
    for members in records.values():
        score = {n: float(feedback.score_N[n]) for n in members}
        weight = float(feedback.weight_N[members[0]])
        if len(members) == 1:
            s, r = score[members[0]], reward[members[0]]
            total = total - weight * (s * r.sigmoid().log() + (1 - s) * (1 - r.sigmoid()).log())
            continue
        paired = tuple(members) in pairs
        if paired:
            compared = [(members[0], members[1])]
        else:
            compared = [(a, b) for a, b in permutations(members, 2) if score[a] > score[b]]
        for a, b in compared:
            gap = score[a] - score[b]
            known = not math.isnan(gap)
            m = o.margin_scale * max(gap, 0) if o.margin == "score" and known else 0.0
            p = 1 / (1 + math.exp(-o.gamma * gap)) if o.target == "soft" and known else 1.0
            d = (reward[a] - reward[b] - m).sigmoid()
            loss = -p * d.log() - (1 - p) * (1 - d).log()
            loss = loss + o.centering * (reward[a] + reward[b]) ** 2
            total = total + weight * loss / len(compared)
    return total


SCORES = st.floats(0, 1, width=32)
STEPS = st.sampled_from([0.0, 0.25, 0.5, 1.0])
RECORDS = st.one_of(
    st.tuples(st.just("pair"), st.just([NAN, NAN])),
    st.tuples(st.just("pair"), st.lists(SCORES, min_size=2, max_size=2)),
    st.tuples(st.just("group"), st.lists(STEPS, min_size=2, max_size=5)),
    st.tuples(st.just("label"), st.sampled_from([[0.0], [1.0]])),
    st.tuples(st.just("score"), st.lists(SCORES, min_size=1, max_size=1)),
)


@given(
    records=st.lists(RECORDS, min_size=1, max_size=6),
    margin=st.sampled_from(["none", "score"]),
    target=st.sampled_from(["hard", "soft"]),
    centering=st.sampled_from([0.0, 0.1]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_those_of_the_loops(
    records: Any, margin: Any, target: Any, centering: float, data: st.DataObject
) -> None:
    objective = BradleyTerry(margin, 1.5, target, 2.0, centering)
    size = sum(len(each) for _, each in records)
    rewards = data.draw(st.lists(st.floats(-3, 3), min_size=size, max_size=size))
    batch = judged(records, rewards)
    size, weights = len(records), st.sampled_from([0.5, 1.0, 2.0])
    weight_R = torch.tensor(data.draw(st.lists(weights, min_size=size, max_size=size)))
    feedback = replace(batch.feedback, weight_N=weight_R[batch.feedback.record_N])
    gradients, values = [], []
    for loss in (lambda b: objective(b).loss_U.sum(), lambda b: by_loops(b, objective)):
        value_K = batch.logp_K.clone().requires_grad_()
        found = loss(replace(batch, feedback=feedback, logp_K=value_K)) + 0 * value_K.sum()
        values.append(found.item())
        gradients.append(torch.autograd.grad(found, value_K)[0])
    # The product of a float32 gap and its options is rounded to float32 in one of them only.
    assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_only_differences_count_without_centering() -> None:
    pair = [("pair", [NAN, NAN])]
    assert loss_of(pair, [2.0, 0.5]) == pytest.approx(loss_of(pair, [12.0, 10.5]))
    assert loss_of(pair, [2.0, 0.5], centering=0.1) < loss_of(pair, [12.0, 10.5], centering=0.1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"margin_scale": 0}, "margin_scale must be positive, got 0"),
        ({"gamma": -1}, "gamma must be positive, got -1"),
        ({"centering": -0.1}, "centering must not be negative, got -0.1"),
        ({"margin": "large"}, "margin"),
        ({"task": "causal"}, "unknown option 'task'"),
    ],
)
def test_bad_options(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make({"name": "bradley_terry", **options})
