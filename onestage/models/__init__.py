"""Models: folders in, log-probabilities of forest rows out, folders out.

The only room that knows transformers and peft. What other rooms ask of it stands here; each name is read
from its file when it is first used, so that a recipe can be parsed and `--help` printed without them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onestage.models.model import Lora, Model

if TYPE_CHECKING:
    from onestage.models.fingerprint import digest, digest_files
    from onestage.models.footprint import check_shape
    from onestage.models.policy import Policy
    from onestage.models.source import (
        adapter_base,
        check_reference,
        check_trained,
        check_vocabulary,
        config_of,
        positions_of,
        preserved_in,
        reference_of,
        tokenizer_of,
    )
    from onestage.models.weights import Loaded, given, load, open

__all__ = [
    "Loaded",
    "Lora",
    "Model",
    "Policy",
    "adapter_base",
    "check_reference",
    "check_shape",
    "check_trained",
    "check_vocabulary",
    "config_of",
    "digest",
    "digest_files",
    "given",
    "load",
    "open",
    "positions_of",
    "preserved_in",
    "reference_of",
    "tokenizer_of",
]

FILES = {
    "fingerprint": {"digest", "digest_files"},
    "footprint": {"check_shape"},
    "policy": {"Policy"},
    "weights": {"Loaded", "given", "load", "open"},
}
"""Where the names are; all others are in `source`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = next((file for file, names in FILES.items() if name in names), "source")
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)
