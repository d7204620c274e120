"""Configurations as their tools' users have them become recipes that ours reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.config import RecipeError
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.training.imports import find, recognise
from onestage.training.recipe import parse_recipe

AXOLOTL = """
base_model: NousResearch/Meta-Llama-3-8B
model_type: LlamaForCausalLM
load_in_8bit: true
strict: false
chat_template: llama3
datasets:
  - path: fozziethebeat/alpaca_messages_2k_test
    type: chat_template
    split: train
  - path: data/raw.jsonl
    type: completion
    field: body
    shards: 4
dataset_prepared_path: last_run_prepared
val_set_size: 0.05
sequence_len: 4096
sample_packing: true
adapter: lora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 2e-4
bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
warmup_steps: 10
evals_per_epoch: 4
weight_decay: 0.0
special_tokens:
  pad_token: <|end_of_text|>
"""
LLAMA_FACTORY = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
trust_remote_code: true
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: q_proj,v_proj
pref_beta: 0.1
pref_loss: sigmoid
pref_ftx: 0.2
dataset: dpo_en_demo,missing
dataset_dir: FOLDER
template: llama3
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
output_dir: saves/llama3-8b/lora/dpo
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
eval_steps: 500
eval_strategy: steps
badam_mode: layer
"""
MS_SWIFT = """
model: Qwen/Qwen2.5-7B-Instruct
rlhf_type: dpo
train_type: lora
dataset:
  - hjh0119/shareAI-Llama3-DPO-zh-en-emoji#1000
  - mine.jsonl
torch_dtype: bfloat16
per_device_train_batch_size: 1
gradient_accumulation_steps: 16
learning_rate: 1e-4
lora_rank: 8
lora_alpha: 32
target_modules: all-linear
rpo_alpha: 0.1
max_length: 2048
eval_steps: 50
save_total_limit: 5
num_train_epochs: 1
system: You are a helpful assistant.
"""
TRL = """
model_name_or_path: Qwen/Qwen2-0.5B-Instruct
dataset_name: trl-lib/ultrafeedback_binarized
dataset_train_split: train
dataset_test_split: test
learning_rate: 5.0e-6
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
gradient_checkpointing: true
loss_type: hinge
beta: 0.05
eval_strategy: steps
eval_steps: 50
use_peft: true
lora_r: 32
lora_alpha: 16
padding_free: true
torch_dtype: bfloat16
precompute_ref_log_probs: true
use_weighting: true
report_to: none
"""


def carried(text: str, tool: str, devices: int = 1) -> tuple[dict[str, Any], Any]:
    given = yaml.safe_load(text)
    assert recognise(given) == tool
    found = find(tool)().carry(given, devices)
    parse_recipe(found.recipe)  # every key and objective is one of ours
    return found.recipe, found


def test_axolotl() -> None:
    recipe, found = carried(AXOLOTL, "axolotl", devices=8)
    assert recipe["model"] == {
        **{"lora": {"r": 32, "alpha": 16, "dropout": 0.05}, "gradient_checkpointing": True},
        "name": "NousResearch/Meta-Llama-3-8B",
    }
    assert recipe["data"] == [
        {
            **{"name": "alpaca_messages_2k_test", "split": "train"},
            "path": "fozziethebeat/alpaca_messages_2k_test",
        },
        {"name": "raw", "path": "data/raw.jsonl", "columns": {"text": "body"}, "kind": "text"},
    ]
    assert recipe["objective"] == "sft"
    train = recipe["train"]
    assert (train["batch_size"], train["max_length"], train["num_train_epochs"]) == (64, 4096, 4)
    assert (train["learning_rate"], train["bf16"], train["warmup_steps"]) == (2e-4, True, 10)
    assert found.left == {"load_in_8bit": True}
    notes = "\n".join(found.notes)
    for told in (
        "shards could not be carried",
        "val_set_size 0.05",
        "chat_template",
        "evals_per_epoch",
    ):
        assert told in notes  # fmt: skip


