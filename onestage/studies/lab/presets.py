"""Sizes of a lab's base model, and how each is pretrained.

`small`: a Llama of a third of a million parameters for the small world, for two CPU cores. `large`:
about 30 million for the large world, for one GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

Size = Literal["small", "large"]


@dataclass(frozen=True)
class Preset:
    """What differs between sizes."""

    config: Mapping[str, Any]
    """Of the Llama; the rest is the tokenizer's and the same for all."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's `train` section."""


LEARNING: dict[str, Any] = {
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.05,
    "weight_decay": 0.1,
    "adam_beta2": 0.95,
    "max_grad_norm": 1.0,
    "max_length": 64,
    "logging_steps": 100,
}
"""Learning facts comes in jumps (what is asked, who says it, copying), and fewer steps or a smaller rate
miss the last ones on some seeds. Weight decay keeps facts from being overwritten later."""
PRESETS: dict[str, Preset] = {
    "small": Preset(
        {
            "hidden_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 384,
            "initializer_range": 0.06,
        },
        {
            **LEARNING,
            "max_steps": 2500,
            "batch_size": 8,
            "learning_rate": 7e-3,
            "tokens_per_row": 512,
        },
    ),
    "large": Preset(
        {
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "intermediate_size": 2048,
            "initializer_range": 0.02,
        },
        {
            **LEARNING,
            "max_steps": 6000,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "tokens_per_row": 8192,
            "bf16": True,
        },
    ),
}


def size_of(name: str) -> Size:
    """A size by its name. Raises `ValueError`."""
    if name not in PRESETS:
        raise ValueError(f"unknown size {name!r}; there are {', '.join(PRESETS)}")
    return name  # type: ignore[return-value]


def base_config(tokenizer: PreTrainedTokenizerBase, preset: Size = "small") -> dict[str, Any]:
    """The configuration of the base of a size."""
    return llama(tokenizer, {**PRESETS[preset].config, "max_position_embeddings": 128})


def llama(tokenizer: PreTrainedTokenizerBase, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `AutoConfig.for_model`, as a recipe's `model.config` takes them: a Llama of a shape
    for a tokenizer."""
    return {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        **shape,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def pretraining_settings(preset: Size = "small") -> dict[str, Any]:
    """The `train` section of the recipe that makes the base: text records, objective sft."""
    return dict(PRESETS[preset].train)
