"""Commands in shell scripts are read as configurations, and configurations are not taken for recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.config import RecipeError
from onestage.training.imports import find, recognise
from onestage.training.imports._script import read
from onestage.training.recipe import load_recipe

SWIFT = """
# --model comments/are-not-read
NPROC=2
MODEL="Qwen/Qwen2.5-7B-Instruct"
CUDA_VISIBLE_DEVICES=0 \\
swift rollout --model $MODEL
NPROC_PER_NODE=8 \\
swift rlhf \\
    --rlhf_type dpo \\
    --model ${MODEL} \\
    --external_plugins plugin/rewards.py \\
    --dataset 'me/pairs#500' \\
              'me/more' \\
    --lora_rank=8 \\
    --learning_rate 1e-4 \\
    --gradient_accumulation_steps $(expr 16 / $NPROC) \\
    --system "$UNKNOWN" \\
    --packing
"""


def written(folder: Path, text: str, name: str = "train.sh") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_the_longest_command_of_a_script_is_the_configuration(tmp_path: Path) -> None:
    given = read(written(tmp_path, SWIFT))
    assert given == {
        **{"rlhf_type": "dpo", "model": "Qwen/Qwen2.5-7B-Instruct", "lora_rank": 8},
        **{"external_plugins": "plugin/rewards.py", "dataset": ["me/pairs#500", "me/more"]},
        "gradient_accumulation_steps": 8,
        **{"learning_rate": 1e-4, "system": "$UNKNOWN", "packing": True},
    }
    assert recognise(given) == "ms_swift"
    assert find("ms_swift")().carry(given).recipe["data"][0]["limit"] == 500


@pytest.mark.parametrize(
    ("command", "objective"),
    [
        ("trl dpo --dataset_name a/b --learning_rate 1e-6", "dpo"),
        ("torchrun --nproc_per_node 8 trl/scripts/kto.py --dataset_name a/b --lr 1", "kto"),
        ("accelerate launch run_sft.py --dataset_name a/b", {"name": "sft"}),
        ("python reward_modeling.py --dataset_name a/b --max_length 512", "bradley_terry"),
    ],
)
def test_a_command_of_trl_says_by_its_name_what_it_trains(
    command: str, objective: str, tmp_path: Path
) -> None:
    given = read(written(tmp_path, command))
    assert "nproc_per_node" not in given
    found = find("trl")().carry(given).recipe["objective"]
    assert found == (objective if isinstance(objective, str) else objective["name"])


def test_a_script_without_a_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no command with arguments"):
        read(written(tmp_path, "echo hello\n"))


def test_another_tool_s_configuration_is_no_recipe(tmp_path: Path) -> None:
    file = written(tmp_path, "base_model: m\nmicro_batch_size: 2\nsequence_len: 64\n", "old.yaml")
    words = f"is a configuration of Axolotl, by its keys; .*: onestage import {file}"
    with pytest.raises(RecipeError, match=words):
        load_recipe(file)
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 1
    assert "onestage import" in done.output