def test_llama_factory(tmp_path: Path) -> None:
    info = {
        "dpo_en_demo": {
            **{"file_name": "dpo_en_demo.json", "ranking": True, "formatting": "sharegpt"},
            "columns": {"messages": "conversations", "chosen": "better", "rejected": "worse"},
        }
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    recipe, found = carried(LLAMA_FACTORY.replace("FOLDER", str(tmp_path)), "llama_factory")
    assert recipe["model"]["lora"] == {
        **{"r": 8, "alpha": 16},  # its default: twice the rank
        "target_modules": ["q_proj", "v_proj"],
    }
    assert recipe["objective"] == {"name": "rpo", "beta": 0.1, "sft_coef": 0.2}
    first, second = recipe["data"]
    assert first == {
        **{"name": "dpo_en_demo", "path": str(tmp_path / "dpo_en_demo.json"), "limit": 1000},
        "columns": {"chosen": "better", "rejected": "worse"},
    }
    assert second["name"] == "missing"
    assert any("does not tell of it" in note for note in found.notes)
    assert "eval_steps" not in recipe["train"]
    assert any(note.startswith("eval_steps 500 is left out") for note in found.notes)
    assert found.left == {"badam_mode": "layer"}


def test_ms_swift() -> None:
    recipe, found = carried(MS_SWIFT, "ms_swift")
    assert [one.get("limit") for one in recipe["data"]] == [1000, None]
    assert recipe["objective"] == {"name": "rpo", "sft_coef": 0.1}
    assert recipe["model"]["dtype"] == "bfloat16"
    assert recipe["train"]["batch_size"] == 16
    assert found.left == {"system": "You are a helpful assistant."}


def test_trl() -> None:
    recipe, found = carried(TRL, "trl")
    assert recipe["objective"] == {"name": "slic", "beta": 0.05}
    assert recipe["data"][0]["eval_split"] == "test"
    assert "report_to" not in recipe["train"]
    assert {"padding_free", "precompute_ref_log_probs"} <= set(found.unneeded)
    assert found.left == {"use_weighting": True}
    odd = find("trl")().carry({"loss_type": "exo_pair", "beta": 0.1})
    assert odd.left == {"loss_type": "exo_pair", "beta": 0.1}
    several = find("trl")().carry({"loss_type": ["sigmoid", "sft"], "beta": 0.1})
    assert set(several.left) == {"loss_type", "beta"}


def test_what_cannot_be_counted_or_has_no_place_is_told() -> None:
    odd = find("trl")().carry(
        {
            **{"beta": 0.1, "gradient_accumulation_steps": 16, "save_strategy": "epoch"},
            **{"completion_only_loss": False, "datasets": [{"path": "a/b", "columns": ["x"]}]},
        }
    )
    assert odd.left == {}
    assert odd.recipe["train"]["batch_size"] == 128
    assert "per_device_train_batch_size is not given: 8, the tool's own default" in odd.unsaid
    told = "\n".join(odd.notes)
    for said in ("save_strategy 'epoch'", "completion_only_loss false", "data b: columns could"):
        assert said in told
    unknown = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": "auto"}
    assert find("trl")().carry(unknown).left == unknown
    axolotl = find("axolotl")().carry(
        {
            **{"base_model": "m", "adapter": "llama-adapter", "train_on_inputs": True},
            "datasets": [{"path": "a/b", "type": {"field_output": "out"}}],
            "test_datasets": [{"path": "a/b", "split": "test"}, {"path": "a/c"}],
        }
    )
    assert axolotl.left == {"adapter": "llama-adapter", "train_on_inputs": True}
    (stream,) = axolotl.recipe["data"]
    assert (stream["eval_path"], stream["eval_split"]) == ("a/b", "test")
    assert "data b: type could not be carried" in axolotl.notes
    assert "test_datasets: a/c is of no stream; left out" in axolotl.notes
    swift = find("ms_swift")().carry({"dataset": "a/b", "val_dataset": ["c.jsonl#20", "d.jsonl"]})
    (stream,) = swift.recipe["data"]
    assert (stream["eval_path"], stream["eval_limit"]) == ("c.jsonl", 20)
    assert "val_dataset: d.jsonl is of no stream; left out" in swift.notes


@pytest.mark.parametrize(
    ("tool", "given", "objective", "left"),
    [
        (
            "llama_factory",
            {"stage": "dpo", "pref_loss": "orpo", "pref_ftx": 0.2},
            "orpo",
            "pref_ftx",
        ),
        (
            "llama_factory",
            {"stage": "kto", "pref_ftx": 0.2},
            {"name": "kto", "baseline": "mismatched"},
            "pref_ftx",
        ),
        ("llama_factory", {"stage": "sft", "pref_beta": 0.2}, "sft", "pref_beta"),
        ("ms_swift", {"rlhf_type": "rm", "beta": 0.2}, "bradley_terry", "beta"),
        ("axolotl", {"rl_beta": 0.2}, "sft", "rl_beta"),
    ],
)
def test_what_an_objective_does_not_take_is_left(
    tool: str, given: dict[str, Any], objective: str, left: str
) -> None:
    found = find(tool)().carry(given)
    assert found.recipe["objective"] == objective
    assert found.left == {left: 0.2}


def test_places_of_ms_swift_with_a_hub_in_front() -> None:
    given = ["HF::me/set:part#20", "hf::me/other", "ms::me/third#5"]
    streams = find("ms_swift")().carry({"dataset": given}).recipe["data"]
    assert [(s["path"], s.get("subset"), s.get("limit")) for s in streams] == [
        ("me/set", "part", 20),
        ("me/other", None, None),
        ("ms::me/third", None, 5),
    ]


def test_no_of_yaml_is_no_strategy() -> None:
    found = find("trl")().carry(
        yaml.safe_load("{loss_type: nll, eval_strategy: no, save_strategy: no}")
    )
    assert not found.notes


def test_alpaca_under_other_names_is_read_whole(tmp_path: Path) -> None:
    columns = {"prompt": "question", "query": "context", "response": "answer"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"a": {"columns": columns}}))
    given = {"stage": "sft", "dataset": "a", "dataset_dir": str(tmp_path)}
    (stream,) = find("llama_factory")().carry(given).recipe["data"]
    row = {"question": "Add.", "context": "2, 2", "answer": "4"}
    record = record_of(row, Stream(**stream), "a")
    assert (record.prompt, record.completions) == ("Add.\n\n2, 2", ("4",))


