"""Models in: by name, in memory, to be asked; and how they are told apart."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from support.tiny import TINY, make_tokenizer, sharpen, tiny_llama, token_path
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    Mamba2Config,
)

from onestage import models
from onestage.data.packing import pack
from onestage.models import Lora, Model, Policy, load
from onestage.models.adapters import adapted
from onestage.models.endings import settings_of
from onestage.models.fingerprint import digest_files, same_weights
from onestage.models.lent import lent
from onestage.models.merge.into_base import open_whole
from onestage.models.reward_model import READS, settle
from onestage.models.save import save_model
from onestage.models.source import check_trained, config_of, tokenizer_of
from onestage.rollout.engines.transformers import end_ids

ROW = pack([[token_path([0, 5, 6, 7, 8, 1], (2, 6))]], 100)[0]


def plain_llama() -> Any:
    """As a user has it: with the attention that transformers chooses, and dropout."""
    torch.manual_seed(0)
    return sharpen(AutoModelForCausalLM.from_config(LlamaConfig(**TINY, attention_dropout=0.1)))


def test_the_door_is_light() -> None:
    heavy = (
        "import sys, onestage.models as m; m.Model(name='x'); print('transformers' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["./none", "/none/here", "~/none", "runs/none/model"])
def test_a_folder_that_is_not_there_is_not_taken_for_a_hub_id(
    name: str, model_folder: Path
) -> None:
    with pytest.raises(ValueError, match=rf"model\.name: nothing at {name}; give a folder"):
        config_of(Model(name=name))
    with pytest.raises(ValueError, match=rf"model\.config: nothing at {name}; give a folder"):
        config_of(Model(config=name, tokenizer=str(model_folder)))
    with pytest.raises(ValueError, match=rf"model\.tokenizer: nothing at {name}; give a folder"):
        tokenizer_of(Model(name=str(model_folder), tokenizer=name))


def test_what_holds_no_model_is_told_apart(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    for look in (config_of, tokenizer_of):
        with pytest.raises(
            ValueError, match=r"model\.gguf is a file \(GGUF is what llama\.cpp runs"
        ):
            look(Model(name=str(file)))
        with pytest.raises(ValueError, match=r"holds no model .no config\.json"):
            look(Model(name=str(tmp_path)))
    run = tmp_path / "run"
    shutil.copytree(model_folder, run / "model")
    with pytest.raises(ValueError, match=f"holds no model .*; give {run / 'model'}"):
        config_of(Model(name=str(run)))
    (run / "model" / "model.safetensors").rename(run / "model" / "model.gguf")
    with pytest.raises(ValueError, match=r"holds no weights .*, only GGUF"):
        check_trained(Model(name=str(run / "model")))
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "/nowhere/x",
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(ValueError, match=r"is an adapter of /nowhere/x, which cannot be had"):
        config_of(Model(name=str(tmp_path)))


def test_a_chat_template_that_is_no_jinja_is_refused_though_no_row_asks_for_it(
    model_folder: Path,
) -> None:
    with pytest.raises(ValueError, match=r"model\.chat_template is no Jinja: line 1"):
        tokenizer_of(Model(name=str(model_folder), chat_template="{{ broken"))


def test_every_name_of_the_door_is_there() -> None:
    for name in models.__all__:
        assert getattr(models, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = models.laod


def test_an_opened_model_says_what_the_saved_one_says(tmp_path: Path) -> None:
    model = tiny_llama()
    save_model(model, make_tokenizer(), tmp_path / "model")
    policy = models.open(tmp_path / "model", dtype="float32")
    assert not policy.training
    assert policy.tokenizer.get_vocab() == make_tokenizer().get_vocab()
    with torch.no_grad():
        ids = torch.from_numpy(ROW.paths[0].ids.astype(np.int64))
        logp = torch.log_softmax(model(ids[None]).logits[0], -1)[torch.arange(1, 5), ids[2:]]
        torch.testing.assert_close(policy(ROW), logp, atol=1e-5, rtol=0)


def test_a_given_model_is_trained_whole_where_no_adapter_is_asked_for() -> None:
    model = plain_llama()
    packing = model.model.layers[0].mlp.up_proj  # as a layer of bitsandbytes would be (`four_bits`)
    packing.support_avx512bf16_for_cpu = True
    loaded = models.given(model, make_tokenizer())
    assert not packing.support_avx512bf16_for_cpu
    assert loaded.model is model
    assert model.config._attn_implementation == "onestage_forest"
    assert all(layer.self_attn.attention_dropout == 0.0 for layer in model.model.layers)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert loaded.fingerprint == models.given(plain_llama(), make_tokenizer()).fingerprint
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    assert models.given(model, make_tokenizer()).fingerprint != loaded.fingerprint


@pytest.mark.parametrize("padding", [None, 3])
def test_what_a_reward_model_is_told_of_padding_is_taken_back(padding: int | None) -> None:
    config = LlamaConfig(**{**TINY, "pad_token_id": padding}, num_labels=1)
    model, tokenizer = AutoModelForSequenceClassification.from_config(config), make_tokenizer()

    def told() -> tuple[Any, ...]:
        return model.config.pad_token_id, tokenizer.pad_token, tokenizer.init_kwargs.get(READS)

    was = told()
    with lent(model, tokenizer):
        settle(model, tokenizer)
        assert told() != was
    assert told() == was
    assert READS not in tokenizer.init_kwargs


def test_the_same_model_by_name_has_the_same_fingerprint(tmp_path: Path) -> None:
    save_model(plain_llama(), make_tokenizer(), tmp_path / "model")
    by_name = models.load(Model(name=str(tmp_path / "model")))
    assert by_name.fingerprint == models.given(plain_llama(), make_tokenizer()).fingerprint


def test_adapters_of_a_given_model_have_a_base_to_go_back_to(tmp_path: Path) -> None:
    """Saved after training, and reloaded by plain PEFT on the base that was written (law 8)."""
    started = models.given(
        plain_llama(), make_tokenizer(), lora=Lora(r=2), base=tmp_path / "start", seed=3
    )
    assert started.fingerprint == models.given(plain_llama(), make_tokenizer()).fingerprint
    trained = {name for name, p in started.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    policy = Policy(started.model)
    with torch.no_grad():
        torch.testing.assert_close(policy(ROW), Policy(plain_llama().eval())(ROW))
        for name, parameter in started.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        mine = policy(ROW)
    save_model(started.model, started.tokenizer, tmp_path / "model")
    base: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
    reloaded = PeftModel.from_pretrained(base, str(tmp_path / "model"))
    config = reloaded.peft_config["default"]
    assert config.base_model_name_or_path == str((tmp_path / "start").resolve())
    with torch.no_grad():
        torch.testing.assert_close(Policy(reloaded.eval())(ROW), mine, atol=1e-5, rtol=0)
        torch.testing.assert_close(models.open(tmp_path / "model")(ROW), mine, atol=1e-5, rtol=0)


def test_a_given_reward_model_is_settled() -> None:
    config = LlamaConfig(**{**TINY, "num_labels": 1})
    model: Any = AutoModelForSequenceClassification.from_config(config)
    loaded = models.given(model, make_tokenizer())
    assert Policy(loaded.model).gives == {"reward"}
    assert model.config.pad_token_id != loaded.tokenizer.eos_token_id


def test_what_cannot_be_given_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a folder for their base"):
        models.given(plain_llama(), make_tokenizer(), lora=Lora())
    adapted = models.given(plain_llama(), make_tokenizer(), lora=Lora(r=2), base=tmp_path / "a")
    with pytest.raises(ValueError, match="has adapters already"):
        models.given(adapted.model, make_tokenizer(), lora=Lora(), base=tmp_path / "b")
    small: Any = AutoModelForCausalLM.from_config(LlamaConfig(**{**TINY, "vocab_size": 100}))
    with pytest.raises(ValueError, match="do not belong together"):
        models.given(small, make_tokenizer())


def test_another_reference_is_held_as_the_model_is() -> None:
    mine = Model(
        name="a", lora=Lora(), dtype="bfloat16", revision="v1", gradient_checkpointing=True
    )
    assert models.reference_of(mine, "start") is None
    other = models.reference_of(mine, "b")
    assert other == Model(name="b", dtype="bfloat16")
    assert models.reference_of(mine, "a") == Model(name="a", dtype="bfloat16", revision="v1")


def test_the_digest_of_files_sees_names_and_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("one.json", "two.json"):
            (tmp_path / folder / name).write_text(name)
    first, second = (digest_files((tmp_path / folder).glob("*")) for folder in ("a", "b"))
    assert first == second
    (tmp_path / "b" / "two.json").write_text("2")
    assert digest_files((tmp_path / "b").glob("*")) != first
    (tmp_path / "a" / "two.json").rename(tmp_path / "a" / "three.json")
    assert digest_files((tmp_path / "a").glob("*")) != first


def test_adapters_that_kernels_would_pass_by_are_refused_with_where_they_can_lie() -> None:
    sizes = {"num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 8}
    config = Mamba2Config(vocab_size=400, hidden_size=32, num_hidden_layers=1, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        with pytest.raises(
            ValueError, match=r"out_proj or conv1d of a mamba2.*set it to \[in_proj\]"
        ):
            adapted(Lora(r=2), model)


def ends_of(folder: Path) -> Any:
    return json.loads((folder / "generation_config.json").read_text()).get("eos_token_id")


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("known", [None, 7, 1])
def test_a_model_ends_at_what_its_rows_end_with(
    tmp_path: Path, template: bool, known: int | None
) -> None:
    """Saved settings lacked the tokenizer's EOS, where the base named no end or another one."""
    base, out = tmp_path / "base", tmp_path / "out"
    model, tokenizer = tiny_llama(), make_tokenizer() if template else make_tokenizer(chat=None)
    model.config.eos_token_id = model.generation_config.eos_token_id = known
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    loaded = load(Model(name=str(base)))
    save_model(loaded.model, loaded.tokenizer, out)
    want = {None: [1], 7: [7, 1], 1: 1}[known]
    assert ends_of(out) == want
    adapter = load(Model(name=str(base), lora={"r": 2}))
    save_model(adapter.model, adapter.tokenizer, tmp_path / "adapter")
    if known != 1:
        assert ends_of(tmp_path / "adapter") == want


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_fresh_model_has_its_tokenizer_s_special_tokens(tmp_path: Path, kind: str) -> None:
    """Those of its class are of another vocabulary: Llama's end, 2, is a "!" here."""
    make_tokenizer(chat=None).save_pretrained(tmp_path / "tokenizer")
    shape = {k: v for k, v in TINY.items() if not k.endswith("token_id")}
    section = {"model_type": kind, **shape}
    tokenizer = str(tmp_path / "tokenizer")
    loaded = load(Model(config=section, tokenizer=tokenizer))
    assert end_ids(loaded.model, loaded.tokenizer) == [1]
    assert loaded.model.config.eos_token_id == loaded.model.generation_config.eos_token_id == 1
    assert loaded.model.config.bos_token_id == loaded.tokenizer.bos_token_id
    given = load(Model(config={**section, "eos_token_id": 9}, tokenizer=tokenizer))
    assert given.model.generation_config.eos_token_id == [9, 1]


