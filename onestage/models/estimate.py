"""What a run will take, reckoned from the model's configuration before any weights are there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from onestage.models.model import Precision
from onestage.models.rates import matmul_rate


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take, roughly; `basis` says how it was reckoned."""

    steps: int
    tokens: int
    parameters: int
    trained: int
    memory_gb: float
    seconds: float
    basis: str
    computed: torch.dtype
    """What most products are computed in."""
    precision: str = ""
    """What is computed in, stepped, and saved."""
    schedule: str = ""
    """Who is trained on, and on how much at a time."""


def parameters_of(config: PretrainedConfig) -> int:
    """The number of a model's parameters, from its configuration alone."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(p.numel() for p in model.parameters())


def estimate(
    config: PretrainedConfig,
    *,
    steps: int,
    tokens: int,
    tokens_per_row: int,
    lora_r: int | None,
    dtype: Precision,
    four_bits: bool,
    checkpointing: bool,
    computed_in: torch.dtype | None = None,
) -> Estimate:
    """Memory and time of a run: weights; float32 gradients, two AdamW moments and (where it is held in
    less) a float32 master of what is trained; the activations of one row; 6 operations a parameter and
    token (8 with checkpointing) at 40 % of this machine's own matrix-multiply rate in the precision of
    the computation (`computed_in`, or else the one that the weights are held in)."""
    size = parameters_of(config)
    held = held_in(config, dtype)
    bytes_per_weight = 0.55 if four_bits else held.itemsize  # half a byte, and the scales of blocks
    layers, hidden = config.num_hidden_layers, config.hidden_size
    trained = size if lora_r is None else 14 * layers * lora_r * hidden
    activations = tokens_per_row * hidden * layers * (2 if checkpointing else 34) * 4
    # Adapters are float32 themselves, whatever they lie on.
    masters = lora_r is not None or held.itemsize < 4
    memory = size * bytes_per_weight + trained * (16 if masters else 12) + activations
    computed = computed_in or (torch.float32 if four_bits else held)
    rate = matmul_rate(computed)
    work = (8 if checkpointing else 6) * size * tokens
    return Estimate(
        steps=steps,
        tokens=tokens,
        parameters=size,
        trained=trained,
        memory_gb=memory / 1e9,
        seconds=work / (0.4 * rate),
        computed=computed,
        precision=_precision(held, four_bits=four_bits, adapters=lora_r is not None),
        basis=f"{rate / 1e9:,.0f} GFLOP/s in {_name(computed)} measured here, 40 % of it used",
    )


def held_in(config: PretrainedConfig, dtype: Precision) -> torch.dtype:
    """The precision that a model's weights are held in; `auto` is the one they were saved in."""
    saved = getattr(config, "dtype", None) or torch.float32
    found = saved if dtype == "auto" else dtype
    return found if isinstance(found, torch.dtype) else getattr(torch, str(found))


def _precision(held: torch.dtype, *, four_bits: bool, adapters: bool) -> str:
    name = "4 bits" if four_bits else _name(held)
    if adapters:
        return f"{name}, frozen, under adapters trained and saved in float32"
    if held.itemsize < 4:
        return f"runs and is saved in {name}, trained by float32 masters"
    return f"trained and saved in {name}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