@pytest.mark.parametrize(
    ("entry", "paths"),
    [
        ({"path": "json", "data_files": ["a.jsonl", "b.jsonl"]}, ["a.jsonl", "b.jsonl"]),
        ({"path": "json", "data_files": "a.jsonl"}, ["a.jsonl"]),
        ({"path": "json", "data_files": {"train": ["a.jsonl"], "test": "t.jsonl"}}, ["a.jsonl"]),
        ({"path": "/data/x", "data_files": ["a.json", "/b.json"]}, ["/data/x/a.json", "/b.json"]),
        ({"path": "/data/a.json", "data_files": ["a.json"]}, ["/data/a.json"]),
        ({"path": "me/set", "data_files": ["a.json"]}, ["hf://datasets/me/set/a.json"]),
        ({"path": "me/set"}, ["me/set"]),
    ],
)
@pytest.mark.parametrize("tool", ["axolotl", "trl"])
def test_files_of_a_data_set_are_a_stream_each(
    tool: str, entry: dict[str, Any], paths: list[str]
) -> None:
    found = find(tool)().carry({"datasets": [{**entry, "split": "train"}]})
    assert [stream["path"] for stream in found.recipe["data"]] == paths
    names = [stream["name"] for stream in found.recipe["data"]]
    assert len(set(names)) == len(names)
    parse_recipe({"model": "m", "objective": "sft", **found.recipe})


def test_files_beside_their_folder_are_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows").mkdir()
    for file in ("rows/a.jsonl", "rows/b.jsonl", "a.jsonl", "c.jsonl"):
        Path(file).write_text("{}")
    entry = {"path": "./rows", "data_files": ["a.jsonl", "rows/b.jsonl", "c.jsonl", "d.jsonl"]}
    found = find("axolotl")().carry({"datasets": [entry]}).recipe["data"]
    there = ["./rows/a.jsonl", "rows/b.jsonl", "c.jsonl", "./rows/d.jsonl"]
    assert [stream["path"] for stream in found] == there


def test_held_out_files_go_to_the_streams_of_their_data_set() -> None:
    entry = {"path": "json", "data_files": ["a.jsonl", "b.jsonl"]}
    held_out = {"path": "json", "data_files": ["c.jsonl", "d.jsonl", "e.jsonl"]}
    found = find("axolotl")().carry({"datasets": [entry], "test_datasets": [held_out]})
    assert [one["eval_path"] for one in found.recipe["data"]] == ["c.jsonl", "d.jsonl"]
    assert "test_datasets: e.jsonl is of no stream; left out" in found.notes


