"""Rewards by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onestage.rollout.rewards
from onestage.named import Registry
from onestage.rollout.rewards.contract import Reward

APART = frozenset(
    {
        "contract",
        "registry",
        "pool",
        "worker",
        "checker",
        "marked",
        "arithmetic",
        "hendrycks",
        "instructions",
    }
)
_REGISTRY = Registry(
    "reward",
    onestage.rollout.rewards,
    Reward,  # type: ignore[type-abstract]
    APART,
)
names, find = _REGISTRY.names, _REGISTRY.find


def make(name: str, options: Mapping[str, Any]) -> Reward:
    """A reward with its options checked."""
    return _REGISTRY.make(name, options)
