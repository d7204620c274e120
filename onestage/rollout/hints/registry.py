"""Hint rules by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onestage.rollout.hints
from onestage.named import Registry
from onestage.rollout.hints.contract import Hint

APART = frozenset({"contract", "registry", "chunks"})
_REGISTRY = Registry(
    "hint rule",
    onestage.rollout.hints,
    Hint,  # type: ignore[type-abstract]
    APART,
)
names, find = _REGISTRY.names, _REGISTRY.find


def make(name: str, options: Mapping[str, Any]) -> Hint:
    """A hint rule with its options checked."""
    return _REGISTRY.make(name, options)
