"""CHORD: from imitation to reinforcement, by a weight mu that falls along a cosine.

    L = (1 - mu) L_RL + mu L_SFT;   mu: 0.9 -> 0.05 over 200 steps

Zhang et al. 2025 (arXiv 2508.11408), CHORD-mu with the authors' defaults (hint_uft.md section 3). The
supervised term is named; the others share 1 - mu by their weights. Its own weight says only whether it
is trained on at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onestage.config import nearest
from onestage.schedules import Schedule


@dataclass
class Chord(Schedule):
    supervised: str = "sft"
    """The term that mu weighs."""
    peak: float = 0.9
    valley: float = 0.05
    decay_steps: int = 200
    """Steps from peak to valley; mu stays at the valley afterwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights and self.supervised not in self.weights:
            known = list(self.weights)
            raise ValueError(
                f"chord: no term {self.supervised!r} to weigh by mu{nearest(self.supervised, known)}"
            )
        if self.weights and not any(w for t, w in self.weights.items() if t != self.supervised):
            raise ValueError(f"chord: needs another term beside {self.supervised!r}")
        if not 0 <= self.valley <= self.peak <= 1 or self.decay_steps < 1:
            raise ValueError(
                "chord: needs 0 <= valley <= peak <= 1 and decay_steps >= 1, got "
                f"{self.valley}, {self.peak}, {self.decay_steps}"
            )

    def mu(self, step: int) -> float:
        """Weight of the supervised term, where it is trained on."""
        gone = min(step / self.decay_steps, 1.0)
        return self.valley + (self.peak - self.valley) * (1 + math.cos(math.pi * gone)) / 2

    def weigh(self, step: int) -> dict[str, float]:
        others = {term: w for term, w in self.share.items() if term != self.supervised}
        mu, total = self.mu(step) if self.share[self.supervised] else 0.0, sum(others.values())
        found = {term: (1 - mu) * w / total for term, w in others.items()}
        return {term: found.get(term, mu) for term in self.weights}

    def reweigh(self, weights: Mapping[str, float]) -> None:
        raise ValueError("chord's weights are a function of the step: none can be raised")
