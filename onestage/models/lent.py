"""A model that is somebody else's: what a run sets in it beside its weights is put back at the end.

A run trains a model that it is given in place. Its weights and its adapters are the user's to keep; the
mode of each module, dropout, attention, checkpointed activations, faster layers, gradients, and what a
reward model and its tokenizer are told of padding are the run's alone, and whoever asks the model
afterwards would find other numbers, or somebody listening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from onestage.models.low_rank import in_pefts_passes
from onestage.models.reward_model import READS

NOISE = (
    *("attention_dropout", "activation_dropout", "dropout"),
    *("input_jitter_noise", "jitter_noise"),
)
"""Attributes by which layers of transformers are noisy."""


def noise_of(model: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    """The dropout of a model, and the noise of its routers: where, by what name, and how much. Not that
    of adapters (`lora.dropout`)."""
    for place, module in model.named_modules():
        if ".lora_dropout" in place:
            continue
        if isinstance(module, nn.Dropout):
            yield module, "p", module.p
        for name in NOISE:
            if isinstance(value := getattr(module, name, None), float):
                yield module, name, value


@contextmanager
def lent(model: Any, tokenizer: Any) -> Iterator[None]:
    """Inside, a run may set the model and its tokenizer up as it needs them; at the end, also after an
    error, they are as they were but for weights, adapters (and what PEFT froze under them) and
    generation settings."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    attention, checkpoints = base.config._attn_implementation, _checkpoints(base)
    modes = {module: module.training for module in model.modules()}
    noise, padding = list(noise_of(model)), _padding(base.config, tokenizer)
    try:
        yield
    finally:
        for module, name, value in noise:
            setattr(module, name, value)
        padding()
        _put_back(model, modes, model.training)
        for parameter in model.parameters():
            parameter.grad = None
        in_pefts_passes(model)
        if _checkpoints(base) and not checkpoints:
            base.gradient_checkpointing_disable()
            base.disable_input_require_grads()
        if base.config._attn_implementation != attention:
            base.set_attn_implementation(attention)


def _padding(config: Any, tokenizer: Any) -> Callable[[], None]:
    """What gives a reward model and its tokenizer the padding again that they have now."""
    inner, told = config.get_text_config(), tokenizer.init_kwargs
    # A configuration of several models need not have one of its own.
    mine = [(one, one.pad_token_id) for one in (config, inner) if hasattr(one, "pad_token_id")]
    token, read = tokenizer.pad_token, READS in told

    def put_back() -> None:
        for one, number in mine:
            one.pad_token_id = number
        tokenizer.pad_token = token
        if not read:
            told.pop(READS, None)

    return put_back


def _checkpoints(base: Any) -> bool:
    """Whether activations are checkpointed; the model's own word for it was renamed in transformers."""
    return any(getattr(module, "gradient_checkpointing", False) for module in base.modules())


def _put_back(module: Any, modes: Mapping[nn.Module, bool], mode: bool) -> None:
    """The mode of a module and of what is in it. One that is new is in that of the layer it was put
    around, or of what it is in."""
    mode = modes.get(module, modes.get(getattr(module, "base_layer", module), mode))
    module.training = mode
    for part in module.children():
        _put_back(part, modes, mode)
