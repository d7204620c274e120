"""Updates that leave a weight's strongest directions alone: hand-made, through whole runs, and real."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from support.ranks import on_ranks
from support.tiny import REAL_DATA, make_tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config

import onestage as one
from onestage import models
from onestage.models.masters import Masters
from onestage.models.preserved import FILE, Preserved, preserve, strongest
from onestage.runfolder import silent
from onestage.training.build import build
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
SMOLLM2 = Path(os.environ.get("ONESTAGE_SMOLLM2", "not there"))
K = 4


def test_the_strongest_directions_by_hand() -> None:
    """Singular values 3, 2 and 1, of which the two largest lie at inputs 0 and 2, outputs 0 and 1."""
    weight = torch.tensor([[3.0, 0, 0, 0], [0, 0, -2, 0], [0, 1, 0, 0]])
    out, into = strongest(weight, 2)
    assert torch.allclose(out @ out.t(), torch.diag(torch.tensor([1.0, 1, 0])), atol=1e-6)
    assert torch.allclose(into @ into.t(), torch.diag(torch.tensor([1.0, 0, 1, 0])), atol=1e-6)


def test_it_is_the_run_of_the_paper() -> None:
    """There A and B are free and what is between projections is multiplied in every forward pass."""
    torch.manual_seed(0)
    base, x, y = nn.Linear(6, 5, bias=False), torch.randn(32, 6), torch.randn(32, 5)
    weight = base.weight.detach().clone()
    model: Any = get_peft_model(
        nn.Sequential(base), LoraConfig(r=3, lora_alpha=6, target_modules=["0"])
    )
    layer = model.base_model.model[0]
    factors = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
    A, B = (factor.detach().clone().requires_grad_() for factor in factors)
    preserve(model, 2)
    preserved, masters = Preserved(model), Masters(model)
    U, _, Vt = torch.linalg.svd(weight)
    out, into = torch.eye(5) - U[:, :2] @ U[:, :2].t(), torch.eye(6) - Vt[:2].t() @ Vt[:2]
    how: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1}
    mine = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], **how)
    theirs = torch.optim.AdamW([A, B], **how)
    for _ in range(20):
        (model(x) - y).square().mean().backward()
        preserved.turn(masters)
        mine.step()
        preserved.settle(masters)
        mine.zero_grad()
        delta = out @ (2 * B @ A) @ into
        (x @ (weight + delta).t() - y).square().mean().backward()
        theirs.step()
        theirs.zero_grad()
    found = layer.get_delta_weight("default")
    assert found.norm() > 0.5
    torch.testing.assert_close(found, out @ (2 * B @ A) @ into, rtol=1e-4, atol=1e-5)


def changes(folder: Path, base: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """By adapted layer: its frozen weight, and what plain PEFT adds to it."""
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    return {
        name: (layer.base_layer.weight.detach(), layer.get_delta_weight("default").detach())
        for name, layer in layers.items()
    }


def require_kept(found: dict[str, tuple[Tensor, Tensor]], k: int) -> None:
    """Nothing is read along the strongest inputs or written along the strongest outputs; and so the
    strongest singular values are the ones they were."""
    assert found
    for weight, delta in ((W.double(), dW.double()) for W, dW in found.values()):
        U, S, Vt = torch.linalg.svd(weight, full_matrices=False)
        size = delta.norm()
        assert size > 0
        assert (U[:, :k].t() @ delta).norm() < 1e-5 * size
        assert (delta @ Vt[:k].t()).norm() < 1e-5 * size
        kept = U[:, :k].t() @ (weight + delta) @ Vt[:k].t()
        torch.testing.assert_close(kept, torch.diag(S[:k]), rtol=1e-5, atol=1e-5)


@pytest.fixture
def recipe(recipe_of: Make, model_folder: Path) -> dict[str, Any]:
    made = recipe_of("pair", "demonstration", train__max_steps=6, train__learning_rate=1e-2)
    made["model"] = {"name": str(model_folder), "lora": {"r": 3, "preserve_rank": K}}
    made["train"] |= {"save_steps": 3, "weight_decay": 0.1}
    return made


def test_a_run_leaves_them_alone_and_saves_plain_adapters(
    recipe: dict[str, Any], model_folder: Path, tmp_path: Path
) -> None:
    run = build(parse_recipe(recipe), tmp_path / "out", say=silent)
    saved = run.go()
    require_kept(changes(saved, model_folder), K)
    plain: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model_folder), saved
    )
    ids = torch.arange(3, 40)[None]
    run.loaded.model.set_attn_implementation("sdpa")
    with torch.no_grad():
        theirs, mine = plain(ids).logits, run.loaded.model.eval()(ids).logits
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)

    class Stops(one.Callback):
        def step(self, run: Any, loss: float) -> None:
            run.stop = run.step == 3

    one.train(recipe, out=tmp_path / "cut", say=silent, callbacks=[Stops()])
    resumed = one.train(recipe, out=tmp_path / "cut", say=silent, resume=True)
    first, second = (load_file(f / "adapter_model.safetensors") for f in (saved, resumed.model))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_bounds_and_averages_leave_them_alone(
    recipe: dict[str, Any], model_folder: Path, tmp_path: Path
) -> None:
    """EWC draws each number back by another part, which leads into what is preserved."""
    text = tmp_path / "old.jsonl"
    text.write_text("".join(f'{{"text": "The answer {n} is one of many."}}\n' for n in range(12)))
    of = {"name": "old", "path": str(text)}
    how = {"by": "fisher", "multiplier": 50.0, "watch_tokens": 40}
    recipe["keep"] = [{"what": "kl", "at_most": 0.1, "of": of, **how}]
    recipe["train"] |= {"average": "ema", "max_steps": 4}
    found = one.train(recipe, out=tmp_path / "out", say=silent)
    require_kept(changes(found.model, model_folder), K)
    require_kept(changes(found.out / "model_last", model_folder), K)


def _go(recipe: dict[str, Any], out: Path) -> None:
    one.train(recipe, out=out, say=silent)


def test_ranks_hold_the_same(recipe: dict[str, Any], model_folder: Path, tmp_path: Path) -> None:
    recipe["train"]["max_steps"] = 3
    _go(recipe, tmp_path / "one")
    on_ranks(2, _go, recipe, tmp_path / "two", seconds=100)
    require_kept(changes(tmp_path / "two/model", model_folder), K)
    saved = (tmp_path / name / "model/adapter_model.safetensors" for name in ("one", "two"))
    mine, theirs = map(load_file, saved)
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-5, msg=name)


def test_who_trains_the_adapter_further_keeps_it_off_them(
    recipe: dict[str, Any], model_folder: Path, tmp_path: Path
) -> None:
    """A later stage, and another run on the folder: by the file that lies beside the adapter."""
    recipe["train"] |= {"save_steps": None, "max_steps": 3}
    recipe["stages"] = [{"name": "a"}, {"name": "b", "adapter": "same", "reference": "start"}]
    said: list[str] = []
    found = one.train(recipe, out=tmp_path / "out", say=said.append)
    assert any(f"stays off the {K} strongest directions" in line for line in said)
    require_kept(changes(found.model, model_folder), K)
    assert json.loads((found.model / FILE).read_text()) == {"preserve_rank": K}
    first, second = (
        load_file(p / "adapter_model.safetensors")
        for p in (tmp_path / "out/1-a/model", found.model)
    )
    assert any(not torch.equal(first[name], second[name]) for name in first)
    # Without the file it is any adapter, and the start of another run.
    kept = models.load(one.Model(name=str(found.model))).fingerprint
    (found.model / FILE).unlink()
    assert kept == f"{models.load(one.Model(name=str(found.model))).fingerprint}-off-{K}"
    del recipe["stages"]
    recipe["model"] = {"name": str(found.model)}
    free = one.train(recipe, out=tmp_path / "free", say=silent)
    with pytest.raises(AssertionError):
        require_kept(changes(free.model, model_folder), K)
    assert not (free.model / FILE).exists()


def test_what_lies_beside_an_adapter_and_cannot_be_kept_is_refused(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["train"]["max_steps"] = 1
    recipe["model"] = {"name": str(one.train(recipe, out=tmp_path / "out", say=silent).model)}
    cut = one.check(recipe | {"distributed": {"sharding": "full"}})[0].findings.errors
    assert any("is kept off 4 directions; set sharding: none" in line for line in cut)
    packed = recipe["model"] | {"load_in_4bit": True, "adapter": "same"}
    (line,) = one.check(recipe | {"model": packed})[0].findings.errors
    assert "load the base whole, or remove" in line
    (Path(recipe["model"]["name"]) / FILE).write_text("[]")
    (line,) = one.check(recipe)[0].findings.errors
    assert 'must say {"preserve_rank": K}' in line
    assert one.load(recipe["model"]["name"])  # who only asks it need not know


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"lora": {"preserve_rank": 32}}, r"has 32 singular directions.* give at most 31"),
        ({"lora": {"preserve_rank": 4}, "load_in_4bit": True}, "leave one of the two out"),
        ({"lora": {"preserve_rank": 4}, "adapter": "stack"}, "take adapter: merge"),
        ({"lora": {"preserve_rank": 0}}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(
    recipe: dict[str, Any], tmp_path: Path, model: Any, message: str
) -> None:
    recipe["model"] |= model
    with pytest.raises(ValueError, match=message):
        build(parse_recipe(recipe), tmp_path / "out", say=silent)


def test_weights_in_parts_are_refused(recipe: dict[str, Any]) -> None:
    recipe["distributed"] = {"sharding": "full"}
    (checked,) = one.check(recipe)
    (said,) = [line for line in checked.findings.errors if "preserve_rank" in line]
    assert "set sharding: none, or leave preserve_rank out" in said


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_other_layers_are_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    """GPT-2's layers are no `nn.Linear`."""
    shape = GPT2Config(vocab_size=400, n_embd=32, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    recipe["model"]["name"] = str(tmp_path)
    with pytest.raises(ValueError, match="is a Conv1D, and singular directions are taken of plain"):
        build(parse_recipe(recipe), tmp_path / "out", say=silent)


@pytest.mark.skipif(not (SMOLLM2 / "config.json").is_file(), reason="no real model")
def test_a_real_model(tmp_path: Path) -> None:
    """SmolLM2, two steps on real pairs; keys alone, whose weights are small."""
    pairs = REAL_DATA / "hh_harmless_pairs.train.jsonl.gz"
    if not pairs.is_file():
        pytest.skip("no real data")
    lora = {"r": 4, "preserve_rank": 16, "target_modules": ["k_proj"]}
    recipe = {
        "model": {"name": str(SMOLLM2), "lora": lora, "dtype": "float32"},
        "data": [{"name": "pairs", "path": str(pairs), "limit": 4}],
        "objective": "dpo",
        "train": {"max_steps": 2, "batch_size": 1, "learning_rate": 1e-3, "max_length": 256},
        "cache_dir": str(tmp_path / "cache"),
    }
    found = one.train(recipe, out=tmp_path / "out", say=silent, self_check=False)
    require_kept(changes(found.model, SMOLLM2), 16)
