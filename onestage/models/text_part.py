"""The language model inside a model of text and images.

Folders of Gemma 3 from 4 B on, of LLaVA and their like hold a text decoder beside a vision tower. The
decoder alone is an ordinary language model, which is what is trained and saved.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM

from onestage.models.loading import LoadError, reading

ALONE = "which is no language model by itself in transformers; give a model of text alone"


def text_part(model: Any) -> Any:
    """The text decoder of a loaded model with its head, as the language model that transformers has for
    it; its weights are the model's own.

    Raises `LoadError` where transformers has none.
    """
    config = model.config.get_text_config()
    kind: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)

    decoder, name = model.get_decoder(), type(model).__name__
    if kind is None:
        raise LoadError(f"{name} holds text of the type {config.model_type}, {ALONE}")
    with reading(f"the text part of {name}"):
        config.dtype, attention = model.dtype, config._attn_implementation
        alone = kind._from_config(config, dtype=model.dtype, attn_implementation=attention)
        if type(alone.get_decoder()) is not type(decoder):
            raise LoadError(f"{name} holds text in a {type(decoder).__name__}, {ALONE}")
        setattr(alone, alone.base_model_prefix, decoder)
        alone.set_output_embeddings(model.get_output_embeddings())
    alone.generation_config = model.generation_config
    return alone.eval()
