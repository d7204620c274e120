"""What becomes of a model after it was trained: nothing is lost, and nothing is another model's.

Against plain transformers and PEFT.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.tiny import make_tokenizer, tiny_llama
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    MixtralConfig,
    RecurrentGemmaConfig,
)
from typer.testing import CliRunner

from onestage.cli import app
from onestage.models.endings import settle, stop_at_markers, unread
from onestage.models.export import merged_weights
from onestage.models.release.gguf_header import header
from onestage.models.release.serving import by_vllm
from onestage.models.release.upload import parcel_of
from onestage.models.save import save_model
from onestage.rollout.engines import Decoding, Request
from onestage.rollout.engines.transformers import Transformers


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def whole(folder: Path, generation: dict[str, Any] | None = None, **config: Any) -> Path:
    model = tiny_llama()
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    edit(folder / "config.json", **config)
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def adapter_of(base: Path, folder: Path, **options: Any) -> Path:
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options}
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


ODD = [
    {"temperature": 0.6, "top_p": 0.9},
    {"do_sample": False, "temperature": 0.7},
    {"pad_token_id": -1},
    {"early_stopping": True, "length_penalty": 2.0},
    {"typical_p": 0.9},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("adapted", [False, True])
def test_weights_do_not_wait_for_settings_that_transformers_will_not_write(
    odd: dict[str, Any], adapted: bool, tmp_path: Path
) -> None:
    """A run was lost at its end, for a temperature without do_sample in its base's folder."""
    base = whole(tmp_path / "base", odd)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    if adapted:
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    settings = model.generation_config
    settings.eos_token_id = [1, 3]  # which makes them changed ones
    save_model(model, make_tokenizer(), tmp_path / "out")
    read = GenerationConfig.from_pretrained(tmp_path / "out").to_dict()
    assert {name: read[name] for name in odd} == odd
    assert read["eos_token_id"] == [1, 3]
    assert model.generation_config is settings
    if not adapted:
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
        assert all(torch.equal(saved[name], w) for name, w in model.state_dict().items())
        call("merge", adapter_of(base, tmp_path / "a"), "--out", tmp_path / "merged")
        call("export", tmp_path / "out", "--out", tmp_path / "exported")


def test_nor_for_settings_in_the_configuration_itself(tmp_path: Path) -> None:
    base = whole(tmp_path / "base", None, temperature=0.6, auto_map={"AutoConfig": "x.Config"})
    (base / "generation_config.json").unlink()
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    save_model(model, make_tokenizer(), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "temperature" not in told
    # Of code that was not used and does not lie there, transformers would raise an error.
    assert "auto_map" not in told
    AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)


@pytest.mark.parametrize("given", [{"top_k": 50, "temperature": 1.0}, {"temperature": 0.7}])
def test_who_says_greedy_stays_greedy(given: dict[str, Any]) -> None:
    model = tiny_llama()
    model.generation_config = GenerationConfig(do_sample=False, **given)
    settle(model, make_tokenizer(), {})
    assert model.generation_config.do_sample is False
    settle(model, make_tokenizer(), {"temperature": 0.5})
    assert model.generation_config.do_sample is True


def test_settings_that_no_engine_reads_are_told() -> None:
    model = tiny_llama()
    model.generation_config = GenerationConfig(repetition_penalty=1.5, suppress_tokens=[3])
    stop_at_markers(model, make_tokenizer())
    assert unread(model) == ["repetition_penalty 1.5", "suppress_tokens [3]"]
    model.generation_config = GenerationConfig(temperature=0.5, repetition_penalty=1.0)
    assert unread(model) == []


def test_ends_and_sampling_of_several_are_kept(tmp_path: Path) -> None:
    said = {"do_sample": True, "temperature": 0.3, "eos_token_id": [1, 5]}
    base = whole(tmp_path / "base")
    two = [whole(tmp_path / name, said) for name in ("a", "b")]
    words = ("--base", base, "--method", "task_arithmetic")
    call("merge", *two, *words, "--out", tmp_path / "one")
    read = GenerationConfig.from_pretrained(tmp_path / "one")
    assert 5 in read.eos_token_id
    assert (read.do_sample, read.temperature) == (True, 0.3)
    edit(two[1] / "generation_config.json", temperature=0.9)
    text = call("merge", *two, *words, "--out", tmp_path / "two")
    assert "the models are sampled differently" in text
    assert 5 in GenerationConfig.from_pretrained(tmp_path / "two").eos_token_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rms_norm_eps", 1e-3),
        ("hidden_act", "gelu"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e6}),
    ],
)
def test_models_that_compute_differently_are_not_averaged(
    name: str, value: Any, tmp_path: Path
) -> None:
    one, other = whole(tmp_path / "a"), whole(tmp_path / "b", **{name: value})
    text = call("merge", one, other, "--out", tmp_path / "out", code=1)
    assert f"models that compute differently: {name} is" in text
    alike = whole(tmp_path / "c", attention_dropout=0.5, initializer_range=1.0)
    call("merge", one, alike, "--out", tmp_path / "out")


def test_whose_tokenizer_is_taken_is_told(tmp_path: Path) -> None:
    one, other = whole(tmp_path / "a"), whole(tmp_path / "b")
    make_tokenizer(chat="{{ messages }}").save_pretrained(other)
    text = call("merge", one, other, "--out", tmp_path / "out")
    assert "has another chat template, end of text or beginning, which is not used" in text


