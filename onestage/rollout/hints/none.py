"""No hint at all: reinforcement learning from the bare question (RFT in UFT's tables)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onestage.rollout.hints import Hint


@dataclass(frozen=True)
class NoHint(Hint):
    gives: ClassVar[bool] = False

    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        return 0
