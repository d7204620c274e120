"""Options that change nothing as the others are: told by check and by the run, and none that acts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny import make_tokenizer, tiny_llama, write_rows
from transformers import GPT2Config, LlamaConfig

from onestage.config import RecipeError
from onestage.training.build import Draft
from onestage.training.check import check_recipe
from onestage.training.idle import idle
from onestage.training.parts import Given
from onestage.training.pipeline import carry_out
from onestage.training.read import beyond, check_rows
from onestage.training.recipe import Train, parse_recipe

Make = Callable[..., dict[str, Any]]
STEADY = {"lr_scheduler_type": "constant"}
TRAIN: list[tuple[dict[str, Any], str]] = [
    (STEADY | {"warmup_ratio": 0.5}, "train.warmup_ratio changes nothing under .* constant"),
    (STEADY | {"warmup_steps": 2}, "train.warmup_steps changes nothing under .* constant"),
    ({"lr_scheduler_type": "linear", "warmup_steps": 2}, ""),
    ({"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.5}, ""),
    (
        {"lr_scheduler_type": "linear", "warmup_steps": 2, "warmup_ratio": 0.5},
        "warmup_ratio changes nothing beside warmup_steps",
    ),
    (
        {"lr_scheduler_type": "linear", "warmup_steps": 9},
        "learning_rate 0.01 is never reached: 9 steps warm up, the run has 4",
    ),
    ({"optim": "sgd", "adam_beta1": 0.5}, "adam_beta1 changes nothing with optim: sgd"),
    ({"optim": "adafactor", "adam_epsilon": 1e-3}, "adam_epsilon changes nothing with optim"),
    ({"adam_beta2": 0.9}, ""),
    ({"average_decay": 0.9}, "average_decay changes nothing with average: none"),
    ({"average": "ema", "average_start": 0.9}, "average_start changes nothing with average: ema"),
    ({"average": "ema", "average_decay": 0.9}, ""),
    ({"save_total_limit": 2}, "save_total_limit changes nothing without save_steps"),
    ({"async_save": True, "save_steps": 2, "save_total_limit": 2}, ""),
    ({"max_grad_norm": 0, "clip": "common"}, "train.clip changes nothing with max_grad_norm: 0"),
]


SECTIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"rollout": {"num_generations": 4}},
        r"rollout \(num_generations\) changes nothing without prob",
    ),
    ({"optimum": {"given": {"sft": 0.1}}}, "optimum changes nothing without held-out rows"),
    (
        {"objective": {"demonstration": "sft", "pair": "dpo"}},
        "objective.pair changes nothing where no record of that kind is given to it",
    ),
    ({"objective": {"demonstrations": "sft"}}, ""),
    (
        {"objective": {"name": "sft", "min_score": 0.5}},
        "objective sft: min_score changes nothing for demonstration records as they are",
    ),
    (
        {"probe": {}, "guard": [{"measure": "task/sft/kl", "above": 1, "factor": 3.0}]},
        "guard.factor of task/sft/kl changes nothing with then: warn",
    ),
    (
        {"evaluate": {"suites": ["support.small_suites:Slow"], "max_completion_length": 9}},
        "evaluate.max_completion_length changes nothing without prompts",
    ),
]


def told(recipe: dict[str, Any]) -> list[str]:
    (checked,) = check_recipe(parse_recipe(recipe))
    assert checked.good, checked.findings.errors
    return [w for w in checked.findings.warnings if re.search("changes nothing|is never", w)]


def require(lines: list[str], line: str) -> None:
    """That line alone, or none."""
    assert len(lines) == bool(line), lines
    assert re.search(line, "".join(lines))


@pytest.mark.parametrize(("change", "line"), TRAIN, ids=str)
def test_an_option_of_training(change: dict[str, Any], line: str, recipe_of: Make) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["train"] |= change
    require(told(recipe), line)


@pytest.mark.parametrize(("sections", "line"), SECTIONS, ids=str)
def test_an_option_of_another_section(sections: dict[str, Any], line: str, recipe_of: Make) -> None:
    require(told(recipe_of("demonstration", objective="sft") | sections), line)


@pytest.mark.parametrize(
    ("kinds", "schedule", "line"),
    [
        (["pair"], "proportional", "data.pairs.weight changes nothing beside no other stream"),
        (["demonstration", "pair"], "proportional", ""),
        (
            ["demonstration", "pair"],
            "mix",
            "data.pairs.weight changes nothing under schedule mix, .*",
        ),
    ],
)
def test_a_weight_that_nothing_is_weighed_against(
    kinds: list[str], schedule: str, line: str, recipe_of: Make
) -> None:
    objective = {kind: {"demonstration": "sft", "pair": "dpo"}[kind] for kind in kinds}
    recipe = recipe_of(*kinds, objective=objective, schedule=schedule)
    recipe["data"][-1]["weight"] = 3
    require(told(recipe), line)


def test_options_of_answers(recipe_of: Make, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "c.jsonl", [{"prompt": f"{n}: ", "answer": "4"} for n in range(9)])
    stream = {"name": "c", "path": str(rows), "reward": "match"}
    rollout = {"num_generations": 2, "max_completion_length": 8, "eval_generations": 3}
    recipe = recipe_of(data=[stream], objective="grpo", rollout=rollout)
    require(told(recipe), "eval_generations changes nothing without held-out problems")
    stream["eval_path"] = str(rows)
    recipe["train"]["eval_steps"] = 2
    require(told(recipe), "eval_generations changes nothing at eval_temperature 0")
    recipe["rollout"] |= {"eval_temperature": 0.5, "top_p": 0.5}
    require(told(recipe), "")


def test_hints_that_last_to_the_end(recipe_of: Make, tmp_path: Path) -> None:
    row = {"prompt": "2 + 2?", "answer": "4", "solution": ["It ", "is 4."]}
    rows = write_rows(tmp_path / "c.jsonl", [row] * 9)
    stream: dict[str, Any] = {"name": "c", "path": str(rows), "reward": "match", "hint": "cosine"}
    recipe = recipe_of(data=[stream], objective="grpo", rollout={"max_completion_length": 8})
    require(told(recipe), "data.c.hint: the end of hint_steps 300 is never reached: there are 4")
    stream["hint"] = {"name": "cosine", "hint_steps": 4}
    require(told(recipe), "")


def test_held_out_rows_that_nothing_looks_at(recipe_of: Make) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    require(told(recipe), "data.demonstrations.eval_path changes nothing without train.eval_steps")
    require(told(recipe | {"probe": {}}), "")


def test_a_run_says_it_too(recipe_of: Make, model_folder: Path, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=1)
    recipe["model"] = {"name": str(model_folder), "revision": "v2"}
    said: list[str] = []
    carry_out(parse_recipe(recipe), tmp_path / "out", say=said.append, self_check=False)
    assert f"note: model.revision changes nothing for a folder on disk, {model_folder}" in said


def test_what_is_read_of_a_folder_says_nothing_of_a_model_that_is_there(recipe_of: Make) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["model"] = {"name": "given", "dtype": "bfloat16", "gradient_checkpointing": True}
    draft = Draft(parse_recipe(recipe), given=Given(tiny_llama(), make_tokenizer()))
    draft.read()
    require(idle(draft), "model.dtype changes nothing of a model that is loaded already")


@pytest.mark.parametrize(("dtype", "told_of"), [("float16", True), ("bfloat16", False)])
def test_gradients_that_float16_does_not_hold(dtype: str, told_of: bool, recipe_of: Make) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["model"]["dtype"] = dtype
    (checked,) = check_recipe(parse_recipe(recipe))
    lines = [one for one in checked.findings.warnings if "gradients are not scaled" in one]
    assert len(lines) == told_of


def test_a_learning_rate_that_goes_by_losses_is_refused(recipe_of: Make) -> None:
    recipe = recipe_of("demonstration", train__lr_scheduler_type="reduce_lr_on_plateau")
    (checked,) = check_recipe(parse_recipe(recipe))
    assert "goes by losses that are measured on the way" in checked.findings.errors[0]


def test_a_chat_template_that_is_put_around_nothing_is_told(recipe_of: Make) -> None:
    recipe = recipe_of("pair", "text")
    line = "pairs: plain prompts and answers"
    (checked,) = check_recipe(parse_recipe(recipe))
    assert any(one.startswith(line) for one in checked.findings.notes)
    recipe["data"][0]["as_messages"] = True
    (checked,) = check_recipe(parse_recipe(recipe))
    assert not any("chat template" in one for one in checked.findings.notes)


def test_rows_longer_than_the_model_was_made_for_are_told_or_refused(recipe_of: Make) -> None:
    """Rotary positions go on, learned ones end."""
    draft = Draft(parse_recipe(recipe_of("demonstration", objective="sft")))
    draft.read()
    longest = draft.stores.train["demonstrations"].table.longest
    rotary = LlamaConfig(max_position_embeddings=longest - 1)
    check_rows(draft.stores, Train(), rotary)
    (told,) = beyond(draft.stores, rotary)
    assert (
        f"its longest record has {longest} tokens, and the model was made for {longest - 1}" in told
    )
    assert beyond(draft.stores, LlamaConfig(max_position_embeddings=longest)) == []
    with pytest.raises(RecipeError, match=f"train.max_length: {longest - 1} keeps to them"):
        check_rows(draft.stores, Train(), GPT2Config(n_positions=longest - 1))
    draft.config = rotary
    assert told in idle(draft)
