"""Hint rules against the golden values of hint_uft.md 1.2 and 1.7, and the laws all of them keep."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.rollout import hints as registry
from onestage.rollout.hints import Cosine, Prefix, Staged, Uniform
from onestage.rollout.hints._chunks import boundaries
from onestage.rollout.hints.adaptive import Adaptive, estimates

ALL = registry.names()
OURS = ["adaptive", "cosine", "dropout", "none", "prefix", "scaffold", "staged", "uniform"]


def drawn(name: str, step: int, size: int, times: int, **options: Any) -> np.ndarray:
    rule, random = registry.make({"name": name, **options}), np.random.default_rng(0)
    return np.array([rule.length(step, size, random, {}) for _ in range(times)])


# Chunks


@pytest.mark.parametrize(
    ("sentences", "golden"),
    [
        (0, [0]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (4, [0, 1, 2, 3, 4]),
        (5, [0, 1, 2, 3, 4, 5]),
        (7, [0, 1, 3, 4, 6, 7]),
        (9, [0, 2, 4, 5, 7, 9]),
        (13, [0, 3, 5, 8, 10, 13]),
        (22, [0, 4, 9, 13, 18, 22]),
        (24, [0, 5, 10, 14, 19, 24]),
        (107, [0, 21, 43, 64, 86, 107]),
    ],
)
def test_golden_boundaries(sentences: int, golden: list[int]) -> None:
    assert boundaries(sentences, 5) == golden


def test_halves_go_to_the_even_number() -> None:
    assert boundaries(5, 2) == [0, 2, 5]
    assert boundaries(7, 2) == [0, 4, 7]


@given(st.integers(0, 300), st.integers(1, 12))
def test_chunks_are_nearly_equal_and_lose_nothing(sentences: int, chunks: int) -> None:
    found = boundaries(sentences, chunks)
    assert (found[0], found[-1]) == (0, sentences)
    sizes = [b - a for a, b in pairwise(found)]
    assert len(sizes) == min(sentences, chunks)
    if sizes:
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 2


@pytest.mark.parametrize(("sentences", "chunks"), [(-1, 5), (3, 0)])
def test_impossible_chunks(sentences: int, chunks: int) -> None:
    with pytest.raises(ValueError, match=f"got {sentences} sentences and {chunks} chunks"):
        boundaries(sentences, chunks)


# Laws of all rules


def test_every_rule_is_found_with_its_defaults() -> None:
    """A new one is a file, and no list of them is kept."""
    assert sorted(file.stem for file in Path(registry.__file__).parent.glob("[!_]*.py")) == ALL
    assert {*OURS} <= {*ALL}
    assert {registry.make(name).max_chunks for name in OURS} == {5}
    assert [name for name in OURS if registry.find(name).unit == "token"] == ["prefix"]


@given(
    st.sampled_from(ALL),
    st.integers(0, 700),
    st.integers(0, 5),
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_lengths_are_within_the_solution_and_pure(
    name: str, step: int, size: int, seed: int, history: list[tuple[int, float]]
) -> None:
    rule = registry.make(name)
    state: dict[str, float] = {}
    for length, success in history:
        state = rule.advance(state, length, 5, success)
    if rule.unit == "token":
        size *= 37
    kept = dict(state)
    found = [rule.length(step, size, np.random.default_rng(seed), state) for _ in range(2)]
    assert found[0] == found[1]
    assert type(found[0]) is int
    assert 0 <= found[0] <= size
    assert state == kept
    assert all(type(k) is str and type(v) is float for k, v in state.items())


@pytest.mark.parametrize("name", ["cosine", "staged"])
def test_no_hint_after_the_hint_steps(name: str) -> None:
    last = {"cosine": 299, "staged": 248}[name]  # the last step that gives any
    assert drawn(name, last, 5, 2000).max() > 0
    for step in (300, 301, 499, 10**6):
        assert drawn(name, step, 5, 200).max() == 0
    assert drawn(name, 39, 5, 2000, hint_steps=40, max_chunks=5).min() == 0
    assert drawn(name, 40, 5, 200, hint_steps=40).max() == 0


def test_none_gives_none() -> None:
    assert drawn("none", 0, 5, 10).max() == 0


# Cosine


@pytest.mark.parametrize(
    ("authors_step", "golden"),
    [
        *((1, 0.950), (50, 0.890), (75, 0.818), (100, 0.725), (150, 0.500), (200, 0.275)),
        *((225, 0.182), (250, 0.110), (300, 0.050), (301, 0.0), (500, 0.0)),
    ],
)
def test_cosine_golden_values(authors_step: int, golden: float) -> None:
    assert Cosine().probability(authors_step - 1) == pytest.approx(golden, abs=5e-4)


def test_cosine_is_binomial_in_the_chunks() -> None:
    """hint_uft.md 1.2: P(full), P(none), and mean 2.5 and variance 1.25 halfway."""
    times = 20_000
    for authors_step, full in ((1, 0.774), (75, 0.37), (150, 0.03)):
        share = (drawn("cosine", authors_step - 1, 5, times) == 5).mean()
        assert share == pytest.approx(full, abs=4 * math.sqrt(full / times) + 0.005)
    for authors_step, none in ((150, 0.03), (200, 0.20), (300, 0.77)):
        share = (drawn("cosine", authors_step - 1, 5, times) == 0).mean()
        assert share == pytest.approx(none, abs=4 * math.sqrt(none / times) + 0.005)
    half = drawn("cosine", 149, 5, times)
    assert half.mean() == pytest.approx(2.5, abs=0.04)
    assert half.var() == pytest.approx(1.25, abs=0.06)
    assert drawn("cosine", 149, 3, times).mean() == pytest.approx(1.5, abs=0.04)


# Staged, uniform, prefix


@pytest.mark.parametrize(("chunks", "every"), [(5, 50), (4, 60), (3, 75)])
def test_stage_table(chunks: int, every: int) -> None:
    """One chunk fewer at each multiple of `every`, counted from 1 as the authors do."""
    rule, random = Staged(), np.random.default_rng(0)
    lengths = [rule.length(t - 1, chunks, random, {}) for t in range(1, 401)]
    assert lengths == [max(chunks - t // every, 0) if t <= 300 else 0 for t in range(1, 401)]
    assert [t for t in range(2, 401) if lengths[t - 1] != lengths[t - 2]] == [
        every * i for i in range(1, chunks + 1)
    ]


def test_uniform_over_all_boundaries_at_all_steps() -> None:
    for step in (0, 499):
        for size in (3, 5):
            counts = Counter(drawn("uniform", step, size, 6000).tolist())
            assert sorted(counts) == list(range(size + 1))
            expected = 6000 / (size + 1)
            chi = sum((n - expected) ** 2 / expected for n in counts.values())
            assert chi < 20.5  # .001 point of chi-squared with 5 degrees of freedom


def test_prefix_window() -> None:
    rule = Prefix()
    assert [rule.lowest(step) for step in (0, 250, 500, 900)] == pytest.approx(
        [0.95, 0.5, 0.05, 0.05]
    )
    assert set(drawn("prefix", 0, 1000, 50)) <= {949, 950}
    half = drawn("prefix", 250, 1000, 5000)
    assert half.min() >= 500
    assert half.max() <= 950
    assert half.mean() == pytest.approx(725, abs=10)
    end = drawn("prefix", 700, 1000, 5000)
    assert (end.min(), end.max()) == pytest.approx((50, 950), abs=5)
    assert end.mean() == pytest.approx(500, abs=16)


# Adaptive


def steps_of(rule: Adaptive, groups: list[tuple[int, int, float]]) -> dict[str, float]:
    state: dict[str, float] = {}
    for group in groups:
        state = rule.advance(state, *group)
    return state


def test_adaptive_starts_with_whole_solutions() -> None:
    assert Adaptive().enough(5, {}) == 5
    lengths = Counter(drawn("adaptive", 0, 5, 4000).tolist())
    assert set(lengths) == {4, 5}
    assert lengths[4] / 4000 == pytest.approx(0.1, abs=0.02)
    assert drawn("adaptive", 0, 0, 50).max() == 0


def test_adaptive_rates_by_hand() -> None:
    """Two groups at 2 of 5 and one at 4 of 5, memory 10: weights .9^2, .9 and 1."""
    state = steps_of(Adaptive(memory=10), [(2, 5, 0.5), (2, 5, 1.0), (4, 5, 1.0)])
    seen, right = 0.81 + 0.9, 0.5 * 0.81 + 0.9
    assert estimates(state) == pytest.approx(
        {Fraction(2, 5): right / (seen + 1), Fraction(4, 5): 1 / 2}
    )
    assert Adaptive(target=0.45, memory=10).enough(5, state) == 2
    assert Adaptive(target=0.49, memory=10).enough(5, state) == 4
    assert Adaptive(target=0.6, memory=10).enough(5, state) == 5


def test_adaptive_pools_rates_that_fall() -> None:
    """A luckier shorter length and a longer one are one block; both weigh as they were seen."""
    state = {"seen 1/5": 2.0, "right 1/5": 2.0, "seen 3/5": 30.0, "right 3/5": 9.0}
    found = estimates(state)
    assert list(found.values()) == pytest.approx([11 / 33] * 2)
    assert Adaptive(target=0.5).enough(5, state) == 5  # 2/3 alone would have done


@given(
    st.dictionaries(
        st.sampled_from(["0", "1/5", "1/3", "2/5", "1/2", "3/5", "4/5", "1"]),
        st.tuples(st.floats(0, 500), st.floats(0, 1)),
    )
)
def test_adaptive_estimates_never_fall(history: dict[str, tuple[float, float]]) -> None:
    state = {f"seen {k}": seen for k, (seen, _) in history.items()}
    state |= {f"right {k}": seen * rate for k, (seen, rate) in history.items()}
    found = estimates(state)
    assert list(found) == sorted(found)
    assert list(found.values()) == sorted(found.values())
    assert all(0 <= rate <= 1 for rate in found.values())


def test_adaptive_shares_rates_between_solutions_of_other_lengths() -> None:
    state = steps_of(Adaptive(), [(2, 4, 1.0)] * 20)
    assert [Adaptive().enough(size, state) for size in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]


def taught(rule: Adaptive, skill: Any, groups: int, seed: int = 0) -> np.ndarray:
    """Lengths given to a learner that is right with probability `skill(group, part)`."""
    random, state, lengths = np.random.default_rng(seed), {}, []
    for group in range(groups):
        size = int(random.integers(3, 6))
        length = rule.length(group, size, random, state)
        success = random.binomial(4, skill(group, length / size)) / 4
        state = rule.advance(state, length, size, success)
        lengths.append(length / size)
    return np.array(lengths)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adaptive_finds_the_shortest_hint_that_suffices(seed: int) -> None:
    """Right half of the time from a part of .5 on: lengths 2 of 3, 2 of 4 and 3 of 5."""
    given_parts = taught(Adaptive(), lambda _, part: 0.75 if part >= 0.5 else 0.2, 3000, seed)
    late = given_parts[1500:]
    assert (late >= 0.5).mean() == pytest.approx(0.9, abs=0.08)
    assert ((late >= 0.5) & (late <= 0.67)).mean() > 0.8


def test_adaptive_follows_a_learner_that_improves_and_one_that_forgets() -> None:
    def improving(group: int, part: float) -> float:
        return float(1 / (1 + np.exp(-(10 * part - 8 + 12 * group / 3000))))

    up = taught(Adaptive(), improving, 4000)
    assert up[:100].mean() > 0.7
    quarters = up.reshape(4, -1).mean(1)
    assert list(quarters) == sorted(quarters, reverse=True)
    assert (up[-500:] == 0).mean() > 0.85
    down = taught(Adaptive(), lambda group, part: improving(4000 - group, part), 4000)
    assert down[1000:1300].mean() < 0.2  # found that none is needed
    assert down[-300:].mean() > 0.6


# Options


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("cosine", {"low": 0.6, "high": 0.5}, "0 <= low <= high <= 1, got 0.6 and 0.5"),
        ("cosine", {"high": 1.5}, "got 0.05 and 1.5"),
        ("cosine", {"hint_steps": 0}, "hint_steps must be at least 1, got 0"),
        ("staged", {"hint_steps": 5}, r"more than max_chunks \(5\).*got 5"),
        ("prefix", {"steps": 0}, "steps must be at least 1, got 0"),
        ("prefix", {"low": -0.1}, "got -0.1 and 0.95"),
        ("adaptive", {"target": 1.0}, "target must be between 0 and 1, got 1.0"),
        ("adaptive", {"explore": 0}, "explore must be between 0 and 1, got 0"),
        ("adaptive", {"memory": 1}, "memory must be at least 10 groups, got 1"),
        ("uniform", {"max_chunks": 0}, "max_chunks must be at least 1, got 0"),
        ("cosine", {"hint_step": 10}, "unknown option 'hint_step'.*hint_steps"),
        ("cosin", {}, "unknown hint rule 'cosin'.*cosine"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        registry.make({"name": name, **options})


def test_adaptive_refuses_what_is_no_success() -> None:
    with pytest.raises(ValueError, match=r"got 1\.5 at 2"):
        Adaptive().advance({}, 2, 5, 1.5)
    with pytest.raises(ValueError, match=r"at a length up to 5, got 1\.0 at 6"):
        Adaptive().advance({}, 6, 5, 1.0)
    assert Adaptive().advance({}, 0, 0, 1.0) == {}


def test_other_rules_carry_nothing() -> None:
    for rule in (Cosine(), Uniform(), Staged(), Prefix()):
        assert rule.advance({}, 1, 5, 1.0) == {}
