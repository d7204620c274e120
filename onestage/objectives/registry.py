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


def make(name: str, options: Mapping[str, Any], longest: int | None = None) -> Objective:
    """An objective with its options checked. `longest`: the run's `max_completion_length`."""
    given = {} if longest is None else {"max_completion_length": longest}
    return _REGISTRY.make(name, {**options}, {k: v for k, v in given.items() if k not in options})