def test_text_of_llama_factory_is_read_from_the_column_it_names(tmp_path: Path) -> None:
    info = {"wiki": {"file_name": "wiki.jsonl", "columns": {"prompt": "body"}}, "plain": {}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    given = {"stage": "pt", "dataset": "wiki,plain", "dataset_dir": str(tmp_path)}
    wiki, plain = find("llama_factory")().carry(given).recipe["data"]
    assert record_of({"body": "It rains."}, Stream(**wiki), "a").kind == "text"
    assert wiki["columns"] == {"text": "body"}
    assert (plain["kind"], plain["path"]) == ("text", str(tmp_path / "plain.json"))


@pytest.mark.parametrize(
    ("tool", "given", "lora"),
    [
        ("trl", {"use_peft": True}, {"dropout": 0.05}),  # its rank and alpha are ours
        ("trl", {"use_peft": True, "lora_r": 4, "lora_dropout": 0}, {"r": 4, "dropout": 0}),
        ("ms_swift", {"train_type": "lora"}, {"r": 8, "dropout": 0.05}),
        ("llama_factory", {"finetuning_type": "lora"}, {"r": 8, "alpha": 16}),
    ],
)
def test_an_adapter_is_the_tool_s_own_where_it_is_not_described(
    tool: str, given: dict[str, Any], lora: dict[str, Any]
) -> None:
    found = find(tool)().carry(given)
    assert found.recipe["model"]["lora"] == lora
    told = " ".join(found.notes)
    for name in ({"r", "alpha", "dropout"} & lora.keys()) - {key[5:] for key in given}:
        assert f"{lora[name]:g}, the tool's own default" in told


def test_an_adapter_whose_rank_only_the_tool_knows_is_told() -> None:
    found = find("axolotl")().carry({"adapter": "lora", "lora_alpha": 16})
    assert found.recipe["model"]["lora"] == {"alpha": 16}
    assert "lora_r is not given: model.lora.r is our default, 16" in found.notes


def test_tokens_that_end_a_response_are_not_called_needless() -> None:
    tokens = {"pad_token": "<pad>", "eos_token": "<|im_end|>"}
    found = find("axolotl")().carry({"base_model": "m", "special_tokens": tokens})
    assert found.left == {"special_tokens": {"eos_token": "<|im_end|>"}}
    assert "special_tokens" not in found.unneeded
    found = find("axolotl")().carry({"base_model": "m", "special_tokens": {"pad_token": "<pad>"}})
    assert not found.left
    assert found.unneeded["special_tokens"] == "there is no padding"


def test_whose_it_is_must_be_clear() -> None:
    with pytest.raises(RecipeError, match=r"has no key that axolotl, .* --from NAME"):
        recognise({"learning_rate": 1e-4})
    with pytest.raises(RecipeError, match="could be of axolotl or ms_swift"):
        recognise({"base_model": "a", "loss_scale": "b"})


def test_the_command_tells_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(TRL)
    done = CliRunner().invoke(app, ["import", "old.yaml", "--devices", "4"])
    assert done.exit_code == 0
    assert "NOT CARRIED: use_weighting: True" in done.output
    assert "recipe.yaml: 1 keys of TRL could not be carried" in done.output
    assert done.output.rstrip().endswith("next: onestage check recipe.yaml")
    text = Path("recipe.yaml").read_text()
    assert "# NOT CARRIED: use_weighting: True" in text
    assert yaml.safe_load(text)["train"]["batch_size"] == 64
    assert CliRunner().invoke(app, ["import", "old.yaml"]).exit_code == 1  # it is there already
    assert Path("recipe.yaml").read_text() == text


IPO = {"name": "ipo", "average": True}
SAME_WORD: list[tuple[str, dict[str, Any], Any]] = [
    # a mean over tokens, where the paper's is of whole responses
    ("trl", {"loss_type": "ipo", "beta": 0.2}, IPO | {"beta": 0.2}),
    ("llama_factory", {"stage": "dpo", "pref_loss": "ipo"}, IPO),
    ("axolotl", {"rl": "ipo"}, IPO),
    ("ms_swift", {"rlhf_type": "dpo", "loss_type": "ipo"}, IPO),
    # the margin is given whole, and beta is another by default
    (
        "llama_factory",
        {"stage": "dpo", "pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 1.0},
        {"name": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.5},
    ),
    (
        "llama_factory",
        {"stage": "dpo", "pref_loss": "simpo"},
        {"name": "simpo", "beta": 0.1, "gamma_beta_ratio": 5.0},
    ),
    (
        "ms_swift",
        {"rlhf_type": "simpo", "simpo_gamma": 0.5},
        {"name": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.25},
    ),
    ("trl", {"loss_type": "nca_pair"}, {"name": "nca", "beta": 0.1}),
    (
        "trl",
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0},
        {"name": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.5},
    ),
    ("trl", {"loss_type": "simpo"}, {"name": "simpo", "beta": 0.1, "gamma_beta_ratio": 5.0}),
    ("axolotl", {"rl": "orpo", "orpo_alpha": 0.3}, {"name": "orpo", "beta": 0.3}),
    (
        "axolotl",
        {"rl": "kto", "kto_desirable_weight": 0.2, "rl_beta": 0.1},
        {"name": "kto", "baseline": "mismatched", "beta": 0.1, "desirable_weight": 0.2},
    ),
    (
        "trl",
        {"num_generations": 4, "scale_rewards": False, "beta": 0.01, "epsilon_high": 0.28},
        {
            **{"name": "grpo", "beta": 0.01, "epsilon_high": 0.28, "scale_rewards": "none"},
            "loss_type": "dapo",
        },
    ),
    ("ms_swift", {"rlhf_type": "grpo"}, {"name": "grpo", "beta": 0.04, "loss_type": "grpo"}),
    (
        "axolotl",
        {"rl": "grpo", "trl": {"beta": 0.1}},
        {"name": "grpo", "beta": 0.1, "loss_type": "dapo"},
    ),
    ("trl", {"lora_task_type": "SEQ_CLS"}, "bradley_terry"),
    ("axolotl", {"reward_model": True}, "bradley_terry"),
    ("llama_factory", {"stage": "sft", "use_dft_loss": True}, {"name": "sft", "reweight": "dft"}),
    ("ms_swift", {"rlhf_type": "gkd", "beta": 0.5}, "to be named"),
]


@pytest.mark.parametrize(("tool", "given", "objective"), SAME_WORD, ids=str)
def test_a_word_is_carried_by_what_it_means_there(
    tool: str, given: dict[str, Any], objective: Any
) -> None:
    assert find(tool)().carry(given).recipe["objective"] == objective


def test_what_a_tool_takes_of_itself_is_written_down_where_ours_is_another() -> None:
    found = find("trl")().carry({"dataset_name": "a/b", "seed": 7}, devices=2)
    train = {"num_train_epochs": 3.0, "learning_rate": 2e-5, "bf16": True, "batch_size": 16}
    assert found.recipe["train"] == train | {"seed": 7}
    assert "train.num_train_epochs 3.0, train.learning_rate 2e-05" in found.unsaid[-1]
    assert any("the user's words too" in one for one in found.unsaid)
    pairs = find("trl")().carry({"beta": 0.1, "max_steps": 9, "learning_rate": 1e-4})
    assert pairs.recipe["train"] == {
        **{"max_steps": 9, "learning_rate": 1e-4},
        **{"bf16": True, "batch_size": 8},
    }
    swift = find("ms_swift")().carry(
        {"model": "m", "train_type": "full", "max_length": 64}, devices=4
    )
    assert swift.recipe["train"] == {
        **{"max_length": 64, "overflow": "drop", "num_train_epochs": 3.0, "learning_rate": 1e-5},
        **{"lr_scheduler_type": "cosine", "weight_decay": 0.1, "adam_beta2": 0.95},
        "batch_size": 16,
    }
    axolotl = find("axolotl")().carry({"base_model": "m", "warmup_steps": 0.1})
    assert axolotl.recipe["train"].pop("bf16") is True
    assert axolotl.recipe["train"] == {
        **{"warmup_ratio": 0.1, "overflow": "drop", "max_length": 512, "batch_size": 1},
        "lr_scheduler_type": "cosine",
    }
    assert find("llama_factory")().carry({}).recipe["train"]["max_length"] == 2048


@pytest.mark.parametrize(
    ("tool", "given", "records"),
    [
        ("axolotl", {"gradient_accumulation_steps": 4}, 12),
        ("llama_factory", {"gradient_accumulation_steps": 4}, 96),
        ("ms_swift", {"gradient_accumulation_steps": 4}, 12),
        # What makes 16 of it, or more.
        ("ms_swift", {"per_device_train_batch_size": 2}, 18),
        ("ms_swift", {}, 18),
        (
            "ms_swift",
            {"per_device_train_batch_size": 2, "rlhf_type": "grpo", "num_generations": 2},
            3,
        ),
        # Of answers, which its trainer (TRL's) counts: three devices, eight each, of four to a problem.
        ("axolotl", {"micro_batch_size": 8, "rl": "grpo", "trl": {"num_generations": 4}}, 6),
    ],
)
def test_what_a_batch_is_where_half_of_it_is_said(
    tool: str, given: dict[str, Any], records: int
) -> None:
    found = find(tool)().carry(given, devices=3)
    assert found.recipe["train"]["batch_size"] == records
    assert not {"gradient_accumulation_steps", "per_device_train_batch_size"} & set(found.left)


def test_a_batch_of_answers_is_one_of_problems() -> None:
    given = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}
    more = {"num_generations": 16, "num_iterations": 2, "temperature": 0.7}
    found = find("trl")().carry(given | more, devices=8)
    assert found.recipe["train"]["batch_size"] == 16  # 256 answers
    assert found.recipe["rollout"] == more | {"max_completion_length": 512}
    swift = {"rlhf_type": "grpo", "num_generations": 4, "per_device_train_batch_size": 16}
    assert find("ms_swift")().carry(swift).recipe["train"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("given", "objective"),
    [
        ({"loss_type": "sigmoid", "beta": 0.2}, {"name": "dpo", "beta": 0.2}),
        (
            {"desirable_weight": 2.0},
            {"name": "kto", "baseline": "mismatched", "desirable_weight": 2.0},
        ),
        ({"precompute_ref_log_probs": True}, "dpo"),
    ],
)
def test_the_longest_completion_of_older_pairs_makes_no_grpo_of_them(
    given: dict[str, Any], objective: Any
) -> None:
    found = find("trl")().carry({**given, "max_completion_length": 128})
    assert found.recipe["objective"] == objective
    assert found.left["max_completion_length"] == 128


