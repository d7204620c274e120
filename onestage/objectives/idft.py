"""In-distribution fine-tuning: a token is learnt as far as the policy might have said it itself.

Zhang et al. 2026, arXiv 2602.12222. What a distribution of entropy H expects of the log-probability of
its own tokens is -H, so phi = log p + H says how far a given token lies above (its own) or below (a
stranger's) that. With the weight p^g, through which no gradient goes,

    L = - p^g log p,   g = min(max(exp(-phi / beta), gamma_min), gamma_max)

A stranger's token has g = 2: the little that it is likely counts twice over. One that the policy might
have said is learnt nearly as in SFT, which is g = 0; DFT (`sft` with `reweight: dft`) is g = 1 for all.

H is of the whole distribution, in nats. The released code (zhangmiaosen2000/Towards-On-Policy-SFT) lets
no gradient through p^g either, and keeps p above 1e-10, below which this goes on. Their script goes from
g = 1 to this between a fifth and three tenths of a run: a stage of `sft` with `reweight: dft` before one
of this. Defaults as in that script: beta 1, gamma_min 0.1, gamma_max 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives._likelihood import Weighed

LARGE = 20.0
"""Of an exponent before `exp`: far above what any g is kept to."""


@dataclass(frozen=True)
class IDFT(Weighed):
    paper = "2602.12222"
    equation = "`-p^g log pi`, g = `exp(-(log p + H) / beta)` between .1 and 2, H the entropy"
    second_opinion = "the authors' code, as it was read"
    needs = frozenset({"logp", "entropy"})

    beta: float = 1.0
    """Nats: how sharply g falls from a stranger's tokens to the policy's own."""
    gamma_min: float = 0.1
    gamma_max: float = 2.0
    """What g is kept between."""

    def __post_init__(self) -> None:
        if self.beta <= 0 or not 0 <= self.gamma_min <= self.gamma_max:
            raise ValueError(
                "idft: needs beta > 0 and 0 <= gamma_min <= gamma_max, got "
                f"{self.beta}, {self.gamma_min}, {self.gamma_max}"
            )

    def _weight_K(self, batch: Scored) -> Tensor:
        phi_K = batch.logp_K + batch.extra["entropy"]
        gamma_K = (-phi_K / self.beta).clamp(max=LARGE).exp().clamp(self.gamma_min, self.gamma_max)
        return torch.exp(gamma_K * batch.logp_K.clamp(max=0.0))
