"""Float32 masters of bfloat16 weights: the arithmetic, and whole runs of a checkpoint in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import make_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM

import onestage as one
from onestage.models.average import Average
from onestage.models.masters import Masters
from onestage.runfolder import silent
from onestage.training.build import build
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]


def linear(weight: float, dtype: torch.dtype) -> torch.nn.Linear:
    layer = torch.nn.Linear(1, 1, bias=False).to(dtype)
    torch.nn.init.constant_(layer.weight, weight)
    return layer


def test_small_steps_add_up() -> None:
    """The neighbours of 1 in bfloat16 are 1 - 2^-8 and 1 + 2^-7, so a step of 2^-10 rounds back: two of
    them lie half-way (to even: 1), the third is nearer to 1 - 2^-8."""
    layer = linear(1.0, torch.bfloat16)
    masters = Masters(layer)
    optimizer = torch.optim.SGD(masters.of(layer.parameters()), lr=2**-10)
    seen = []
    for _ in range(4):
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        masters.gather()
        optimizer.step()
        masters.round()
        optimizer.zero_grad()
        seen.append(layer.weight.item())
    assert seen == [1.0, 1.0, 1 - 2**-8, 1 - 2**-8]
    assert masters.exact["weight"].item() == 1 - 4 * 2**-10


def test_gradients_are_added_up_in_float32() -> None:
    """256 + 1 is 256 in bfloat16."""
    layer = linear(1.0, torch.bfloat16)
    masters = Masters(layer)
    for size in (256.0, 1.0):
        layer(torch.full((1, 1), size, dtype=torch.bfloat16)).sum().backward()
        masters.gather()
    assert layer.weight.grad is None
    assert masters.exact["weight"].grad.item() == 257.0  # type: ignore[union-attr]


def test_a_weight_in_float32_is_its_own_master() -> None:
    layer, frozen = linear(1.0, torch.float32), linear(1.0, torch.bfloat16).requires_grad_(False)
    masters = Masters(torch.nn.ModuleList([layer, frozen]))
    assert not masters.exact
    (stepped,) = masters.of([layer.weight])
    assert stepped is layer.weight


def test_an_average_is_of_the_masters() -> None:
    layer = linear(1.0, torch.bfloat16)
    masters = Masters(layer)
    average = Average(layer, masters, "tail", decay=0.9, start=0)
    for step, value in ((1, 1 - 2**-10), (2, 1 - 3 * 2**-10)):
        masters.exact["weight"].data.fill_(value)
        masters.round()
        average.update(step)
    assert average.mean["weight"].item() == 1 - 2 * 2**-10


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    tiny_llama().to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def of(make: Make, folder: Path, **changes: Any) -> dict[str, Any]:
    recipe = make("pair", "demonstration", **changes)
    return recipe | {"model": {"name": str(folder)}}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return {name: p.detach() for name, p in model.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """The share of weights that are others, as they are saved in bfloat16."""
    changed = sum((after[n].to(torch.bfloat16) != p).sum().item() for n, p in before.items())
    return changed / sum(p.numel() for p in before.values())


def test_a_bfloat16_checkpoint_learns_as_in_float32(
    recipe_of: Make, half: Path, tmp_path: Path
) -> None:
    """40 steps of AdamW at 5e-5: as many weights move as where all is float32, and the same way."""
    recipe = of(recipe_of, half, train__max_steps=40, train__learning_rate=5e-5)
    said: list[str] = []
    one.train(recipe, out=tmp_path / "half", say=said.append)
    recipe["model"]["dtype"] = "float32"
    one.train(recipe, out=tmp_path / "full", say=silent)
    start, mine, exact = (
        tensors(f) for f in (half, tmp_path / "half/model", tmp_path / "full/model")
    )
    assert {p.dtype for p in mine.values()} == {torch.bfloat16}
    assert moved(start, mine) == pytest.approx(moved(start, exact), rel=0.1)
    told = "model: runs and is saved in bfloat16; its trained weights have float32 masters"
    assert told in said


def test_what_is_saved_is_what_was_trained(recipe_of: Make, half: Path, tmp_path: Path) -> None:
    """Law 8 to the last bit: the model that computed the losses is the one on disk."""
    recipe = parse_recipe(of(recipe_of, half))
    run = build(recipe, tmp_path / "out", say=silent)
    saved = run.go()
    ids = torch.from_numpy(np.arange(2, 40))[None]
    plain: Any = AutoModelForCausalLM.from_pretrained(saved)
    assert plain.dtype == torch.bfloat16
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, run.loaded.model.get_parameter(name))
        assert torch.equal(parameter, run.masters.exact[f"model.{name}"].to(torch.bfloat16))
    run.loaded.model.set_attn_implementation("sdpa")
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, run.loaded.model.eval()(ids).logits)


def test_a_run_in_bfloat16_resumes_to_the_last_bit(
    recipe_of: Make, half: Path, tmp_path: Path
) -> None:
    recipe = of(recipe_of, half, train__max_steps=6, train__save_steps=3, train__learning_rate=5e-5)
    recipe["train"] |= {"average": "ema", "lr_scheduler_type": "linear"}

    class Stops(one.Callback):
        def step(self, run: Any, loss: float) -> None:
            run.stop = run.step == 3

    whole = one.train(recipe, out=tmp_path / "whole", say=silent)
    one.train(recipe, out=tmp_path / "cut", say=silent, callbacks=[Stops()])
    resumed = one.train(recipe, out=tmp_path / "cut", say=silent, resume=True)
    for name in ("model", "model_last"):
        first, second = tensors(whole.out / name), tensors(resumed.out / name)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_probes_leave_no_gradient_behind(recipe_of: Make, half: Path, tmp_path: Path) -> None:
    """A probe's gradients lie on the weights, where the next step would take them for its own."""
    recipe = of(recipe_of, half, train__max_steps=3)
    plain = one.train(recipe, out=tmp_path / "plain", say=silent)
    probed = one.train(recipe | {"probe": {"steps": 1}}, out=tmp_path / "probed", say=silent)
    first, second = tensors(plain.model), tensors(probed.model)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_adapters_are_float32_on_a_frozen_bfloat16_base(
    recipe_of: Make, half: Path, tmp_path: Path
) -> None:
    recipe = of(recipe_of, half)
    recipe["model"]["lora"] = {"r": 2}
    run = build(parse_recipe(recipe), tmp_path / "out", say=silent)
    held = {p.requires_grad: p.dtype for p in run.loaded.model.parameters()}
    assert held == {True: torch.float32, False: torch.bfloat16}
    assert not run.masters.exact


@pytest.mark.parametrize(
    ("model", "said", "bytes_each"),
    [
        ({}, "runs and is saved in bfloat16, trained by float32 masters", 2 + 16),
        ({"dtype": "float32"}, "trained and saved in float32", 4 + 12),
    ],
)
def test_check_says_the_precision_and_counts_masters(
    model: dict[str, str], said: str, bytes_each: int, recipe_of: Make, half: Path
) -> None:
    recipe = of(recipe_of, half)
    recipe["model"] |= model
    (checked,) = one.check(recipe)
    assert checked.cost is not None
    assert checked.cost.precision == said
    activations = 256 * 32 * 2 * 34 * 4  # tokens a row, width, layers, values a layer, bytes
    expected = checked.cost.parameters * bytes_each + activations
    assert checked.cost.memory_gb == pytest.approx(expected / 1e9)
