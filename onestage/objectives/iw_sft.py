"""Importance-weighted SFT: demonstrations count by how much the policy has come to agree with them.

Qin and Springenberg 2025, arXiv 2507.12856. SFT on good answers is a lower bound on the objective of
reinforcement learning; weights make it tighter as the policy moves:

    L = - w sum_t log pi(y_t | x, y_<t),   w = min(exp(temperature D / |y|), cap)

with D = log pi(y|x) - log pi_ref(y|x) and no gradient through w. The paper's weight is the ratio of
whole trajectories; over long answers it is 0 or infinite, and the authors' code takes the mean over a
response's tokens, as here (`level: response`), or each token's own ratio, kept within `spread` of 1
(`level: token`).
At the start all weights are 1: SFT. An answer that the policy gives up on fades, so this trusts what is
learnt first.

Defaults are those of the released training script: temperature 1, cap 16, spread 0.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives._likelihood import Weighed

LARGE = 20.0
"""Of a logarithm before `exp`: far above what any weight is kept to."""


@dataclass(frozen=True)
class ImportanceWeightedSFT(Weighed):
    paper = "2507.12856"
    equation = (
        "`-w log pi`, w = `exp(D / length)` below `cap`; `level: token`: each token's own ratio"
    )
    at_start = "as `sft`"
    second_opinion = "the authors' code, as it was read"

    level: Literal["response", "token"] = "response"
    """Whose ratio to the reference a token is weighed by."""
    temperature: float = 1.0
    """Of `level: response`: a power of the ratio. 0 is SFT."""
    cap: float = 16.0
    """Of `level: response`: the largest weight."""
    spread: float = 0.8
    """Of `level: token`: how far from 1 a weight may be."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.cap < 1:
            raise ValueError(
                "iw_sft: temperature must be at least 0 and cap at least 1, got "
                f"{self.temperature} and {self.cap}"
            )
        if not 0 <= self.spread < 1:
            raise ValueError(f"iw_sft: spread must be in [0, 1), got {self.spread}")

    def _weight_K(self, batch: Scored) -> Tensor:
        if self.level == "token":
            ratio_K = (batch.logp_K - batch.ref_logp_K).clamp(max=LARGE).exp()
            return ratio_K.clamp(1 - self.spread, 1 + self.spread)
        mean_N = batch.log_ratio_N() / batch.feedback.tokens_N
        weight_N = (self.temperature * mean_N).clamp(max=LARGE).exp().clamp(max=self.cap)
        return weight_N[batch.response_K]
