"""Schedules are arithmetic: hand-computed weights, and what holds for all of them."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage import schedules
from onestage.schedules import Schedule, active, find, make, names
from onestage.training.monitor import Guarded
from onestage.training.optimizer import Clipping
from onestage.training.plan import most_drawn, most_measured

TWO = {"dpo": 0.25, "sft": 0.75}
OPTIONS: dict[str, dict[str, Any]] = {"chord": {"supervised": "sft"}}


def schedule(name: str, weight: dict[str, float] | None = None, **options: Any) -> Any:
    steps, seed = options.pop("steps", 100), options.pop("seed", 0)
    optimum = options.pop("optimum", None)
    rule = make({"name": name, **OPTIONS.get(name, {}), **options})
    return rule.for_run(weight or TWO, steps, seed, optimum)


def follow(found: Schedule, steps: int, losses: Any) -> list[dict[str, float]]:
    """What the loop does: measure what is stale, decide, observe what was trained on."""
    weights = []
    for step in range(steps):
        now = losses(step)
        found.observe(step, {term: now[term] for term in found.wants(step)})
        weights.append(found.weigh(step))
        found.observe(step, {term: now[term] for term in active(weights[-1])})
    return weights


@pytest.mark.parametrize("name", names())
@given(st.lists(st.floats(0, 10), min_size=2, max_size=5), st.integers(0, 60))
def test_weights_add_up_to_one_and_respect_zero(name: str, values: list[float], step: int) -> None:
    weight = {"sft": 1.0} | {f"t{i}": value for i, value in enumerate(values)} | {"last": 1.0}
    found = schedule(name, weight)
    for weights in follow(found, step + 1, lambda s: {t: 1.0 + s for t in weight}):
        assert set(weights) == set(weight)
        assert sum(weights.values()) == pytest.approx(1)
        assert all(w >= 0 for w in weights.values())
        assert all(weight[term] > 0 for term in active(weights))


@pytest.mark.parametrize("name", names())
def test_a_state_of_plain_data_is_all_there_is(name: str) -> None:
    """Law 9: stopped anywhere and restored, the choices go on as they would have."""

    def losses(step: int) -> dict[str, float]:
        return {"dpo": math.cos(step) + 2, "sft": math.sin(step / 3) + 1}

    whole, first = schedule(name), schedule(name)
    wanted = follow(whole, 40, losses)
    follow(first, 17, losses)
    second = schedule(name)
    second.restore(json.loads(json.dumps(first.state())))
    got = []
    for step in range(17, 40):
        now = losses(step)
        second.observe(step, {term: now[term] for term in second.wants(step)})
        got.append(second.weigh(step))
        second.observe(step, {term: now[term] for term in active(got[-1])})
    assert got == wanted[17:]


@pytest.mark.parametrize("name", names())
def test_draws_bounds_what_is_drawn(name: str) -> None:
    found = schedule(name)
    most, looks = most_drawn(found, 40), most_measured(found, 40)
    counts, looked = dict.fromkeys(TWO, 0), dict.fromkeys(TWO, 0)
    for step in range(40):
        stale = found.wants(step)
        for term in stale:
            looked[term] += found.measure == "own_batch"
        found.observe(step, dict.fromkeys(stale, 1.0))
        for term in active(found.weigh(step)):
            counts[term] += 1
            found.observe(step, {term: 1.0 - step / 100})
    assert all(counts[term] <= most[term] for term in TWO)
    assert all(looked[term] <= looks.get(term, 0) for term in TWO)


@pytest.mark.parametrize("name", [n for n in names() if n not in ("sequential", "chord")])
def test_a_raised_weight_raises_the_share(name: str) -> None:
    found = Guarded(schedule(name))
    found.raise_weight("dpo", 3)
    assert found.inner.share == found.share
    assert found.share == pytest.approx({"dpo": 0.5, "sft": 0.5})


@pytest.mark.parametrize("name", [n for n in names() if n not in ("sequential", "chord")])
def test_a_guard_changes_nothing_but_the_weights_it_raised(name: str) -> None:
    def losses(step: int) -> dict[str, float]:
        return {"dpo": math.cos(step) + 2, "sft": math.sin(step / 3) + 1}

    guarded, heavier = Guarded(schedule(name)), schedule(name, {"dpo": 0.5, "sft": 0.75})
    assert follow(guarded, 20, losses) == follow(schedule(name), 20, losses)
    assert most_drawn(guarded, 20) == {"dpo": 20, "sft": 20}
    assert most_measured(guarded, 20) == most_measured(schedule(name), 20)
    guarded = Guarded(schedule(name))
    guarded.raise_weight("dpo", 2)
    assert follow(guarded, 20, losses) == follow(heavier, 20, losses)
    later = Guarded(schedule(name))
    later.restore(json.loads(json.dumps(guarded.state())))
    assert later.share == guarded.share
    assert later.weigh(20) == guarded.weigh(20)
    plain = schedule(name)
    plain.restore({"raised": {}, **schedule(name).state()})  # as all states were written once
    assert plain.state() == schedule(name).state()


@pytest.mark.parametrize("name", ["sequential", "chord"])
def test_a_weight_that_cannot_be_raised_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="raised"):
        Guarded(schedule(name))


def test_mix_and_proportional_weigh_by_share() -> None:
    assert schedule("mix", {"a": 1, "b": 3}).weigh(7) == {"a": 0.25, "b": 0.75}
    assert schedule("proportional", {"a": 5, "b": 5, "c": 10}).weigh(0)["c"] == 0.5
    assert most_drawn(schedule("mix"), 10) == {"dpo": 10, "sft": 10}


def test_sequential_gives_each_its_part_in_order() -> None:
    found = schedule("sequential", steps=8)
    assert [active(found.weigh(step)) for step in range(8)] == [["dpo"]] * 2 + [["sft"]] * 6
    back = schedule("sequential", steps=8, order=["sft", "dpo"])
    assert [active(back.weigh(step)) for step in range(8)] == [["sft"]] * 6 + [["dpo"]] * 2
    three = schedule("sequential", {"a": 1, "b": 0, "c": 1}, steps=5)
    assert [active(three.weigh(step))[0] for step in range(5)] == list("aaccc")


def test_alright_draws_with_probability_lambda_and_is_a_function_of_seed_and_step() -> None:
    found = schedule("alright", seed=3)
    drawn = [active(found.weigh(step)) for step in range(6_000)]
    assert all(len(terms) == 1 for terms in drawn)
    share = drawn.count(["dpo"]) / len(drawn)
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 6_000))
    fresh = [active(schedule("alright", seed=3).weigh(step)) for step in range(0, 6_000, 20)]
    assert drawn[::20] == fresh
    other = schedule("alright", seed=4)
    assert drawn != [active(other.weigh(step)) for step in range(6_000)]
    runs = sum(left == right for left, right in pairwise(drawn))
    assert runs / len(drawn) == pytest.approx(0.25**2 + 0.75**2, abs=0.03)  # no memory
    certain = schedule("alright", {"a": 1, "b": 0})
    assert {active(certain.weigh(step))[0] for step in range(99)} == {"a"}


def test_maxright_takes_the_largest_weighted_suboptimality() -> None:
    found = schedule("maxright", optimum={"dpo": 0.1, "sft": 1.4}, decide="independent")
    assert found.wants(0) == ["dpo", "sft"]
    found.observe(0, {"dpo": 0.7, "sft": 1.5})  # .25 * .6 = .15 > .75 * .1 = .075
    assert active(found.weigh(0)) == ["dpo"]
    found.observe(0, {"dpo": 0.35})  # renewed for free: .0625 < .075
    assert active(found.weigh(1)) == ["sft"]
    found.observe(1, {"sft": 1.3})  # below a given f*, which stands: noise is no better optimum
    assert found.suboptimality() == pytest.approx({"dpo": 0.0625, "sft": -0.075})


def test_an_unknown_optimum_is_zero_and_lowered_on_line() -> None:
    found = schedule("maxright", {"a": 1, "b": 1}, decide="independent")
    found.observe(0, {"a": 0.5, "b": 0.4})
    assert found.best == {"a": 0.0, "b": 0.0}
    found.observe(1, {"a": -0.25})
    assert found.best == {"a": -0.25, "b": 0.0}
    assert found.suboptimality() == pytest.approx({"a": 0.0, "b": 0.2})


def test_a_tie_goes_to_the_term_written_first() -> None:
    found = schedule("maxright", {"b": 1, "a": 1}, decide="independent")
    found.observe(0, {"a": 1.0, "b": 1.0})
    assert active(found.weigh(0)) == ["b"]


def test_no_loss_that_decides_is_older_than_k() -> None:
    """k counts over the whole run, and what was trained on is not measured again."""
    found = schedule("maxright", refresh_steps=4, decide="independent")
    asked = {}
    for step in range(13):
        stale = found.wants(step)
        if stale:
            asked[step] = list(stale)
        found.observe(step, {term: {"dpo": 9.0, "sft": 1.0}[term] for term in stale})
        found.observe(step, dict.fromkeys(active(found.weigh(step)), 9.0))
    assert asked == {0: ["dpo", "sft"], 4: ["sft"], 8: ["sft"], 12: ["sft"]}


def test_published_maxright_measures_all_every_k_steps_on_the_next_batch() -> None:
    found = schedule("maxright", refresh_steps=4, decide="same_batch")
    assert found.measure == "next_batch"
    assert found.measure_fraction == 1.0
    found.observe(0, {"dpo": 1.0, "sft": 1.0})
    assert [step for step in range(9) if found.wants(step)] == [0, 4, 8]
    assert list(found.wants(4)) == ["dpo", "sft"]
    assert most_measured(found, 100) == {}


def test_the_running_mean_forgets_by_steps() -> None:
    found = schedule("maxright", decide="ema", ema_rate=0.5)
    found.observe(0, {"dpo": 1.0})
    found.observe(1, {"dpo": 0.0})
    assert found.values["dpo"] == pytest.approx(0.5)
    found.observe(4, {"dpo": 0.0})  # three steps on: 0.5 * 0.5^3
    assert found.values["dpo"] == pytest.approx(0.0625)


def test_a_loss_with_nothing_to_measure_is_not_asked_for_again_at_once() -> None:
    found = schedule("maxright")
    found.observe(0, {"dpo": math.nan, "sft": 1.0})
    assert list(found.wants(1)) == []
    assert active(found.weigh(0)) == ["sft"]
    assert list(found.wants(10)) == ["dpo", "sft"]


def test_smooth_maxright_has_maxright_and_mix_as_limits() -> None:
    losses = {"dpo": 0.9, "sft": 0.4}  # weighted: .225 and .3
    sharp = schedule("smooth_maxright", temperature=1e-3)
    flat = schedule("smooth_maxright", temperature=1e3)
    middle = schedule("smooth_maxright", temperature=0.1)
    for found in (sharp, flat, middle):
        found.observe(0, losses)
    assert sharp.weigh(0) == {"dpo": 0.0, "sft": 1.0}
    assert flat.weigh(0) == pytest.approx(TWO, rel=1e-3)
    pull = {"dpo": 0.25 * math.exp(2.25), "sft": 0.75 * math.exp(3.0)}
    total = sum(pull.values())
    assert middle.weigh(0) == pytest.approx({t: p / total for t, p in pull.items()})


def test_chord_does_not_train_on_a_supervised_term_of_weight_0() -> None:
    for step in (0, 7, 1000):
        assert schedule("chord", {"sft": 0, "grpo": 2}).weigh(step) == {"sft": 0.0, "grpo": 1.0}


def test_chord_falls_along_a_cosine() -> None:
    found = schedule("chord", decay_steps=200)
    assert found.weigh(0) == pytest.approx({"dpo": 0.1, "sft": 0.9})
    assert found.mu(100) == pytest.approx((0.9 + 0.05) / 2)
    assert found.weigh(200) == pytest.approx({"dpo": 0.95, "sft": 0.05})
    assert found.mu(5000) == found.mu(200)
    three = schedule("chord", {"grpo": 3, "sft": 9, "kto": 1}, peak=0.6)
    assert three.weigh(0) == pytest.approx({"grpo": 0.3, "sft": 0.6, "kto": 0.1})


BAD = {
    "negative": ("mix", {"a": -1.0, "b": 1.0}, {}, "at least 0 and not all 0"),
    "zero": ("alright", {"a": 0.0, "b": 0.0}, {}, "not all 0"),
    "nan": ("mix", {"a": math.nan}, {}, "at least 0"),
    "k": ("maxright", TWO, {"refresh_steps": 0}, "refresh_steps must be at least 1, got 0"),
    "rate": ("maxright", TWO, {"decide": "ema", "ema_rate": 0.0}, r"ema_rate must lie in \(0, 1\]"),
    "rate of another": ("maxright", TWO, {"decide": "same_batch", "ema_rate": 0.1}, "of decide"),
    "part": ("maxright", TWO, {"refresh_part": 1.5}, "refresh_part"),
    "decide": ("maxright", TWO, {"decide": "both"}, "'ema', 'independent' or 'same_batch'"),
    "optimum": ("maxright", TWO, {"optimum": {"dpo": 0.1}}, "unknown option 'optimum'"),
    "temperature": ("smooth_maxright", TWO, {"temperature": 0}, "must be > 0, got 0"),
    "order": ("sequential", TWO, {"order": ["dpo"]}, "name each of"),
    "chord term": ("chord", {"dpo": 1, "kto": 1}, {"supervised": "sfk"}, "no term 'sfk'"),
    "chord alone": ("chord", {"sft": 1}, {}, "another term"),
    "chord range": ("chord", TWO, {"peak": 2.0}, "valley <= peak <= 1"),
    "option": ("maxright", TWO, {"refresh_step": 3}, "did you mean 'refresh_steps'"),
    "name": ("alrigth", TWO, {}, "did you mean 'alright'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case: str) -> None:
    name, weight, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make({"name": name, **options}).for_run(weight, 10, 0)


def test_the_names_are_the_files() -> None:
    """So a new one is a file, and no list of them is kept."""
    assert names() == sorted(file.stem for file in Path(schedules.__file__).parent.glob("[!_]*.py"))
    known = {"proportional", "mix", "sequential", "alright", "maxright", "smooth_maxright", "chord"}
    known |= {"famo", "dynamic_average", "uncertainty", "surgery", "raco", "nash_mtl", "epo", "gac"}
    assert known <= {*names()}
    assert find("mix").__name__ == "Mix"


def test_clipping_each_step_on_its_own() -> None:
    clip = Clipping(1.0)
    assert [clip.factor(["a"], norm) for norm in (0.5, 2.0, 8.0)] == [1.0, 0.5, 0.125]
    assert Clipping(0.0).factor(["a"], 1e9) == 1.0


def test_clipping_in_common_keeps_the_ratio_of_two_terms() -> None:
    """xright.md T13: what matters is that both are scaled by the same factor."""
    clip = Clipping(1.0, "common", rate=0.5)
    for _ in range(20):
        clip.factor(["a"], 6.0), clip.factor(["b"], 2.0)
    assert clip.factor(["a"], 6.0) == pytest.approx(0.25, rel=0.02)  # limit over the mean norm 4
    assert clip.factor(["b"], 2.0) == pytest.approx(0.25, rel=0.02)
    assert clip.factor(["b"], 80.0) == pytest.approx(0.25 * 8 / 80, rel=0.05)  # a spike of its own
    again = Clipping(1.0, "common", rate=0.5)
    again.restore(json.loads(json.dumps(clip.state())))
    assert again.factor(["a"], 6.0) == clip.factor(["a"], 6.0)
