"""Models to be asked, not trained: any folder that training leaves, on the device there is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from onestage.policy.loading import Loaded, ModelSource, load

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def loaded(model: str | Path, dtype: Precision = "auto", tokenizer: str | None = None) -> Loaded:
    """A model folder, adapter folder or hub id, ready to be asked, with its tokenizer or another."""
    source = ModelSource(name=str(model), tokenizer=tokenizer, dtype=dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = load(source, device)
    found.model.eval()
    return found
