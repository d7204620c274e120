"""Objectives by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onestage.objectives
from onestage.named import Registry
from onestage.objectives.contract import Objective

APART = frozenset({"contract", "registry", "measures", "policy_gradient"})
_REGISTRY = Registry(
    "objective",
    onestage.objectives,
    Objective,  # type: ignore[type-abstract]
    APART,
    {"una": "uft"},
)
names, find = _REGISTRY.names, _REGISTRY.find


def make(name: str, options: Mapping[str, Any]) -> Objective:
    """An objective with its options checked."""
    return _REGISTRY.make(name, options)