def test_rows_that_a_tool_puts_into_a_template_go_into_one_here(tmp_path: Path) -> None:
    info = {"chat": {"formatting": "sharegpt"}, "alpaca": {"file_name": "a.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    given = {"stage": "sft", "dataset": "chat,alpaca", "dataset_dir": str(tmp_path)}
    chat, alpaca = find("llama_factory")().carry(given).recipe["data"]
    assert (chat.get("as_messages"), alpaca["as_messages"]) == (None, True)
    (swift,) = find("ms_swift")().carry({"dataset": "a.jsonl"}).recipe["data"]
    (plain,) = (
        find("ms_swift")().carry({"dataset": "a.jsonl", "use_chat_template": False}).recipe["data"]
    )
    assert (swift["as_messages"], plain.get("as_messages")) == (True, None)
    found = find("axolotl")().carry({"datasets": [{"path": "a/b", "type": "alpaca"}]})
    assert any("type 'alpaca' puts Axolotl's words around a row" in note for note in found.notes)


def test_a_mixture_of_the_alignment_handbook() -> None:
    entry = {"id": "me/pairs", "config": "default", "split": "train_prefs", "weight": 1.0}
    given = {"dataset_mixture": {"datasets": [entry, entry | {"weight": 0.5}]}, "beta": 0.01}
    assert recognise(given) == "trl"
    found = find("trl")().carry(given)
    assert [one["path"] for one in found.recipe["data"]] == ["me/pairs"] * 2
    assert found.recipe["data"][0]["split"] == "train_prefs"
    assert "data pairs: weight could not be carried" in found.notes


def test_a_kernel_that_is_fast_is_not_carried_and_another_is() -> None:
    fast = find("trl")().carry({"attn_implementation": "flash_attention_2", "beta": 0.1})
    assert "attn_implementation" in fast.unneeded
    assert "attn_implementation" not in fast.recipe.get("model", {})
    plain = find("axolotl")().carry({"base_model": "m", "attn_implementation": "eager"})
    assert plain.recipe["model"]["attn_implementation"] == "eager"


def test_a_batch_of_packed_rows_is_told_to_be_one_of_many_records() -> None:
    packed = {"sample_packing": True, "sequence_len": 8192, "micro_batch_size": 2}
    found = find("axolotl")().carry({"base_model": "m", **packed}, devices=4)
    assert "packing: a step there is 8 rows of up to 8192 tokens" in found.notes[0]
    assert "set it to 65536 / the mean tokens of a record" in found.notes[0]
    pairs = find("axolotl")().carry({"base_model": "m", "rl": "dpo", **packed})
    assert not any("packing:" in note for note in pairs.notes)
    text = find("llama_factory")().carry({"stage": "pt", "cutoff_len": 512})  # of itself
    assert "packing: a step there is 8 rows of up to 512 tokens" in text.notes[0]
    apart = find("llama_factory")().carry({"stage": "sft", "cutoff_len": 512})
    assert not any("packing:" in note for note in apart.notes)


def test_a_trainer_that_nothing_names_is_told() -> None:
    silent = find("trl")().carry({"dataset_name": "a/b", "learning_rate": 5e-7})
    assert silent.recipe["objective"] == "sft"
    assert "nothing here names the trainer: read as SFT's" in silent.notes[-1]
    compared = find("trl")().carry({"dataset_name": "a/b", "beta": 0.1})
    assert "of KTO, ORPO, CPO or GRPO name the objective yourself" in compared.notes[-1]


MEANT: list[tuple[str, dict[str, Any], Any]] = [
    ("trl", {"loss_type": "robust", "beta": 0.2}, {"name": "dpo", "beta": 0.2}),
    ("trl", {"loss_type": "bco_pair"}, {"name": "bco", "shift": "zero"}),
    ("trl", {"loss_type": "apo_zero_unpaired"}, {"name": "kto", "baseline": "zero"}),
    (
        "trl",
        {"loss_type": "apo_zero_unpaired", "desirable_weight": 1.3},
        {"name": "kto", "baseline": "zero", "desirable_weight": 1.3},
    ),
    ("trl", {"loss_type": ["sigmoid"]}, "dpo"),
    ("ms_swift", {"rlhf_type": "kto"}, {"name": "kto", "baseline": "mismatched"}),
    ("ms_swift", {"rlhf_type": "grpo", "loss_type": "sapo"}, "to be named"),
    ("ms_swift", {"rlhf_type": "grpo", "advantage_estimator": "rloo"}, "to be named"),
    ("axolotl", {"process_reward_model": True}, "to be named"),
    ("axolotl", {"rl": "dpo", "rl_beta": 0}, {"name": "dpo", "beta": 0}),
    ("llama_factory", {"stage": "sft", "use_eaft_loss": True}, "to be named"),
]


@pytest.mark.parametrize(("tool", "given", "objective"), MEANT, ids=str)
def test_a_loss_is_carried_by_what_it_is_there(
    tool: str, given: dict[str, Any], objective: Any
) -> None:
    """By the tools' own code: TRL 1.16's `dpo_trainer.py` and `kto_trainer.py`, ms-swift's arguments."""
    assert find(tool)().carry(given).recipe["objective"] == objective


@pytest.mark.parametrize(
    ("tool", "given", "longest"),
    [
        ("trl", {"num_generations": 8, "max_completion_length": 1024}, 2048),
        ("trl", {"num_generations": 8, "max_prompt_length": 300}, 812),
        ("ms_swift", {"rlhf_type": "grpo", "max_length": 2048}, 2560),
        ("axolotl", {"rl": "grpo", "sequence_len": 512, "trl": {"max_completion_length": 64}}, 576),
    ],
)
def test_there_is_room_for_a_prompt_and_its_answer(
    tool: str, given: dict[str, Any], longest: int
) -> None:
    found = find(tool)().carry(given)
    assert found.recipe["train"]["max_length"] == longest
    assert any("max_length is of a prompt and its answer" in note for note in found.notes)
    if tool == "ms_swift":  # its own default for GRPO
        assert found.recipe["train"]["overflow"] == "truncate_prompt"


def test_numbers_are_read_as_people_write_them() -> None:
    given = yaml.safe_load(
        "{max_steps: 1e3, per_device_train_batch_size: '4', num_train_epochs: 5}"
    )
    train = find("trl")().carry(given).recipe["train"]
    assert (train["max_steps"], train["batch_size"]) == (1000, 4)
    assert "num_train_epochs" not in train
    text = find("trl")().carry({"lr_scheduler_kwargs": '{"min_lr_rate": 0.1}'})
    assert text.recipe["train"]["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}
    unread = find("trl")().carry({"per_device_train_batch_size": "$((64/N))"})
    assert "the batch could not be read, and train.batch_size is our default, 32" in unread.notes
    legacy = find("axolotl")().carry({"base_model": "m", "batch_size": 64, "micro_batch_size": 4})
    assert legacy.recipe["train"]["batch_size"] == 64
    odd = find("ms_swift")().carry(
        {"rlhf_type": "grpo", "num_generations": 8, "per_device_train_batch_size": 12}
    )
    assert any("12 answers of a step, 8 to a problem, which makes 8 here" in n for n in odd.notes)


@pytest.mark.parametrize("key", ["eval_steps", "save_steps", "logging_steps"])
def test_a_part_of_the_run_is_no_number_of_steps(key: str) -> None:
    found = find("axolotl")().carry({"base_model": "m", key: 0.05})
    assert key not in found.recipe["train"]
    assert f"{key} 0.05 of the run: give train.{key} in steps" in found.notes


def test_a_switch_that_is_off_is_told_where_on_is_usual() -> None:
    given = {"shuffle_dataset": False, "disable_dropout": False, "save_only_model": False}
    assert set(find("trl")().carry(given).left) == {"shuffle_dataset", "disable_dropout"}


def test_layers_with_adapters() -> None:
    silent = find("trl")().carry({"use_peft": True})
    assert any("those that PEFT has for the model" in note for note in silent.notes)
    for tool in ("ms_swift", "llama_factory"):
        everywhere = find(tool)().carry({"lora_rank": 8})
        assert not any("linear layers" in note for note in everywhere.notes)
    one = find("llama_factory")().carry({"lora_target": "q_proj"})
    assert one.recipe["model"]["lora"]["target_modules"] == ["q_proj"]
    both = {"lora_target_linear": True, "lora_target_modules": ["embed_tokens", "q_proj"]}
    found = find("axolotl")().carry({"base_model": "m", "adapter": "lora", **both})
    assert any("lora_target_modules embed_tokens, beside" in note for note in found.notes)


def test_an_adapter_that_is_trained_on_has_its_own_shape(tmp_path: Path) -> None:
    given = {
        **{"model_name_or_path": "m", "adapter_name_or_path": "saves/sft", "lora_rank": 8},
        **{"stage": "dpo", "finetuning_type": "lora"},
    }
    found = find("llama_factory")().carry(given)
    assert found.recipe["model"] == {"name": "saves/sft"}
    assert any("Of DPO and KTO the reference there is" in note for note in found.notes)
    assert (
        "adapter_name_or_path"
        in find("llama_factory")().carry({**given, "adapter_name_or_path": "a,b"}).left
    )


def test_llama_factory_s_thumbs_and_pictures(tmp_path: Path) -> None:
    """`kto_mix_en` and `rlaif_v` of its own `dataset_info.json`."""
    columns = {"messages": "messages", "kto_tag": "label", "images": "images"}
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"a": {"formatting": "sharegpt", "columns": columns}})
    )
    given = {"stage": "kto", "dataset": ["a"], "interleave_probs": [0.5], "dataset_dir": tmp_path}
    found = find("llama_factory")().carry(given)
    (stream,) = found.recipe["data"]
    assert stream["weight"] == 0.5
    assert stream["columns"] == {"messages": "messages", "label": "label"}
    assert "data a: images could not be carried" in found.notes


