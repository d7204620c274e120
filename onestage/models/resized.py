"""Adapters of a base that was given more embeddings than its folder holds.

Who adds tokens resizes the embeddings of the model, trains an adapter on it and saves that: the new
embeddings, whole, stand in the adapter (`modules_to_save`, or PEFT's own `save_embedding_layers`), and
the base that it names has the old ones. Plain PEFT wants the base resized again by hand before it loads
such an adapter; here that is done, where the adapter holds all that is new.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from onestage.models.features import ALONE, Door
from onestage.models.loading import LoadError, reading

WEIGHTS = "adapter_model.safetensors"
INPUT, OUTPUT = "embed_tokens", "lm_head"
"""What PEFT calls the two ends, and what it saves of them."""


def rows_of(folder: str | Path) -> dict[str, int]:
    """How many embeddings an adapter holds whole, by end; reads no tensor."""
    file = Path(folder) / WEIGHTS
    if not file.is_file():
        return {}
    with reading(str(file)), safe_open(file, framework="pt") as opened:
        plain = {
            name: re.sub(r"\.(?:token_adapter|base_layer)\b", "", name)
            for name in opened.keys()  # noqa: SIM118 - no dictionary
        }
        return {
            end: opened.get_slice(name).get_shape()[0]
            for name, own in plain.items()
            for end in (INPUT, OUTPUT)
            if own.endswith(f".{end}.weight")
        }


def vocabulary_of(folder: str | Path, config: Any) -> int:
    """How many embeddings the model of an adapter folder has, whose base has those of `config`.

    Raises `LoadError` where the adapter does not hold all that its base lacks.
    """
    rows, old = rows_of(folder), int(config.vocab_size)
    size = max(rows.values(), default=old)
    if size == old:
        return old
    wanted = {INPUT} if getattr(config, "tie_word_embeddings", False) else {INPUT, OUTPUT}
    missing = sorted(end for end in wanted if rows.get(end) != size)
    if missing:
        raise LoadError(
            f"{folder} was trained on {size} embeddings and its base has {old}; it holds no "
            f"{' and no '.join(missing)} of that size, so the new ones are lost: save the resized base "
            "with save_pretrained, and write its folder into base_model_name_or_path"
        )
    return size


def resize(model: Any, size: int) -> None:
    """Give a base room for the embeddings of an adapter, which then come from there, all of them."""
    old = model.config.get_text_config().vocab_size
    if size != old:
        model.resize_token_embeddings(size, mean_resizing=False)
        model.resized_from = old


def written_twice(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of an adapter is the second copy that PEFT writes of embeddings that are saved
    whole, or of tokens of tied ones, where the base was resized."""
    if not name.endswith((".modules_to_save.weight", ".token_adapter.trainable_tokens_delta")):
        return False
    first = name.replace(".modules_to_save.", ".").replace(f".{OUTPUT}.token_adapter.", "")
    ends = (first, f".{INPUT}.token_adapter.trainable_tokens_delta")
    twins = [tensors[n] for n in tensors if n != name and n.endswith(ends)]
    return any(torch.equal(twin, tensors[name]) for twin in twins)


def require_own_size(model: Any, door: Door, name: str) -> None:
    """Raise `LoadError` where a door leaves only the products of an adapter on a base, which has other
    embeddings than this one (a plain model, or PEFT's)."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    old = getattr(base, "resized_from", None)
    if old is not None and door not in ALONE:
        size = base.config.get_text_config().vocab_size
        raise LoadError(
            f"{name} has {size} embeddings and its base {old}; it cannot be {door}; make it whole "
            "(onestage merge ADAPTER --out FOLDER) and use that"
        )