def test_a_base_that_has_moved_is_found_everywhere(tmp_path: Path) -> None:
    old = whole(tmp_path / "old")
    adapter = adapter_of(old, tmp_path / "a")
    new = old.rename(tmp_path / "new")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "one", "completion": " two"}) + "\n")
    call("merge", adapter, "--base", new, "--data", rows, "--out", tmp_path / "out")
    assert by_vllm(str(adapter), str(new)).words[2] == str(new)


def test_an_adapter_with_another_end_is_served_with_its_tokenizer(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    adapter = adapter_of(base, tmp_path / "a")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(adapter)
    assert "--tokenizer" not in by_vllm(str(adapter)).words
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(5)
    tokenizer.save_pretrained(adapter)
    assert "--tokenizer" in by_vllm(str(adapter)).words


def test_experts_with_several_adapters_are_handed_over_by_their_own_names() -> None:
    """PEFT puts a wrapper into the other for each parameter of one module."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(
        MixtralConfig(
            **{"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24},
            **{"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1},
            num_local_experts=2,
        )
    )
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    options = {"target_modules": ["q_proj"], "target_parameters": experts}
    adapted: Any = get_peft_model(
        copy.deepcopy(plain), LoraConfig(r=2, task_type="CAUSAL_LM", **options)
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    found = {name: tensor.clone() for name, tensor in merged_weights(adapted)}
    assert all(torch.equal(before[name], w) for name, w in adapted.state_dict().items())
    wanted = dict(adapted.merge_and_unload().named_parameters())
    assert found.keys() == wanted.keys() == dict(plain.named_parameters()).keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


def test_an_adapter_is_added_to_bfloat16_with_one_rounding(tmp_path: Path) -> None:
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    adapter = adapter_of(tmp_path / "base", tmp_path / "a")
    call("merge", adapter, "--out", tmp_path / "out")
    base: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    exact = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict().items():
        assert torch.equal(tensor, exact[name].to(torch.bfloat16)), name


def test_a_batch_of_a_recurrence_that_reads_padding_is_of_one_length() -> None:
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "lru_width": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": len(tokenizer)}
    config = RecurrentGemmaConfig(
        **{**shape, **heads}, attention_window_size=16, block_types=["recurrent", "attention"]
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(4)  # or all it says is one token
    engine = Transformers(model, tokenizer)
    drawn = np.random.default_rng(0)
    asked = [
        Request(drawn.integers(5, len(tokenizer), length), 1, str(length))
        for length in (2, 11, 6, 3)
    ]
    how = Decoding(12, 0.0, 1.0)
    for request, (together,) in zip(asked, engine(asked, how), strict=True):
        ((alone,),) = engine([request], how)
        assert together.ids.tolist() == alone.ids.tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff" * 8, "cannot be read"),
    ],
)
def test_damaged_weights_are_called_so(content: bytes, words: str, tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    adapter = adapter_of(base, tmp_path / "a")
    make_tokenizer().save_pretrained(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(content)
    assert words in call("merge", adapter, "--out", tmp_path / "out", code=1)
    assert words in call("serve", adapter, code=1)
    (adapter / "adapter_model.safetensors").unlink()
    assert "holds no weights" in call("merge", adapter, "--out", tmp_path / "out", code=1)
    (base / "model.safetensors").write_bytes(content)
    assert words in call("export", base, "--out", tmp_path / "out", code=1)


def test_a_header_that_ends_early_is_called_so(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + b"\x00" * 9)
    with pytest.raises(ValueError, match="ends within its header, or is damaged"):
        header(file)


def test_what_a_broken_model_says_is_not_written(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model.lm_head.weight.data[0, 0] = float("nan")
    model.save_pretrained(base)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "one", "completion": " two"}) + "\n")
    text = call("score", "--model", base, "--data", rows, "--out", tmp_path / "out.jsonl", code=1)
    assert "numbers that are not finite" in text
    assert not (tmp_path / "out.jsonl").exists()


def test_no_model_goes_to_the_hub_without_its_weights(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    (base / "optimizer.safetensors").write_bytes(b"")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    parcel = parcel_of(base)
    names = [parcel.name(file) for file in parcel.files]
    assert {"model.safetensors", "additional_chat_templates/tools.jinja"} <= set(names)
    assert parcel.left == ["optimizer.safetensors"]
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"weights of older times \(\*\.bin\), which are not sent"):
        parcel_of(base)
    (base / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        parcel_of(base)


def test_a_precision_that_no_configuration_says_is_that_of_the_weights(tmp_path: Path) -> None:
    """vLLM's `auto` would make float16 or bfloat16 of float32."""
    base = whole(tmp_path / "base", dtype=None)
    words = by_vllm(str(base)).words
    assert words[words.index("--dtype") + 1] == "float32"
    (base / "model.safetensors").unlink()
    assert "holds no weights" in call("serve", base, code=1)


def test_a_whole_file_goes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    call("export", base, "--out", tmp_path / "out")
    assert call("export", base, "--out", tmp_path / "b", "--shard-size", "0MB", code=1)
    text = call("export", base, "--out", tmp_path / "b", "--temperature", 0, "--top-p", 0.9, code=1)
    assert "--top-p: changes nothing at --temperature 0" in text
