"""Whether a server says what a folder says, in front of vLLM's interfaces (support/fake_vllm.py); a real
vLLM is asked in tests/field/test_real_vllm.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.fake_vllm import Other, Served, serving
from support.tiny import make_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from onestage.cli import app

OTHERWISE = "{% for message in messages %}{{ message['content'] }}</s>{% endfor %}"


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("served")
    tiny_llama(7).save_pretrained(root / "base")
    make_tokenizer().save_pretrained(root / "base")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(root / "base"),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(root / "adapter")
    make_tokenizer().save_pretrained(root / "adapter")
    return {"base": root / "base", "adapter": root / "adapter"}


def test_a_server_with_the_same_weights_agrees(folders: dict[str, Path]) -> None:
    with serving(Served(Other(tiny_llama(7)))) as server:
        text = call("serve", folders["base"], "--check", server.url + "/v1")
    assert "72 tokens behind three prompts" in text
    assert "allowed 0.001" in text


def test_other_weights_are_noticed(folders: dict[str, Path]) -> None:
    with serving(Served(Other(tiny_llama(8)))) as server:
        text = call("serve", folders["base"], "--check", server.url, code=1)
        assert f"does not say what {folders['base']} says" in text
        call("serve", folders["base"], "--check", server.url, "--tolerance", 100)


def test_a_server_that_forgot_the_adapter_is_noticed(folders: dict[str, Path]) -> None:
    """Also where any distance is allowed: it is nearer to the model without."""
    inside = Other(tiny_llama(7))
    inside.add("mine", str(folders["adapter"]))
    asked = ["serve", folders["adapter"], "--check"]
    with serving(Served(inside)) as server:
        text = call(*asked, server.url)
        assert "from our model without its adapter" in text
        call(*asked, server.url, "--name", "mine")
        text = call(*asked, server.url, "--name", "served", "--tolerance", 100, code=1)
        assert "does not say what" in text
        text = call(*asked, server.url, "--name", "mime", code=1)
        assert "has no such model; did you mean 'mine'" in text


def test_another_template_is_noticed(folders: dict[str, Path]) -> None:
    served = Served(Other(tiny_llama(7)), tokenizer=make_tokenizer(chat=OTHERWISE))
    with serving(served) as server:
        text = call("serve", folders["base"], "--check", server.url, code=1)
    assert "'What is the capital of France?' is " in text
    assert "it has another model, template or precision" in text


def test_who_does_not_answer_is_one_line(folders: dict[str, Path]) -> None:
    text = call("serve", folders["base"], "--check", "http://127.0.0.1:9", code=1)
    assert "no answer from the vLLM server at http://127.0.0.1:9" in text
    assert "--resume" not in text
    assert "Traceback" not in text


def test_a_folder_that_moved_is_asked_for(folders: dict[str, Path], tmp_path: Path) -> None:
    moved = Path(shutil.copytree(folders["adapter"], tmp_path / "adapter"))
    config = moved / "adapter_config.json"
    config.write_text(config.read_text().replace(str(folders["base"]), "/nowhere/at/all"))
    text = call("serve", moved, code=1)
    assert "is an adapter of /nowhere/at/all, and there is no such folder" in text
    assert f"vllm serve {folders['base']}" in call("serve", moved, "--base", folders["base"])
