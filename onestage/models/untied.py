"""A model whose two ends share a weight, given one for each, as an adapter of one of them needs it.

Of most small models the output head is the embedding. An adapter of the head alone is no change of the
embedding; PEFT adds it to the weight of both. So each end gets its own copy before that, and what is
saved says that they are two.
"""

from __future__ import annotations

from typing import Any

import torch

from onestage.models.features import adapted_ties


def untie(adapted: Any) -> bool:
    """Give the ends of a model, under PEFT's adapters, weights of their own where an adapter lies on one
    of them; whether it was done. What the model says stays the same."""
    if not list(adapted_ties(adapted)):
        return False
    base = adapted.get_base_model()
    shared = {p.data_ptr() for p in base.get_input_embeddings().parameters()}
    for layer in base.get_output_embeddings().modules():
        for name, parameter in [*layer.named_parameters(recurse=False)]:
            if parameter.data_ptr() in shared:
                own = torch.nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                setattr(layer, name, own)
    for config in {id(c): c for c in (base.config, base.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    # transformers' list of what it leaves out when it saves, made when the model was.
    base.all_tied_weights_keys = {}
    return True
