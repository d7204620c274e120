"""What an engine that runs a copy of a model is given: its weights with adapters merged in, or the
adapter alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onestage.models.features import Door, require, require_untied
from onestage.models.loading import LoadError
from onestage.models.resized import require_own_size
from onestage.models.save import fill_weights


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its name in the plain model, adapters added in; tied weights come once.

    Nothing of the model is changed: PEFT adds an adapter in place and takes it off again, which leaves
    rounding behind, so the base weights are put back from a copy.

    Raises `ValueError` for a quantized base, whose weights are no plain numbers, and for adapters that
    are more than a change of weights.
    """
    if getattr(model, "is_quantized", False) or getattr(model, "is_loaded_in_4bit", False):
        raise ValueError("a quantized model's weights cannot be handed to another engine")
    if not hasattr(model, "peft_config"):
        for name, parameter in model.named_parameters():
            yield _plain(name), parameter.data
        return
    for label in model.active_adapters:
        require(model.peft_config[label], Door.SERVED, "the model's adapter")
    require_untied(model, Door.SERVED, "the model's adapter")
    require_own_size(model, Door.SERVED, "the model's adapter")
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    adapted = {n: m for n, m in base.named_modules() if isinstance(m, BaseTunerLayer)}
    own = _own(adapted)
    for name, parameter in base.named_parameters():
        if "original_module" in name or any(part in name for part in own):
            continue
        owner, *deeper = name.split(".base_layer.")
        if not deeper:
            yield _plain(name), parameter.data
            continue
        # Several parameters of one module have a wrapper each, one in the other (experts).
        *between, rest = ".base_layer.".join(deeper).split("base_layer.")
        layers = [adapted[owner + ".base_layer" * n] for n in range(len(between) + 1)]
        # Only its own is merged, since what another one adds and takes off leaves rounding behind.
        layers = [layer for layer in layers if getattr(layer, "parameter_name", rest) == rest]
        yield f"{_plain(owner)}.{rest}", _merged(layers, parameter)


def base_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight under an adapter that can be loaded as it is (`adapter_rank`), under its name in the
    plain model."""
    for name, parameter in model.get_base_model().named_parameters():
        if ".lora_" not in name:
            yield _plain(name).replace(".base_layer.", "."), parameter.data


def adapter_rank(model: Any) -> int:
    """The rank that an engine must have room for, to load the model's adapter as it is.

    Raises `LoadError` for an adapter that is more than products in linear layers, or that is none.
    """
    from peft.tuners.lora import LoraLayer

    if not hasattr(model, "peft_config"):
        raise LoadError("the model has no adapter that an engine could load")
    for label in model.active_adapters:
        require(model.peft_config[label], Door.LOADED, "the model's adapter")
    require_untied(model, Door.LOADED, "the model's adapter")
    require_own_size(model, Door.LOADED, "the model's adapter")
    base = model.get_base_model()
    if any(
        isinstance(end, LoraLayer)
        for end in (base.get_input_embeddings(), base.get_output_embeddings())
    ):
        raise LoadError(
            "the model's adapter adapts embeddings or the head, which engines do not load; hand it "
            "over merged into its base (`lora: merged`)"
        )
    layers = [layer for layer in base.modules() if isinstance(layer, LoraLayer)]
    return max(sum(layer.r.get(label, 0) for label in model.active_adapters) for layer in layers)


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as it stands into a new folder, as PEFT reads it (stacked ones as their sum)."""
    folder.mkdir()
    # Not by a state dict: torch has put in parts again what it gathers for one.
    fill_weights(model, folder, {n: p.data for n, p in model.named_parameters() if ".lora_" in n})


@contextmanager
def random_adapter(model: Any, spread: float) -> Iterator[None]:
    """The model with other numbers in its adapter, so that it adds something also before the first step;
    the trained ones are back afterwards, bit for bit."""
    kept = [(p, p.data) for name, p in model.named_parameters() if ".lora_B." in name]
    generator = torch.Generator().manual_seed(0)
    for parameter, data in kept:
        drawn = torch.randn(data.shape, generator=generator) * spread
        parameter.data = drawn.to(data.device, data.dtype)
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


def _merged(layers: list[Any], parameter: Tensor) -> Tensor:
    kept = parameter.data.clone()
    for layer in layers:
        layer.merge()
    merged = parameter.data.clone()
    for layer in reversed(layers):
        layer.unmerge()
    parameter.data.copy_(kept)
    return merged


def _own(adapted: dict[str, Any]) -> set[str]:
    """What the names of adapters' own weights hold."""
    return {f".{part}." for layer in adapted.values() for part in layer.adapter_layer_names}


def _plain(name: str) -> str:
    parts = name.replace("_checkpoint_wrapped_module.", "").split(".")
    if "modules_to_save" in parts:
        at = parts.index("modules_to_save")  # followed by the adapter's name
        parts = parts[:at] + parts[at + 2 :]
    return ".".join(parts)
