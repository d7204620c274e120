"""Models that are judged: any folder that training leaves, on the device there is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from onestage.policy.loading import Loaded, ModelSource, load, load_tokenizer

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def loaded(model: str | Path, dtype: Precision = "auto") -> Loaded:
    """A model folder, adapter folder or hub id, with its tokenizer."""
    source = ModelSource(name=str(model), dtype=dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load(source, device, load_tokenizer(source))
