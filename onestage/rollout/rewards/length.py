"""How long was the response, in tokens?

`overlong` is the punishment of DAPO (Yu et al., arXiv 2503.14476, Eq. 13): of a response of n tokens,

    0                              n <= limit - soft
    ((limit - soft) - n) / soft    up to the limit
    -1                             beyond it

`target` rewards a length: 1 at the target; on both sides 1 / soft less for each token, down to 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards._checker import Checker


@dataclass(frozen=True)
class Length(Checker):
    rule: Literal["overlong", "target"] = "overlong"
    limit: int = 20480
    """Tokens: the most of `overlong` (20,480 in the paper), or the target."""
    soft: int = 4096
    """Tokens over which the reward falls."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit < 1 or self.soft < 1:
            raise ValueError(f"limit and soft must be positive, got {self.limit} and {self.soft}")
        if self.rule == "overlong" and self.soft > self.limit:
            raise ValueError(f"soft ({self.soft}) must not be larger than limit ({self.limit})")

    def judge(self, answer: Answer) -> float:
        if self.rule == "target":
            return max(0.0, 1 - abs(answer.tokens - self.limit) / self.soft)
        if answer.tokens > self.limit:
            return -1.0
        return min(0.0, (self.limit - self.soft - answer.tokens) / self.soft)
