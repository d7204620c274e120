"""Law 10: every option of training and adapters changes what it says it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from onestage.config import RecipeError
from onestage.models import Lora
from onestage.runfolder import read_metrics
from onestage.training.check import check_recipe
from onestage.training.pipeline import carry_out
from onestage.training.recipe import Train, parse_recipe

Make = Callable[..., dict[str, Any]]

TRAINING: dict[str, Any] = {
    "learning_rate": 2e-2,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.5,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "max_grad_norm": 0.01,
    "optim": "sgd",
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "adam_epsilon": 1e-2,
    "seed": 7,
    "batch_size": 3,
    "bf16": True,
    "max_steps": 2,
    "max_tokens": 50,
    "num_train_epochs": 1.0,
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "optim_args": "momentum=0.9",
}
ELSEWHERE = {
    "max_length": "test_encoding.py, test_recipe.py",
    "overflow": "test_encoding.py",
    "bad_rows": "test_recipe.py",
    "tokens_per_row": "changes no result: test_training.py (law 6)",
    "logging_steps": "test_logging_steps",
    "eval_steps": "test_training.py",
    "save_steps": "test_training.py",
    "save_total_limit": "test_training.py",
    "report_to": "test_training.py",
    "callbacks": "test_callbacks.py",
    "delta_l1": "test_penalty.py",
    "clip": "test_schedule_runs.py, test_schedules.py",
    "average": "test_schedule_runs.py",
    "average_decay": "test_schedule_runs.py",
    "average_start": "test_schedule_runs.py",
    "async_save": "changes no result: test_async_save.py",
    "dataset_num_proc": "changes no result: test_workers.py",
}
BESIDE = {  # what an option needs to have an effect
    "warmup_ratio": {"lr_scheduler_type": "linear"},
    "warmup_steps": {"lr_scheduler_type": "linear"},
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_restarts"},
    "optim_args": {"optim": "sgd"},
    "adam_epsilon": {"optim": "adamw_torch"},
}


def trained(recipe: dict[str, Any], out: Path, name: str) -> dict[str, torch.Tensor]:
    folder = carry_out(parse_recipe(recipe), out, say=lambda line: None, self_check=False)
    return load_file(folder / name)


def differ(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return any(left[n].shape != right[n].shape or not torch.equal(left[n], right[n]) for n in left)


def test_every_training_option_has_a_test() -> None:
    assert set(TRAINING) | set(ELSEWHERE) == set(Train.model_fields)


@pytest.mark.parametrize("option", TRAINING)
def test_a_training_option_changes_the_model(option: str, recipe_of: Make, tmp_path: Path) -> None:
    models = []
    for run, change in (("plain", {}), ("changed", {option: TRAINING[option]})):
        recipe = recipe_of("demonstration", objective="sft", train__max_steps=3)
        recipe["train"] |= {**BESIDE.get(option, {}), **change}
        if option == "num_train_epochs" and change:
            del recipe["train"]["max_steps"]  # one epoch of 10 records is 2 steps
        models.append(trained(recipe, tmp_path / run, "model.safetensors"))
    assert differ(*models)


ADAPTER = {"r": 3, "alpha": 64, "dropout": 0.5, "target_modules": ["q_proj"], "preserve_rank": 1}


@pytest.mark.parametrize("option", Lora.model_fields)
def test_an_adapter_option_changes_the_adapter(
    option: str, recipe_of: Make, tmp_path: Path
) -> None:
    models = []
    for run, change in (("plain", {}), ("changed", {option: ADAPTER[option]})):
        recipe = recipe_of("demonstration", objective="sft", train__max_steps=3)
        recipe["model"]["lora"] = {"r": 2, **change}
        models.append(trained(recipe, tmp_path / run, "adapter_model.safetensors"))
    assert models[0].keys() != models[1].keys() or differ(*models)


def test_logging_steps(recipe_of: Make, tmp_path: Path) -> None:
    """Every second step and the last; a line's loss is the mean of its steps."""
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=5)
    lines = {}
    for steps in (1, 2):
        recipe["train"]["logging_steps"] = steps
        carry_out(
            parse_recipe(recipe), tmp_path / str(steps), say=lambda line: None, self_check=False
        )
        lines[steps] = read_metrics(tmp_path / str(steps))
    assert [line["step"] for line in lines[2]] == [2, 4, 5]
    single = [line["loss"] for line in lines[1]]
    assert lines[2][0]["loss"] == pytest.approx((single[0] + single[1]) / 2, rel=1e-6)
    assert lines[2][-1]["loss"] == pytest.approx(single[-1], rel=1e-6)


def test_how_long_a_row_is_goes_by_the_device_and_is_said(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Train(max_length=64)
    assert train.row_budget == train.on("cpu").row_budget == 1024
    assert train.on("cuda").row_budget == train.on("xpu").row_budget == 4096
    assert Train(max_length=8192).on("cuda").row_budget == 8192
    assert Train(max_length=64, tokens_per_row=512).on("cuda").row_budget == 512
    assert train.on("cuda").model_dump() == train.model_dump()
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=1)
    del recipe["train"]["tokens_per_row"]
    said: list[str] = []
    carry_out(parse_recipe(recipe), tmp_path / "out", say=said.append, self_check=False)
    told = "rows of up to 1,024 tokens (train.tokens_per_row, by default on cpu)"
    assert any(told in line for line in said)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    (checked,) = check_recipe(parse_recipe(recipe))
    assert checked.cost is not None
    assert "rows of up to 4,096 tokens" in checked.cost.schedule


def test_losses_that_are_compared_with_an_f_that_is_not_0_ask_for_it(
    recipe_of: Make, tmp_path: Path
) -> None:
    """robust_dpo has no lower bound, and no reward either."""
    two = {"demonstration": "sft", "pair": "robust_dpo"}
    recipe = recipe_of("demonstration", "pair", objective=two, schedule="famo")
    with pytest.raises(RecipeError, match=r"robust_dpo is not 0.*no lower bound.*robust_dpo: -1"):
        carry_out(parse_recipe(recipe), tmp_path / "out", say=lambda line: None, self_check=False)
