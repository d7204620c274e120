"""Schedules by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onestage.schedules
from onestage.named import Registry
from onestage.schedules.contract import Schedule

APART = frozenset({"contract", "registry", "clipping", "suboptimality"})
HIDDEN = ("weight", "steps", "seed", "optimum", "raised", "values", "known_at", "best")
"""Fields that are not a recipe's options: what the program knows, and what they carry along."""
_REGISTRY = Registry("schedule", onestage.schedules, Schedule, APART)  # type: ignore[type-abstract]
names, find = _REGISTRY.names, _REGISTRY.find


def make(
    name: str,
    weight: Mapping[str, float],
    steps: int,
    seed: int,
    options: Mapping[str, Any],
    optimum: Mapping[str, float] | None = None,
) -> Schedule:
    """A schedule with its options checked.

    `optimum`: f* of the terms, for the schedules that look at them.
    """
    given = {"weight": dict(weight), "steps": steps, "seed": seed, "optimum": dict(optimum or {})}
    return _REGISTRY.make(name, options, given, HIDDEN)
