"""Stages with schedules, probes, f* and averages inside, on one process and on two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import AutoPeftModelForCausalLM
from support.ranks import train_on_two_ranks
from support.tiny import write_recipe, write_rows

from onestage.config import RecipeError
from onestage.runfolder import read_metrics
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]


def quiet(line: str) -> None:
    return None


@pytest.fixture
def staged(
    recipe_of: Make, rows: dict[str, Any], model_folder: Path, tmp_path: Path
) -> dict[str, Any]:
    """Text first, then SFT and DPO under MAXRIGHT with f* measured, probed on the text."""
    recipe = recipe_of("text", "demonstration", "pair")
    recipe["model"] = {"name": str(model_folder), "lora": {"r": 2}}
    recipe["train"] |= {"max_steps": 3, "batch_size": 4, "tokens_per_row": 128}
    kept = write_rows(tmp_path / "kept.jsonl", rows["text"])
    recipe["stages"] = [
        {"name": "text", "streams": ["texts"], "objective": "sft"},
        {
            "name": "both",
            "streams": ["demonstrations", "pairs"],
            "objective": {"demonstration": "sft", "pair": "dpo"},
            "schedule": {"name": "maxright", "refresh_steps": 2},
            "optimum": {"steps": 2},
            "probe": {"steps": 2, "retention": [{"name": "kept", "path": str(kept)}]},
            "adapter": "stack",
            "reference": "start",
            "train": {"max_steps": 4, "average": "tail"},
        },
    ]
    del recipe["objective"]
    return recipe


def test_a_stage_may_have_all_of_it(staged: dict[str, Any], tmp_path: Path) -> None:
    saved = carry_out(parse_recipe(staged), tmp_path / "out", say=quiet, self_check=False)
    lines = read_metrics(tmp_path / "out" / "2-both")
    assert lines[0]["step"] == 0
    assert lines[0]["retention/kept/kl"] == pytest.approx(0, abs=1e-6)  # to this stage's own start
    assert lines[-1]["retention/kept/kl"] > 0
    assert (tmp_path / "out" / "2-both" / "model_last").is_dir()
    assert AutoPeftModelForCausalLM.from_pretrained(saved) is not None
    assert len(list((tmp_path / "cache" / "optimum").glob("*/optimum.json"))) == 2


def test_a_stage_with_a_bad_schedule_is_refused_before_the_first(
    staged: dict[str, Any], tmp_path: Path
) -> None:
    staged["stages"][1]["schedule"] = {"name": "maxright", "weights": {"dpo": -1, "sft": 1}}
    with pytest.raises(RecipeError, match=r"stages\.both: .*at least 0"):
        carry_out(parse_recipe(staged), tmp_path / "out", say=quiet, self_check=False)
    staged["stages"][1]["schedule"] = "maxrigt"
    with pytest.raises(RecipeError, match=r"stages\.both: .*did you mean 'maxright'"):
        carry_out(parse_recipe(staged), tmp_path / "out", say=quiet, self_check=False)
    assert not (tmp_path / "out").exists()


def test_two_processes_do_the_stages_of_one(staged: dict[str, Any], tmp_path: Path) -> None:
    carry_out(parse_recipe(staged), tmp_path / "one", say=quiet, self_check=False)
    staged["cache_dir"] = str(tmp_path / "cache2")
    file = write_recipe(tmp_path / "recipe.yaml", staged)
    train_on_two_ranks(file, tmp_path / "two")
    for stage in ("1-text", "2-both"):
        one, two = (read_metrics(tmp_path / run / stage) for run in ("one", "two"))
        for left, right in zip(one, two, strict=True):
            assert left.keys() == right.keys()
            for key in ("loss", "weight/dpo", "retention/kept/kl", "probe/cosine/sft/dpo"):
                if key in left:
                    assert right[key] == pytest.approx(left[key], rel=5e-3, abs=5e-4), key
