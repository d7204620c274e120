"""Engines by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onestage.rollout.samplers
from onestage.named import Registry
from onestage.rollout.samplers.contract import Sampler

GIVEN = ("model", "tokenizer")
_REGISTRY = Registry(
    "rollout engine",
    onestage.rollout.samplers,
    Sampler,  # type: ignore[type-abstract]
    frozenset({"contract", "registry"}),
)
names, find = _REGISTRY.names, _REGISTRY.find


def make(name: str, options: Mapping[str, Any], model: Any, tokenizer: Any) -> Sampler:
    """An engine with its options checked, for a policy's model."""
    return _REGISTRY.make(name, options, {"model": model, "tokenizer": tokenizer}, GIVEN)
