"""What a notebook gives `train`: classes for objects, models without weights, gradients switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import make_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM, LlamaConfig

import onestage
from onestage.config import RecipeError
from onestage.runfolder import silent

ROWS = [{"prompt": f"say {word}", "completion": f" {word}"} for word in ("sea", "moon", "wind")]


def go(out: Path, **given: Any) -> onestage.training.train.Trained:
    plain = {
        **{"model": tiny_llama(), "tokenizer": make_tokenizer(), "data": ROWS, "objective": "sft"},
        **{"train": {"max_steps": 1, "batch_size": 2}, "say": silent, "self_check": False},
        "cache_dir": str(out.parent / "cache"),
    }
    return onestage.train(out=out, **{**plain, **given})


def meta() -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(LlamaConfig(**tiny_llama().config.to_dict()))


def frozen() -> Any:
    return tiny_llama().requires_grad_(False)


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "a class for an objective": (
        {"objective": onestage.objectives.SFT},
        r"found the class SFT; give one of it, SFT\(\)$",
    ),
    "a class for one of several": (
        {"objective": {"demonstration": onestage.objectives.SFT}},
        r"found the class SFT; give one of it",
    ),
    "a class for a callback": (
        {"callbacks": [onestage.Callback]},
        r"callbacks: found the class Callback; give Callback\(\)",
    ),
    "a callback that is told nothing": (
        {"callbacks": [type("Mine", (onestage.Callback,), {"on_step_end": print})()]},
        "Mine overrides none of begin, step, metrics, end",
    ),
    "a function for a callback": ({"callbacks": print}, "callbacks: found .*no one.Callback"),
    "a model without weights": ({"model": meta()}, "some lie on the meta device"),
    "a model that nothing is trained of": ({"model": frozen()}, "requires_grad off for every"),
}


@pytest.mark.parametrize("what", ODD)
def test_what_cannot_be_used_is_refused_in_words(what: str, tmp_path: Path) -> None:
    given, words = ODD[what]
    with pytest.raises(ValueError, match=words) as found:
        go(tmp_path / "run", **given)
    if "model" not in given:
        assert found.type is RecipeError


def test_check_takes_what_train_takes(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": tiny_llama(), "tokenizer": make_tokenizer(), "data": ROWS}
    (checked,) = onestage.check(
        objective="sft", self_check=False, callbacks=[], cache_dir=str(tmp_path), **given
    )
    assert checked.good
    assert checked.cost is not None
    with pytest.raises(RecipeError, match="needs its tokenizer"):
        onestage.check(model=given["model"], data=ROWS, cache_dir=str(tmp_path))


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_switched_off_around_a_run(off: Any, tmp_path: Path) -> None:
    model = tiny_llama()
    before = model.lm_head.weight.clone()
    with off():
        assert go(tmp_path / "run", model=model).done
    assert not torch.equal(model.lm_head.weight, before)


def test_one_callback_may_stand_alone(tmp_path: Path) -> None:
    class Told(onestage.Callback):
        steps = 0

        def step(self, run: Any, loss: float) -> None:
            self.steps += 1

    told = Told()
    go(tmp_path / "run", callbacks=told)
    assert told.steps == 1
