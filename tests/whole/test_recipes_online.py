"""The shipped recipes in which the policy answers, each for two steps a stage with a tiny model.

What is cut down is size alone: model, rows, lengths, batches and steps. `self_rewarding` needs a judge
behind an endpoint and is only planned (tests/whole/test_recipes_folder.py); `rlhf_ppo` needs a reward
model and runs in tests/whole/test_reward_training.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.tiny import write_rows

from onestage.rollout.rewards import _pool as pool
from onestage.rollout.rewards.countdown import Countdown
from onestage.runfolder import read_metrics
from onestage.training.pipeline import carry_out
from onestage.training.plan import stages_of
from onestage.training.recipe import load_recipe, parse_recipe

ROOT = Path(__file__).parents[2] / "recipes"
COUNTDOWN = sorted(file.stem for file in ROOT.glob("countdown_*.yaml"))
OTHERS = ["reft", "luffy", "srft", "hpt", "prefix_rft", "chord", "upft", "iterative_dpo"]


@pytest.fixture(scope="module", autouse=True)
def workers():
    yield
    pool.close_shared()


def smaller_train(given: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in given.items() if k not in {"num_train_epochs", "tokens_per_row"}}
    kept |= {"max_steps": 2, "batch_size": 2, "bf16": False, "max_length": 400, "logging_steps": 1}
    return kept | {"eval_steps": None, "save_steps": None}


def smaller(name: str, model: Path, rows: Path, cache: Path) -> dict[str, Any]:
    recipe = load_recipe(ROOT / f"{name}.yaml").model_dump(mode="json", exclude_unset=True)
    recipe["model"] |= {"name": str(model), "dtype": "float32"}
    for stream in recipe["data"]:
        stream["path"] = str(rows)
        stream.pop("eval_path", None)
        stream.pop("eval_limit", None)
        if "per_step" in stream:
            stream["per_step"] = 2
    if "rollout" in recipe:
        recipe["rollout"] |= {"num_generations": 3, "max_completion_length": 6}
    recipe["train"] = smaller_train(recipe["train"])
    for stage in recipe.get("stages", []):
        if "train" in stage:
            changed = set(smaller_train(stage["train"])) - {"max_length", "bf16", "logging_steps"}
            stage["train"] = {k: smaller_train(stage["train"])[k] for k in changed}
    return {**recipe, "cache_dir": str(cache)}


def sums() -> list[dict[str, Any]]:
    """Rows with a worked answer that any checker of numbers can read."""
    return [
        {
            "prompt": f"What is {n} + {n}? ",
            "solution": [f"{n} + {n} = {2 * n}\n"],
            "completion": f"{n} + {n} = {2 * n}\n<answer> {2 * n} </answer>",
            "answer": str(2 * n),
        }
        for n in range(2, 12)
    ]


@pytest.mark.parametrize("name", [*COUNTDOWN, *OTHERS])
def test_two_steps_of_a_recipe(name: str, model_folder: Path, tmp_path: Path) -> None:
    given = {"numbers": (2, 2), "given": (1, 9), "target": (1, 20), "operators": "+-"}
    puzzles = Countdown.rows(10, seed=0, split="train", template="short", **given)
    rows = write_rows(tmp_path / "rows.jsonl", puzzles if name in COUNTDOWN else sums())
    content = smaller(name, model_folder, rows, tmp_path / "cache")
    recipe, out, said = parse_recipe(content), tmp_path / "out", []
    carry_out(recipe, out, say=said.append)
    for folder in (stage.folder for stage in stages_of(recipe, out)):
        lines = [line for line in read_metrics(folder) if "loss" in line]
        assert [line["step"] for line in lines] == [1, 2]
        assert all(math.isfinite(line["loss"]) for line in lines)
        assert (folder / "model" / "config.json").exists() or (
            folder / "model" / "adapter_config.json"
        ).exists()
    assert not any("BROKEN" in line for line in said)


def test_every_online_recipe_is_here() -> None:
    online = {
        file.stem
        for file in ROOT.glob("*.yaml")
        if any(stream.reward for stream in load_recipe(file).data)
    }
    elsewhere = {"self_rewarding", "rlhf_ppo", "mixed_small"}
    assert online | {"countdown_sft"} == {*COUNTDOWN, *OTHERS, *elsewhere}
