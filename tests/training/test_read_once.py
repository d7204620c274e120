"""The main process reads the weights and sends them, whole or in parts; adapters on adapters as well."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from support.ranks import on_ranks
from transformers import AutoModelForCausalLM, GenerationConfig

from onestage.models import Lora, Model, weights
from onestage.models.features import Door
from onestage.runfolder import read_metrics
from onestage.training.parts import _read_once
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]


def go(recipe: dict[str, Any], out: Path, resume: bool = False) -> list[float]:
    carry_out(parse_recipe(recipe), out, resume=resume, say=lambda line: None, self_check=False)
    return [line["loss"] for line in read_metrics(out) if "loss" in line]


def refuse_to_read(*given: Any, **more: Any) -> Any:
    raise AssertionError("another rank than the main one reads weights")


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A model whose answers end at more tokens than its `config.json` says."""
    copy = tmp_path / "base"
    shutil.copytree(model_folder, copy)
    GenerationConfig(eos_token_id=[1, 7]).save_pretrained(copy)
    return copy


@pytest.mark.parametrize(("adapter", "sharding"), [("", "none"), ("", "full"), ("stack", "none")])
def test_other_ranks_read_no_weights_and_have_all_of_the_main_ones(
    folder: Path, tmp_path: Path, adapter: Any, sharding: Any
) -> None:
    source = Model(name=str(folder), dtype="bfloat16", lora=Lora(r=2))
    if adapter:
        earlier = weights.load(source, "cpu", seed=5)
        earlier.model.save_pretrained(tmp_path / "adapter")
        earlier.tokenizer.save_pretrained(tmp_path / "adapter")
        source = source.model_copy(update={"name": str(tmp_path / "adapter"), "adapter": adapter})
    wanted = weights.load(source, "cpu", seed=3)

    def work() -> str:
        accelerator = Accelerator(cpu=True)
        if not accelerator.is_main_process:
            AutoModelForCausalLM.from_pretrained = refuse_to_read  # type: ignore[method-assign]
        found = _read_once(source, wanted.tokenizer, accelerator, 3, sharding, Door.TRAINED)
        settings = found.model.get_base_model().generation_config
        assert settings.eos_token_id == [1, 7]
        assert found.fingerprint == wanted.fingerprint
        if sharding == "full":  # they are sent when they are laid out
            return "sent later"
        own, theirs = found.model.state_dict(), wanted.model.state_dict()
        assert own.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(own[name], tensor), name
        for mine, known in zip(
            found.model.named_buffers(), wanted.model.named_buffers(), strict=True
        ):
            assert mine[0] == known[0]
            assert torch.equal(mine[1], known[1])
        trained = {n for n, p in found.model.named_parameters() if p.requires_grad}
        assert trained == {n for n, p in wanted.model.named_parameters() if p.requires_grad}
        return "here"

    assert set(on_ranks(2, work, seconds=60)) <= {"here", "sent later"}


def test_what_has_no_shape_without_its_weights_is_read_by_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that transformers makes otherwise where it reads it, as it does of quantised ones."""
    source = Model(name=str(folder))
    wanted = weights.load(source, "cpu")

    def other(*given: Any) -> Any:
        model = shape(*given)
        model.register_buffer("extra", torch.zeros(1, device="meta"))
        return model

    shape = weights._shape
    monkeypatch.setattr(weights, "_shape", other)

    def work() -> bool:
        accelerator = Accelerator(cpu=True)
        found = _read_once(source, wanted.tokenizer, accelerator, 0, "none", Door.TRAINED)
        own = found.model.state_dict()
        return all(torch.equal(own[n], t) for n, t in wanted.model.state_dict().items())

    assert on_ranks(2, work, seconds=60) == [True, True]


def test_a_main_rank_that_cannot_begin_holds_up_nobody(
    recipe_of: Make, folder: Path, tmp_path: Path
) -> None:
    """The others read no weights and write no folder, and would wait for what it never sends."""
    file = folder / "model.safetensors"
    held = load_file(file)
    del held["model.norm.weight"]
    save_file(held, file, {"format": "pt"})
    recipe = recipe_of("demonstration", objective="sft")
    recipe["model"] = {"name": str(folder), "lora": {"r": 2}}

    def refused(name: str) -> str:
        told = {**recipe, "distributed": {"sharding": "full" if name == "full" else "none"}}
        with pytest.raises((ValueError, RuntimeError)) as error:
            go(told, tmp_path / name)
        return str(error.value)

    (tmp_path / "taken" / "model").mkdir(parents=True)
    for name, said in (
        ("none", "is not whole: 1 weight (model.norm.weight) missing"),
        ("full", "is not whole: 1 weight (model.norm.weight) missing"),
        ("taken", "already holds a run (model)"),
    ):
        main, other = on_ranks(2, refused, name, seconds=60)
        assert said in main
        assert other == f"rank 1 stops here, since rank 0 has stopped: {main}"


def test_stacked_adapters_lie_in_parts_and_go_on(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """As on one process, from a checkpoint of either to the other; what is saved is the sum."""
    first = recipe_of("demonstration", objective="sft", train__max_steps=1)
    first["model"] = {"name": str(model_folder), "lora": {"r": 3}}
    go(first, tmp_path / "first")
    train = {"train__max_steps": 4, "train__save_steps": 2, "train__learning_rate": 1e-3}
    recipe = recipe_of("pair", objective="dpo", **train)
    recipe["model"] = {"name": str(tmp_path / "first" / "model"), "lora": {"r": 2}}
    recipe["model"]["adapter"] = "stack"
    parts = {**recipe, "distributed": {"sharding": "full"}, "cache_dir": str(tmp_path / "own")}
    one, many = tmp_path / "one", tmp_path / "many"
    losses = go(recipe, one)
    wanted = load_file(one / "model" / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in wanted.items() if "lora_A" in name} == {5}
    on_ranks(2, go, parts, many, seconds=60)
    for out in (many, one):
        found = load_file(out / "model" / "adapter_model.safetensors")
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-5, msg=name)
        _forget(out, after=2)
    again = on_ranks(2, go, parts, one, True, seconds=60)[0]
    assert again == pytest.approx(losses, rel=1e-6, abs=1e-6)
    again = go({**recipe, "cache_dir": str(tmp_path / "own")}, many, resume=True)
    assert again == pytest.approx(losses, rel=1e-6, abs=1e-6)


def _forget(out: Path, after: int) -> None:
    """A run as it was when it was cut off after a step."""
    for step in (out / "checkpoints").glob("step-*"):
        if int(step.name.removeprefix("step-")) > after:
            shutil.rmtree(step)
    shutil.rmtree(out / "model")
    assert os.listdir(out / "checkpoints")
