"""Proximal SFT: each token is learnt only until it is some way likelier than it was.

Zhu et al. 2025, arXiv 2508.17784: PPO's clipped surrogate where every given token has advantage 1,

    L = 1 + epsilon - min(r, 1 + epsilon),   r = pi(y_t | x, y_<t) / pi_old(y_t | x, y_<t)

A token that has gained a factor of 1 + epsilon has no gradient any more, so SFT does not press on what
is learnt, and entropy does not collapse. Of a positive advantage the lower clip does nothing. The paper
maximises min(r, clip(r)); 1 + epsilon is added here so that 0 is the least.

pi_old is the run's `reference`: the model that the run, or the stage, starts from. The authors take the
policy as it was at most eight updates before, so that theirs may go any way in small steps; here it goes
as far as epsilon allows, and stages of one recipe, each with `reference: start`, go further.

Default as in the released script: epsilon 0.28.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from onestage.objectives import Feedback, Measured, Objective, Scored, Units
from onestage.objectives._likelihood import GOOD, good_tokens


@dataclass(frozen=True)
class PSFT(Objective):
    paper = "2508.17784"
    equation = "`1 + epsilon - min(pi / pi_ref, 1 + epsilon)`"
    at_start = "epsilon, with SFT's gradient"
    second_opinion = "the authors' code, run beside ours"
    unit = "token"
    kinds = GOOD

    epsilon: float = 0.28
    """A token is learnt until it is 1 + epsilon times as likely as the reference finds it."""

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise ValueError(f"psft: epsilon must be positive, got {self.epsilon}")

    def units(self, feedback: Feedback) -> Units:
        return good_tokens(feedback)

    def losses(self, batch: Scored) -> Tensor:
        gained_K = batch.logp_K - batch.ref_logp_K
        # Clipped before `exp`, which would overflow; the gradient ends at the border.
        return 1 + self.epsilon - gained_K.clamp(max=math.log1p(self.epsilon)).exp()

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        learnt_K = batch.logp_K - batch.ref_logp_K > math.log1p(self.epsilon)
        return {"clip_rate": batch.per_response(learnt_K.float()) / batch.feedback.tokens_N}
