"""The base model of the demo: a Llama of 0.34 million parameters, and how to pretrain it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase


def base_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Arguments of `AutoConfig.for_model`, as a recipe's `model.config` takes them."""
    return {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 384,
        "max_position_embeddings": 128,
        "initializer_range": 0.06,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def pretraining_settings() -> dict[str, Any]:
    """The `train` section of the recipe that makes the base: text records, objective sft.

    Learning facts comes in jumps (what is asked, who says it, copying), and fewer steps or a smaller
    rate miss the last ones on some seeds. Weight decay keeps facts from being overwritten later.
    """
    return {
        "max_steps": 1600,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.05,
        "weight_decay": 0.1,
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "max_length": 64,
        "tokens_per_row": 256,
    }
