"""The usual optimiser is made without transformers' trainer, and is the one that it would make."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Trainer

from onestage.config import RecipeError
from onestage.models.masters import Masters
from onestage.training import optimizer
from onestage.training.recipe import Train

SMALL = {
    "gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 16},
    "gpt_neox": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    "gemma3_text": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    "qwen2": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    "olmo2": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    "bloom": {"hidden_size": 8, "n_layer": 1, "n_head": 2},
}
"""Norms and biases by all sorts of names."""


@pytest.mark.parametrize("family", SMALL)
def test_the_weights_that_decay_are_those_of_transformers_trainer(family: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL[family]))
    theirs = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
    policy: Any = SimpleNamespace(model=model, value_head=None)
    options = Train(weight_decay=0.1, optim="adamw_torch")
    made, _ = optimizer.make(options, policy, Masters(model), 4)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {
        names[id(weight)]
        for group in made.param_groups
        for weight in group["params"]
        if group["weight_decay"]
    }
    assert found == theirs & set(names.values())  # a tied head has two names
    assert 0 < len(found) < len(names)


def test_arguments_that_adamw_would_not_read_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"takes none, so .* would do nothing"):
        optimizer.check(Train(optim="adamw_torch", optim_args="momentum=0.9"))


@pytest.mark.parametrize("name", ["schedule_free_adamw", "adalomo", "galore_adamw_layerwise"])
def test_an_optimiser_that_wants_more_than_a_step_is_refused_where_it_is_installed_too(
    name: str,
) -> None:
    """With its package there the first two ended in a traceback, at the start or at the first step."""
    with pytest.raises(
        RecipeError, match=rf"^train.optim '{name}': .* which this loop does not do"
    ):
        optimizer.check(Train(optim=name))


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused"])
def test_adamw_is_told_what_transformers_trainer_tells_it(name: str) -> None:
    options = Train(
        optim=name, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-5, learning_rate=3e-4
    )
    arguments: Any = SimpleNamespace(**options.model_dump(), optim_target_modules=None)
    kind, told = Trainer.get_optimizer_cls_and_kwargs(arguments, None)
    weights = [*nn.Linear(2, 2).parameters()]
    mine = optimizer._kind(options, nn.Linear(1, 1))(weights)
    assert type(mine) is kind
    assert mine.defaults == kind(weights, **told).defaults


def test_arguments_of_an_optimiser_that_it_does_not_take() -> None:
    optimizer.check(Train(optim="sgd", optim_args="momentum=0.9, nesterov=True"))
    with pytest.raises(RecipeError, match=r"optim_args: momentun=0\.9 changes nothing for sgd"):
        optimizer.check(Train(optim="sgd", optim_args="momentum=0.5,momentun=0.9"))
    with pytest.raises(
        RecipeError, match=r"expected key=value, key=value, \.\.\., found 'momentum'"
    ):
        optimizer.check(Train(optim="sgd", optim_args="momentum"))
