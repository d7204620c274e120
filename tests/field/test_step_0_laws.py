"""The step-0 laws on what they must not let pass, and on rounding that they must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import make_tokenizer, sharpen, tiny_llama
from transformers import AutoConfig, AutoModelForCausalLM

from onestage.models import attention
from onestage.training.build import build
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.selfcheck import SelfCheckError

Make = Callable[..., dict[str, Any]]


def saved(model: Any, folder: Path) -> dict[str, str]:
    """The model in a folder, with a tokenizer, as the `model` section of a recipe."""
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return {"name": str(folder)}


def said_by_laws(recipe: dict[str, Any], out: Path) -> list[str]:
    said: list[str] = []
    run = build(parse_recipe(recipe), out, say=said.append)
    run.fill_reference()
    run.check_laws()
    return [line for line in said if line.startswith(("law", "model"))]


def test_weights_that_are_no_numbers_break_laws_1_and_2(recipe_of: Make, tmp_path: Path) -> None:
    """NaN is at most nothing, and the tensor is named."""
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")
    recipe = recipe_of("pair", objective="dpo", model=saved(model, tmp_path / "model"))
    with pytest.raises(SelfCheckError, match=r"down_proj\.weight holds 1 of") as caught:
        carry_out(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    assert "1 policy = reference" in str(caught.value)
    assert "2 forest = naive" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_window_that_is_lost_is_seen_on_short_rows(
    dtype: str, recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is longer than any row of the data, so these would be right by luck: the model is
    packed no more, and says so."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 400}
    config = AutoConfig.for_model("mistral", **sizes, **heads, sliding_window=300)
    torch.manual_seed(0)
    section = saved(sharpen(AutoModelForCausalLM.from_config(config)), tmp_path / "model")
    recipe = recipe_of("pair", objective="dpo", model={**section, "dtype": dtype})
    lines = said_by_laws(recipe, tmp_path / "right")
    assert not any("slow way" in line for line in lines)
    assert any("forest: differs by" in line for line in lines)
    monkeypatch.setattr(attention, "windows", lambda config: {"": None})
    lines = said_by_laws(recipe, tmp_path / "wrong")
    assert any("runs the slow way (alone)" in line and "in float32" in line for line in lines)


def test_tokens_of_a_tree_that_all_see_each_other(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 4: what is changed at the end of a response moves its own beginning, and the other one."""
    recipe = recipe_of("pair", objective="dpo", model=saved(tiny_llama(), tmp_path / "model"))
    run = build(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    run.fill_reference()

    def everything(exit_T: torch.Tensor, *rest: Any) -> torch.Tensor:
        return torch.ones(1, 1, len(exit_T), len(exit_T), dtype=torch.bool)

    monkeypatch.setattr(attention, "dense_mask", everything)
    with pytest.raises(SelfCheckError, match="4 responses are separate"):
        run.check_laws()
