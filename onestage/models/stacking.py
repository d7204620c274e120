"""Two adapters on one base: an earlier one that stays as it is, and a new one that is trained.

What the model computes in a layer is

    W x + s_1 B_1 A_1 x + s_2 B_2 A_2 x = W x + [s_1 B_1, s_2 B_2] [A_1; A_2] x

so the two are one adapter whose rank is the sum of theirs, with scaling 1. That one is what gets
saved: an ordinary adapter of the original base, which plain PEFT loads. Saving the new one alone would
lose the earlier stage on reload, as the sequential baselines released with arXiv 2410.15483 do.

The frozen adapter has PEFT's usual name, so a run that stacks on an adapter and one that trains it
further start from the same names and bytes, and share their reference.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from onestage.models.features import Door, require

FROZEN, TRAINED = "default", "stacked"


def is_stacked(model: Any) -> bool:
    return TRAINED in getattr(model, "peft_config", {})


def stack(model: Any, config: Any) -> None:
    """Put a new adapter (a `LoraConfig`) beside the loaded one; only the new one is trained.

    Raises `ValueError` where the two would not be one adapter of a larger rank.
    """
    require(model.peft_config[FROZEN], Door.STACKED, "model.adapter: the earlier one")
    model.add_adapter(TRAINED, config)
    odd = [
        name for name, layer in _layers(model) if len(layer.lora_embedding_A) or not _flat(layer)
    ]
    if odd:
        raise ValueError(f"model.adapter: cannot stack adapters of layers like {odd[0]}; use merge")
    activate(model, FROZEN, TRAINED)


def activate(model: Any, *names: str) -> None:
    """Use exactly these adapters. PEFT makes all that it activates trainable; here only the new one
    is."""
    model.base_model.set_adapter(list(names))
    for name, parameter in model.named_parameters():
        if f".{FROZEN}." in name:
            parameter.requires_grad_(False)


def stacked_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of two stacked adapters, by their names in the model; of another model none."""
    if not is_stacked(model):
        return {}
    marks = tuple(f".{label}." for label in (FROZEN, TRAINED))
    return {
        n: p for n, p in model.named_parameters() if ".lora_" in n and any(m in n for m in marks)
    }


def save_sum(model: Any, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write both adapters as the one ordinary adapter that they are together. `weights`: theirs, whole,
    by name, where the model lies in parts."""
    own = weights or stacked_weights(model)
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for name, layer in _layers(model):
        place = f"base_model.model.{name}"
        parts = [part for part in (FROZEN, TRAINED) if part in layer.lora_A]
        down = torch.cat([own[f"{place}.lora_A.{part}.weight"] for part in parts], dim=0)
        # Two adapters may have two scalings, and one has one: they go into B.
        ups = [own[f"{place}.lora_B.{part}.weight"] * layer.scaling[part] for part in parts]
        tensors[f"{place}.lora_A.weight"] = down.detach().cpu().contiguous()
        tensors[f"{place}.lora_B.weight"] = torch.cat(ups, dim=1).detach().cpu().contiguous()
        ranks[name] = len(down)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    _config_of_sum(model, ranks).save_pretrained(folder)


def _config_of_sum(model: Any, ranks: dict[str, int]) -> Any:
    """A configuration with alpha = r in every layer (scaling 1)."""
    ((usual, _),) = Counter(ranks.values()).most_common(1)
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    config = copy.deepcopy(model.peft_config[TRAINED])
    config.base_model_name_or_path = model.peft_config[FROZEN].base_model_name_or_path
    config.revision = model.peft_config[FROZEN].revision
    config.r, config.lora_alpha = usual, usual
    config.rank_pattern, config.alpha_pattern = others, dict(others)
    config.target_modules = _shortest(model, set(ranks))
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.use_rslora, config.inference_mode = False, True
    return config


def _shortest(model: Any, names: set[str]) -> list[str]:
    """The layers by the last part of their names where that finds no others, else in full."""
    ends = {name.rpartition(".")[2] for name in names}
    found = {
        name
        for name, _ in model.get_base_model().named_modules()
        if name.rpartition(".")[2] in ends
    }
    return sorted(ends if found == names else names)


def save_trained(model: Any, file: Path) -> None:
    """Write the new adapter alone, bit for bit: what a checkpoint needs beside the sum."""
    save_file({n: p.detach().cpu().contiguous() for n, p in _trained(model).items()}, file)


def restore_trained(model: Any, file: Path) -> None:
    """Put the values that `save_trained` wrote back into the new adapter."""
    saved, parameters = load_file(file), _trained(model)
    if saved.keys() != parameters.keys():
        raise ValueError(f"{file}: the adapter saved there has other layers than this run's")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if f".{TRAINED}." in name}


def _layers(model: Any) -> list[tuple[str, Any]]:
    """The adapted layers, by their names in the base model."""
    from peft.tuners.lora import LoraLayer

    named = model.get_base_model().named_modules()
    return [(name, layer) for name, layer in named if isinstance(layer, LoraLayer)]


def _flat(layer: Any) -> bool:
    """Whether the layer's adapters are matrices (those of convolutions are not)."""
    return all(down.weight.dim() == 2 for down in layer.lora_A.values())