def test_what_lies_beside_an_adapter_is_how_it_ends(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny_llama().save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    first = load(Model(name=str(base), lora={"r": 2}))
    first.model.peft_config["default"].base_model_name_or_path = str(base)
    save_model(first.model, first.tokenizer, adapter)
    told = {"eos_token_id": [1, 5], "temperature": 0.3, "do_sample": True}
    (adapter / "generation_config.json").write_text(json.dumps(told))
    for model in (load(Model(name=str(adapter))).model, open_whole(str(adapter)).model):
        settings = settings_of(model)
        assert (settings.eos_token_id, settings.temperature) == ([1, 5], 0.3)


def test_a_model_is_known_by_its_settings_too(tmp_path: Path) -> None:
    """What a reference said is kept by the fingerprint: it was found again for another context."""
    folder, file = tmp_path / "base", tmp_path / "base" / "config.json"
    tiny_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    first = load(Model(name=str(folder))).fingerprint
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "eos_token_id": 7, "use_cache": False}))
    assert load(Model(name=str(folder))).fingerprint == first
    told = {**plain["rope_parameters"], "rope_theta": 17.0}
    file.write_text(json.dumps({**plain, "rope_parameters": told}))
    turned = load(Model(name=str(folder))).fingerprint
    assert turned != first
    assert same_weights(turned, first)
    assert same_weights(first, "-".join(first.split("-")[:2]))  # as earlier versions wrote it
    file.write_text(json.dumps(plain))
    loaded = load(Model(name=str(folder), lora={"r": 2}))
    assert loaded.fingerprint == first  # fresh adapters change nothing
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            weight.add_(0.1 if "lora_" in name else 0)
    loaded.model.peft_config["default"].base_model_name_or_path = str(folder)
    save_model(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    before = load(Model(name=str(tmp_path / "adapter"))).fingerprint
    said = tmp_path / "adapter" / "adapter_config.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | {"lora_alpha": 99}))
    assert load(Model(name=str(tmp_path / "adapter"))).fingerprint != before
