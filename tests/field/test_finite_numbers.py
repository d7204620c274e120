"""Options that are no finite numbers are refused by key; measurements that are none are told."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest

import onestage as one
from onestage import objectives
from onestage.config import RecipeError, checked
from onestage.models.merge import Merge
from onestage.schedules import make
from onestage.studies.file import StudyFile
from onestage.training.monitor import Guarded, act
from onestage.training.recipe import Guard, load_recipe, parse_recipe

PLACES = {
    "train.learning_rate": "train.learning_rate: ",
    "train.weight_decay": "train.weight_decay: ",
    "train.max_grad_norm": "train.max_grad_norm: ",
    "train.num_train_epochs": "train.num_train_epochs: ",
    "train.delta_l1": "train.delta_l1: ",
    "train.lr_scheduler_kwargs.num_cycles": "train.lr_scheduler_kwargs: num_cycles: ",
    "guard.above": "guard.0.above: ",
    "model.lora.alpha": "model.lora.alpha: ",
    "model.config.rope_theta": "model.config: rope_theta: ",
    "rollout.temperature": "rollout.temperature: ",
    "data.weight": "data.0.weight: ",
    "data.score_range": "data.0.score_range: ",
    "data.ratings.a": "data.0: rating 'a' must have a finite weight",
    "optimum.given.uft": "optimum.given: uft: ",
}
"""Where a recipe has numbers, and how the line begins that is said of one that is none."""
SWITCHED = {
    **{f"train.{key}": f"train.{key}: " for key in ("seed", "learning_rate", "max_grad_norm")},
    **{place: PLACES[place] for place in ("guard.above", "model.lora.alpha", "data.weight")},
    "train.max_steps": "train.max_steps: ",
    "data.ratings.a": "data.0.ratings: a: ",
    "optimum.given.uft": PLACES["optimum.given.uft"],
}
"""Likewise of a switch."""
OPEN = ("train.lr_scheduler_kwargs.num_cycles", "model.config.rope_theta", "data.score_range")
"""Where a word would be a word, or is refused in words of its own."""


def recipe_with(place: str, value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": {"config": {"model_type": "llama"}, "tokenizer": "x", "lora": {"r": 2}},
        "data": [{"name": "rows", "path": "rows.jsonl"}],
        "probe": {"steps": 2},
        "guard": [{"measure": "retention/kept/kl", "above": 1.0}],
        "optimum": {"given": {}},
        "rollout": {},
        "train": {"lr_scheduler_kwargs": {}},
    }
    *sections, last = place.split(".")
    if place == "train.num_train_epochs":
        found["train"].pop("max_steps", None)
    target: Any = found
    for section in sections:
        target = target.setdefault(section, {})
        target = target[0] if isinstance(target, list) else target
    target[last] = (0.0, value) if last == "score_range" else value
    return found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", PLACES)
def test_no_number_of_a_recipe_is_other_than_finite(place: str, value: float) -> None:
    for given in (value, str(value)) if place not in OPEN else (value,):
        with pytest.raises(RecipeError) as refused:
            parse_recipe(recipe_with(place, given))
        assert str(refused.value).startswith(PLACES[place])


def test_an_override_of_a_command_is_looked_at_too() -> None:
    content = recipe_with("train.learning_rate", 1e-3)
    for word in (".inf", "inf", "nan", "1e999"):
        with pytest.raises(RecipeError, match=r"train\.learning_rate: "):
            load_recipe(copy.deepcopy(content), [f"train.learning_rate={word}"])


def said_of(recipe: dict[str, Any]) -> str:
    """What a recipe is refused with, when it is read or when it is looked at."""
    try:
        return "\n".join(line for run in one.check(recipe) for line in run.findings.errors)
    except RecipeError as error:
        return str(error)


def test_options_of_what_is_named_are_finite(recipe_of: Callable[..., dict[str, Any]]) -> None:
    """By name, made in Python, and in the map from kinds; infinity stays where it has a use."""
    for value in (math.nan, math.inf):
        for objective in (
            {"name": "dpo", "beta": value},
            {"pair": {"name": "dpo", "beta": value}},
            one.objectives.DPO(beta=value),
        ):
            told = said_of(recipe_of("pair", objective=objective))
            assert "beta: must be a finite number" in told or "beta must be a finite" in told
    imitated = recipe_of("score", objective={"name": "sft", "min_score": -math.inf})
    assert all(run.good for run in one.check(imitated))
    with pytest.raises(ValueError, match="min_score: must be a finite number, found nan"):
        one.objectives.make({"name": "sft", "min_score": math.nan})


def test_a_merge_is_asked_for_in_finite_numbers() -> None:
    common = {"models": ["a", "b"], "out": "not_there"}
    for options in ({"min_score": math.nan}, {"density": math.inf}, {"weights": [1, math.inf]}):
        with pytest.raises(ValueError, match=r"finite|0 or more|\(0, 1\]"):
            Merge(**common, method="ties", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("then", "stops"), [("warn", False), ("stop", True), ("raise", True)])
def test_a_guard_on_what_is_no_number_does_not_keep_silent(then: Any, stops: bool) -> None:
    said: list[str] = []
    schedule = Guarded(make("mix").for_run({"a": 1, "b": 1}, 10, 0))
    guard = Guard(measure="x", above=1.0, then=then, term="a" if then == "raise" else None)
    assert act([guard], {"x": math.nan}, schedule, said.append) is stops
    assert said[0].startswith("guard: x is not a number")
    assert schedule.share["a"] == 0.5


@pytest.mark.parametrize("digits", [19, 400, 5000])
def test_a_number_that_64_bits_do_not_hold_is_refused(digits: int) -> None:
    with pytest.raises(RecipeError, match=r"^train\.max_steps: .* of \d+ bits, where 63") as told:
        parse_recipe(recipe_with("train.max_steps", 10**digits))
    assert len(str(told.value)) < 200


@pytest.mark.parametrize("place", ["data.name", "reference", "train.optim", "objective.name"])
def test_half_a_character_is_refused(place: str) -> None:
    """JSON and YAML can write one; no file, tokenizer or digest takes it."""
    with pytest.raises(RecipeError, match="valid Unicode"):
        parse_recipe(recipe_with(place, "a\ud800"))


@pytest.mark.parametrize("schedule", ["proportional", "alright", "chord", "maxright"])
def test_a_run_of_any_length_is_planned_at_once(
    schedule: str, recipe_of: Callable[..., dict[str, Any]]
) -> None:
    """Steps are arithmetic: checking a run of 10^18 of them takes no longer than one of ten."""
    objective = {"demonstration": "sft", "pair": "dpo"}
    recipe = recipe_of("demonstration", "pair", objective=objective, schedule=schedule)
    recipe["train"]["max_steps"] = 10**18
    (checked,) = one.check(**recipe)
    assert not checked.findings.errors


@pytest.mark.parametrize("switch", [True, False])
@pytest.mark.parametrize("place", SWITCHED)
def test_a_switch_is_no_number(place: str, switch: bool) -> None:
    """`yes` of YAML would be 1, and `no` a seed of 0."""
    told = f"^{SWITCHED[place]}must be a number, found {str(switch).lower()}$"
    with pytest.raises(RecipeError, match=told):
        parse_recipe(recipe_with(place, switch))


def test_nor_is_one_in_a_list_a_study_a_plug_in_or_what_was_made_in_python() -> None:
    with pytest.raises(ValueError, match="score_range"):
        one.Stream("a.jsonl", score_range=[False, 5])
    study = {"name": "a", "world": {"name": "lab"}, "recipe": {}, "methods": {"a": {}}}
    with pytest.raises(RecipeError, match=r"^seeds: 1: must be a number, found true"):
        checked(StudyFile, {**study, "seeds": [3, True]}, RecipeError)
    for dpo in ({"name": "dpo", "beta": False}, objectives.DPO(beta=True)):
        with pytest.raises(
            ValueError, match=r"(?i)objective dpo: beta: must be a number, found (fa|tr)"
        ):
            objectives.make(dpo)
    plain = {"model": "m", "data": {"a": "a.jsonl"}, "train": {"bf16": True, "async_save": False}}
    assert parse_recipe(plain).train.bf16 is True
    assert objectives.make({"name": "ipo", "average": True}).average is True  # type: ignore
