"""Worlds by name."""

from __future__ import annotations

import onestage.study.worlds
from onestage.named import Registry
from onestage.study.world import World

_REGISTRY = Registry(
    "world",
    onestage.study.worlds,
    World,  # type: ignore[type-abstract]
    frozenset({"registry"}),
)
names, find, make = _REGISTRY.names, _REGISTRY.find, _REGISTRY.make
