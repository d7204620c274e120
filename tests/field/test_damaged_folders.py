"""Folders that are not what they say: refused in one sentence at every door, or loaded exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import damaged
from support.tiny import make_tokenizer, write_rows
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

import onestage as one
from onestage import models
from onestage.cli._terminal import app
from onestage.config import RecipeError
from onestage.models import Model
from onestage.models.loading import LONGEST, LoadError, reason
from onestage.models.start import prepare
from onestage.runfolder import silent

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROWS = [{"prompt": "a", "completion": " b"}] * 4
READ_EXACTLY = {"quantised in an unknown way", "tokenizer of an unknown class"}
"""What is odd beside the weights, and changes nothing: the model is the undamaged one."""
NAMED = {
    "7 of 21 tensors missing": "7 weights (lm_head.weight, model.layers.0.mlp.down_proj.weight",
    "1 tensor missing": "1 weight (lm_head.weight) missing",
    "head missing, tying switched off": "1 weight (lm_head.weight) missing",
    "tensors of another architecture": "self_attn.k_proj.weight",
    "a tensor too many": "1 weight (extra) not known to the model",
    "a layer too many": "9 weights (model.layers.1.",
    "a layer too few": "9 weights (model.layers.2.",
    "tensors of another shape": "mlp.up_proj.weight (63, 32) for (64, 32)",
    "a shard missing": "model-00002-of-00004.safetensors",
    "a shard not in the index": "model.layers.1.mlp.down_proj.weight",
    "code of its own": "set model.trust_remote_code: true",
    "no tokenizer": "name one in model.tokenizer",
    "encoder and decoder (T5)": "type t5, which does not write from left to right",
    "encoder only (BERT)": "type bert, which does not write from left to right",
    "half of the tensors": "q_proj.lora_A.weight",
    "no tensors": "8 weights (",
    "more targets than tensors": "k_proj.lora_A.weight",
    "a tensor too many (adapter)": "lm_head.lora_A.weight",
    "tensors of another shape (adapter)": "size mismatch for base_model.model.model.layers.0.self_attn",
    "unknown peft_type": "did you mean 'LORA'?",
    "an option nobody knows": "use_magic",
    "a target that the base has not": "target_modules names z_proj",
    "no base named": "base_model_name_or_path",
}
"""What the sentence must hold."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damaged.whole(tmp_path_factory.mktemp("whole") / "base")


