"""Supervised fine-tuning: the likelihood of good responses.

    L = - sum_t log pi(y_t | x, y_<t)

Demonstrations and text are good by definition; of a pair the chosen side, of labels the thumbs up.
Scores count as good from `min_score` on. What is not good is not looked at.

With `min_score`, answers that were sampled to problems are imitated where their reward reaches it:
rejection sampling, as in RAFT (Dong et al. 2023, arXiv 2304.06767) or STaR (Zelikman et al. 2022, arXiv
2203.14465). A hint they were given is not.

`reweight` multiplies the loss of a token by a function of its probability p through which no gradient
goes; what the mean is over stays as it is. `dft`: p, which takes away the 1/p hidden in SFT's gradient
(Wu et al. 2025, arXiv 2508.05629). `chord`: p (1 - p), which leaves out what the policy is sure of as
well as what is far from it (CHORD-phi, Zhang et al. 2025, arXiv 2508.11408).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from onestage.config import MAY_BE_INFINITE
from onestage.data.kinds import Kind
from onestage.objectives import Feedback, Objective, Scored, Unit, Units
from onestage.objectives._likelihood import GOOD, good_N


@dataclass(frozen=True)
class SFT(Objective):
    equation = (
        "`- log pi`, times p with `reweight: dft`, p (1 - p) with `chord`; of scores, groups "
        "and sampled answers from `min_score` on; `reduction: sum`: of a response"
    )
    second_opinion = "TRL's trainer, with `dft` too"
    needs = frozenset({"logp"})

    reduction: Literal["token", "sum"] = "token"
    """`token`: mean over all scored tokens (what trainers do). `sum`: a response's tokens are summed
    and the mean is over responses, which is what UFT's demonstration term tends to (una_uft T5)."""
    min_score: float | None = field(default=None, metadata=MAY_BE_INFINITE)
    """Responses with this score or reward or more are imitated; needed to use `score`, `group` and
    `check` records. -.inf: all of them."""
    reweight: Literal["none", "dft", "chord"] = "none"
    """Weight of a token, by how likely the policy finds it."""

    @property
    def unit(self) -> Unit:
        return "token" if self.reduction == "token" else "response"

    @property
    def kinds(self) -> frozenset[Kind]:
        return GOOD if self.min_score is None else GOOD | {"score", "group", "check"}

    def units(self, feedback: Feedback) -> Units:
        good = good_N(feedback)
        if self.min_score is not None:
            judged_N = feedback.of("score", "group", "check") & feedback.are("response")
            good |= judged_N & (feedback.score_N >= self.min_score)
        return feedback.units(self.unit, feedback.weight_N * good)

    def losses(self, batch: Scored) -> Tensor:
        loss_K = -batch.logp_K * self._factor_K(batch.logp_K.detach())
        return loss_K if self.unit == "token" else batch.per_response(loss_K)

    def _factor_K(self, logp_K: Tensor) -> Tensor:
        if self.reweight == "none":
            return torch.ones_like(logp_K)
        p_K = logp_K.clamp(max=0.0).exp()
        return p_K if self.reweight == "dft" else p_K * (1 - p_K)
