"""A model's weights as they would stand without adapters, for an engine that runs a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from onestage.models.features import Door, require, require_untied


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
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    adapted = {n: m for n, m in base.named_modules() if isinstance(m, BaseTunerLayer)}
    for name, parameter in base.named_parameters():
        owner, _, rest = name.partition(".base_layer.")
        if rest:
            yield f"{_plain(owner)}.{rest}", _merged(adapted[owner], parameter)
        elif "original_module" not in name and not any(part in name for part in _own(adapted)):
            yield _plain(name), parameter.data


def _merged(layer: Any, parameter: Tensor) -> Tensor:
    kept = parameter.data.clone()
    layer.merge()
    merged = parameter.data.clone()
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
