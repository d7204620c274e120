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
    told = read(written(tmp_path, SWIFT))
    given = told.given
    assert (told.command, told.devices) == ("swift rlhf", 8)
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
        (
            "torchrun --nproc_per_node 8 trl/scripts/kto.py --dataset_name a/b --lr 1",
            {"name": "kto", "baseline": "mismatched"},
        ),
        ("torchrun --nproc_per_node=8 trl/scripts/dpo.py --dataset_name a/b", "dpo"),
        ("accelerate launch --multi_gpu dpo.py --dataset_name a/b", "dpo"),
        ("accelerate launch --config_file=ds.yaml run_dpo.py --dataset_name a/b", "dpo"),
        ("accelerate launch run_sft.py --dataset_name a/b", "sft"),
        ("python reward_modeling.py --dataset_name a/b --max_length 512", "bradley_terry"),
        ("trl rloo --dataset_name a/b", {"name": "rloo", "beta": 0.05}),
        ("python cpo.py --dataset_name a/b --cpo_alpha 0.5", {"name": "cpo", "sft_coef": 0.5}),
        ("python examples/scripts/orpo.py --dataset_name a/b", "orpo"),
        ("python bco.py --dataset_name a/b --max_completion_length 128", "bco"),
        (
            "python kto.py --dataset_name a/b --loss_type kto --beta 0.2",
            {"name": "kto", "baseline": "mismatched", "beta": 0.2},
        ),
        (
            "python dpo.py --dataset_name a/b --loss_type robust --label_smoothing 0.2",
            {"name": "robust_dpo", "label_smoothing": 0.2},
        ),
        ("python dpo.py --dataset_name a/b --loss_type robust", "dpo"),
        ("python cpo.py --dataset_name a/b --loss_type ipo", "to be named"),
        ("python online_dpo.py --dataset_name a/b", "to be named"),
        ("python train.py --dataset_name a/b --loss_type hinge", "slic"),
        ("python sdft.py --dataset_name a/b --num_generations 4", "to be named"),
        ("python gkd.py --dataset_name a/b --beta 0.5", "to be named"),
    ],
)
def test_a_command_of_trl_says_by_its_name_what_it_trains(
    command: str, objective: str, tmp_path: Path
) -> None:
    told = read(written(tmp_path, command))
    assert "nproc_per_node" not in told.given
    assert recognise(told.given, told.command) == "trl"
    carried = find("trl")().carry(told.given, command=told.command)
    assert carried.recipe["objective"] == objective
    assert not any("nothing here names the trainer" in note for note in carried.notes)


def test_a_command_of_ms_swift_says_by_its_name_what_it_trains(tmp_path: Path) -> None:
    told = read(written(tmp_path, "swift rlhf --model m --dataset a.jsonl --learning_rate 1e-6"))
    carried = find("ms_swift")().carry(told.given, command=told.command)
    assert carried.recipe["objective"] == "dpo"
    told = read(written(tmp_path, "swift pt --model m --dataset a.jsonl --packing true"))
    (stream,) = find("ms_swift")().carry(told.given, command=told.command).recipe["data"]
    assert stream == {"name": "a", "path": "a.jsonl", "kind": "text"}
    with pytest.raises(RecipeError, match="is ms-swift's Megatron, whose options are others"):
        read(written(tmp_path, "megatron sft --model m --dataset a --lr 1e-4"))


def test_a_variable_is_what_it_was_when_the_command_ran(tmp_path: Path) -> None:
    text = """
LR=1e-5  # at first
trl dpo --dataset_name a/b --learning_rate $LR --beta ${BETA:-0.3} --seed 1 2>&1 | tee log.txt
LR=5e-7
trl sft --dataset_name a/c --learning_rate $LR --seed 2
"""
    told = read(written(tmp_path, text))
    wanted = {"dataset_name": "a/b", "learning_rate": 1e-5, "beta": 0.3, "seed": 1}
    assert (told.given, told.command) == (wanted, "trl dpo")
    assert told.notes == ("the command with most options is read; also in the script: trl sft",)


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("accelerate launch --num_processes 4 sft.py --dataset_name a/b", 4),
        ("export NPROC_PER_NODE=2\nswift sft --model m --dataset a --learning_rate 1", 2),
        ("trl sft --dataset_name a/b --learning_rate 1", None),
    ],
)
def test_a_script_says_on_how_many_devices(text: str, devices: int | None, tmp_path: Path) -> None:
    assert read(written(tmp_path, text)).devices == devices


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