@pytest.mark.parametrize("given", ["a.jsonl", ["a.jsonl"], {"path": "a.jsonl"}])
@pytest.mark.parametrize("tool", ["axolotl", "trl"])
def test_data_sets_are_read_in_each_shape(tool: str, given: Any) -> None:
    (stream,) = find(tool)().carry({"datasets": given}).recipe["data"]
    assert stream["path"] == "a.jsonl"


def test_what_is_no_table_or_list_is_one_error() -> None:
    with pytest.raises(RecipeError, match=r"datasets must be a list of data sets.*found 5"):
        find("axolotl")().carry({"datasets": [5]})
    with pytest.raises(RecipeError, match=r"special_tokens must be a table .* found '<pad>'"):
        find("axolotl")().carry({"base_model": "m", "special_tokens": "<pad>"})


def test_other_tools_are_not_taken_for_one_of_these() -> None:
    """torchtune's and OpenRLHF's keys, of which some are ms-swift's or LLaMA-Factory's, too."""
    for given in ({"model": {}, "dataset": {}, "tokenizer": {}}, {"lora_rank": 8, "pretrain": "m"}):
        with pytest.raises(RecipeError, match="say whose it is: --from NAME"):
            recognise(given)


def test_what_trl_draws_of_itself_for_rloo() -> None:
    """TRL's `RLOOConfig`: two answers to a problem, 8 a device, of 512 tokens."""
    given = {"dataset_name": "a/b", "per_device_train_batch_size": 6}
    assert find("trl")().carry(given, command="trl rloo").recipe["train"]["batch_size"] == 3
    found = find("trl")().carry({"dataset_name": "a/b"}, devices=2, command="trl rloo").recipe
    assert found["objective"] == {"name": "rloo", "beta": 0.05}
    assert found["rollout"] == {"num_generations": 2, "max_completion_length": 512}
    assert found["train"]["batch_size"] == 8