@pytest.fixture(scope="module")
def sound(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damaged.adapter(base, tmp_path_factory.mktemp("sound") / "adapter")


def errors_of(folder: Path) -> list[str]:
    """What `onestage.check` says that `train` would refuse."""
    checked = one.check(model=str(folder), data=ROWS, train={"max_steps": 1}, objective="sft")
    return [line for run in checked for line in run.findings.errors]


def refused(do: Callable[[], object], name: str) -> None:
    """In one sentence that a user sees without a traceback, and that names what is wrong."""
    with pytest.raises((ValueError, OSError, ImportError)) as told:
        do()
    said = str(told.value)
    assert "\n" not in said
    assert 20 < len(said) < LONGEST + 500
    assert NAMED.get(name, "") in said


def hurt(whole: Path, folder: Path, damage: damaged.Damage) -> Path:
    shutil.copytree(whole, folder)
    damage(folder)
    return folder


def train(folder: Path, out: Path) -> None:
    recipe: dict[str, Any] = {"data": ROWS, "train": {"max_steps": 1}, "objective": "sft"}
    one.train(model=str(folder), out=out, say=silent, **recipe)


MODELS = [n for n in damaged.MODELS if n not in READ_EXACTLY | {"images and text (Gemma 3)"}]


@pytest.mark.parametrize("name", MODELS)
def test_a_damaged_model_is_refused(name: str, base: Path, tmp_path: Path) -> None:
    folder = hurt(base, tmp_path / "model", damaged.MODELS[name])
    if name != "tokenizer is ByT5":  # which is enough to ask a model
        refused(lambda: one.load(folder), name)
    refused(lambda: train(folder, tmp_path / "out"), name if name in NAMED else "")
    assert not (tmp_path / "out" / "model").exists()
    assert all("\n" not in line for line in errors_of(folder))


@pytest.mark.parametrize("name", damaged.ADAPTERS)
def test_a_damaged_adapter_is_refused(name: str, sound: Path, tmp_path: Path) -> None:
    folder = hurt(sound, tmp_path / "adapter", damaged.ADAPTERS[name])
    said = f"{name} (adapter)" if name in damaged.MODELS else name
    refused(lambda: one.load(folder), said)
    refused(lambda: train(folder, tmp_path / "out"), said)
    model = Model(name=str(folder), adapter="merge")
    refused(lambda: prepare(model, make_tokenizer(), tmp_path / "start", 0, keep=False), said)
    assert not (tmp_path / "start").exists()
    stacked = Model(name=str(folder), adapter="stack", lora=one.Lora(r=2))
    refused(lambda: models.load(stacked), said)


@pytest.mark.parametrize("name", ["weights cut short", "no weights", "a shard missing", "0 heads"])
def test_check_knows_before_any_weights_are_read(name: str, base: Path, tmp_path: Path) -> None:
    (line,) = errors_of(hurt(base, tmp_path / "model", damaged.MODELS[name]))
    assert str(tmp_path) in line


@pytest.mark.parametrize("name", sorted(READ_EXACTLY))
def test_what_is_odd_and_harmless_is_read_exactly(name: str, base: Path, tmp_path: Path) -> None:
    folder = hurt(base, tmp_path / "model", damaged.MODELS[name])
    mine, theirs = one.load(folder).model.state_dict(), one.load(base).model.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_the_command_line_says_one_line(base: Path, tmp_path: Path) -> None:
    folder = hurt(base, tmp_path / "model", damaged.MODELS["7 of 21 tensors missing"])
    recipe = {"model": str(folder), "objective": "sft", "train": {"max_steps": 1}}
    recipe["data"] = {"rows": str(write_rows(tmp_path / "rows.jsonl", ROWS))}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "is not whole: 7 weights (lm_head.weight, " in result.output
    assert "Traceback" not in result.output


def test_the_text_part_of_a_model_of_images_is_used_and_said(tmp_path: Path) -> None:
    """Its logits are those of the whole model for text, before and (LoRA, law 8) after training."""
    folder = damaged.whole(tmp_path / "model")
    damaged.other(damaged.nested)(folder)
    whole: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert type(whole).__name__ == "Gemma3ForConditionalGeneration"
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        wanted = whole.eval()(input_ids=ids).logits
        torch.testing.assert_close(one.load(folder).model(ids).logits, wanted)
    said: list[str] = []
    recipe: dict[str, Any] = {"data": ROWS, "objective": "sft", "train": {"max_steps": 2}}
    done = one.train(
        model=str(folder), lora={"r": 2}, out=tmp_path / "out", say=said.append, **recipe
    )
    told = f"{tmp_path / 'out' / 'start'}"
    assert any("Gemma3ForConditionalGeneration; its text part is used" in line for line in said)
    from peft import PeftModel

    plain: Any = AutoModelForCausalLM.from_pretrained(told)
    assert type(plain).__name__ == "Gemma3ForCausalLM"
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(ids).logits, wanted)
        adapted = PeftModel.from_pretrained(plain, done.model).eval()
        torch.testing.assert_close(adapted(ids).logits, done.policy.model(ids).logits)


def test_a_new_head_for_rewards_is_no_missing_weight(base: Path, tmp_path: Path) -> None:
    """The head of the language model is not used, and that of rewards not there yet."""
    for tied in (True, False):
        config = LlamaConfig(**(damaged.TINY | {"tie_word_embeddings": tied}))
        folder = tmp_path / f"{tied}"
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        loaded = models.load(Model(name=str(folder), task="reward"))
        assert loaded.model.score.out_features == 1
    damaged.tensors(damaged.without(2, 1))(folder)  # the head that is not used, and another
    with pytest.raises(LoadError, match=r"1 weight \(model.embed_tokens.weight\) missing"):
        models.load(Model(name=str(folder), task="reward"))


def test_a_library_is_quoted_in_a_line() -> None:
    assert reason(KeyError("added_tokens")) == "KeyError: 'added_tokens'"
    assert reason(ValueError("one\n  two.")) == "one two"
    assert reason(ZeroDivisionError()) == "ZeroDivisionError"
    assert len(reason(ValueError("x" * 1000))) == LONGEST + 3


def test_targets_that_are_not_there_are_refused_for_fresh_adapters(base: Path) -> None:
    rows: Any = {"data": ROWS, "objective": "sft"}
    lora = {"target_modules": ["q_proj", "z_proj"]}
    (checked,) = one.check(model=str(base), lora=lora, **rows)
    (line,) = checked.findings.errors
    assert "model.lora: target_modules names z_proj, and the base has no such part" in line
    with pytest.raises(RecipeError, match="unknown key"):
        one.check(model=str(base), lora={"ignore_missing": True}, **rows)
