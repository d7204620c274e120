"""Models out: plain transformers and PEFT folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from onestage.models.endings import save_ends
from onestage.models.stacking import is_stacked, restore_trained, save_sum, save_trained
from onestage.runfolder.disk import whole_folder

TRAINED_FILE = "trained.safetensors"
"""Of a checkpoint of stacked adapters: the trained one alone, from which a run goes on exactly."""


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save what plain transformers (or PEFT, for adapters) loads, tokenizer included."""
    with whole_folder(folder) as draft:
        fill_model(model, tokenizer, draft)


def fill_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer into an existing folder."""
    fill_weights(model, folder)
    if hasattr(model, "peft_config"):
        save_ends(model, folder)
    tokenizer.save_pretrained(folder)


def fill_weights(model: Any, folder: Path) -> None:
    """Write the model, or its adapter, into an existing folder."""
    if is_stacked(model):
        save_sum(model, folder)
    else:
        model.save_pretrained(folder)


def fill_exact(model: Any, folder: Path) -> None:
    """Write into a checkpoint what its ordinary model folder does not hold bit for bit."""
    if is_stacked(model):
        # The sum holds s B, out of which B comes back rounded; a run must go on from B itself.
        save_trained(model, folder / TRAINED_FILE)


def restore_weights(model: Any, checkpoint: Path) -> None:
    """Put a checkpoint's weights into a model of the same kind, in place and bit for bit."""
    folder = checkpoint / "model"
    if is_stacked(model):
        restore_trained(model, checkpoint / TRAINED_FILE)
        return
    if hasattr(model, "peft_config"):
        from peft.utils import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    saved = type(model).from_pretrained(folder, dtype=model.dtype)
    with torch.no_grad():
        model.load_state_dict(saved.state_dict())
