"""Proportional: every term weighs as much as its share of the records, in every step.

This is what UFT does (Wang et al. 2024, arXiv 2410.21438): sets are mixed by their sizes. With one
objective for everything there is one term, of weight 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Proportional:
    share: Mapping[str, float]
    """Records of each term in a step; any scale."""

    def __post_init__(self) -> None:
        if any(share < 0 for share in self.share.values()) or not sum(self.share.values()) > 0:
            raise ValueError(
                f"proportional: shares must be >= 0 and not all 0, got {dict(self.share)}"
            )

    def weights(self, step: int) -> Mapping[str, float]:
        total = sum(self.share.values())
        return {term: share / total for term, share in self.share.items()}

    def refresh(self, step: int) -> bool:
        return False

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        return None
