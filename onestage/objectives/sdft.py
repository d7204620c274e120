"""Self-distillation: towards what the model itself would say if it had read the solution.

Shenfeld et al. 2026, SDFT (arXiv 2601.19897); Zhao et al. 2026, OPSD (arXiv 2601.18734). The policy
answers a problem; a teacher, the same model with the solution in its prompt, reads the answer, and each
token y of it teaches

    L = (log p(y) - log q(y)) log p(y),   p the policy, q the teacher, the first factor fixed

whose gradient is, on average over the policy's own answers, that of KL(p || q) token by token. No reward
is looked at. The prompt of the teacher is the problem, an empty line, and its worked answer, as in TRL's
`SDFTTrainer`, whose default compares the 100 likeliest tokens; this is its `sampled_token` form, which
needs one number a token of the teacher. `teacher`:

- "reference": the run's reference, so the start model (TRL's default `base`, OPSD), or another model;
- "policy": the policy itself as it was when it answered (TRL's `live`). The paper's own teacher is a
  running mean of the policy's weights, which stands between the two.

Where answers are used more than once, a token is weighed by the ratio of its probability to that when it
was sampled, at most `clip`. A problem without a worked answer is read by the teacher as it is; `taught`
says how many were not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Measured, Need, Objective, Scored

FARTHEST = 20.0
"""Nats by which a token's probability may have moved, in exponents."""


@dataclass(frozen=True)
class SDFT(Objective):
    paper = "2601.19897"
    equation = (
        "S(A), A = log q - log p, q the model with the solution in its prompt; no reward, and"
        " what is told as `loss` is log p - log q a token"
    )
    second_opinion = "TRL's own code"
    unit = "token"
    kinds = frozenset({"check"})
    lowest = None

    teacher: Literal["reference", "policy"] = "reference"
    """Who reads the answer with the solution in the prompt."""
    clip: float | None = 2.0
    """Of the weight of a token that is used again; null: none."""

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"sdft: clip must be positive, got {self.clip}")

    @property
    def needs(self) -> frozenset[Need]:
        mine: frozenset[Need] = frozenset({"logp", "taught"})
        return mine | {"reference"} if self.teacher == "reference" else mine

    def asks(self, again: bool) -> frozenset[Need]:
        return frozenset({"logp"} if again or self.teacher == "policy" else ())

    def remember(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        said_K = batch.ref_logp_K if self.teacher == "reference" else batch.logp_K
        record_N, taught_N = batch.feedback.record_N, batch.feedback.are("taught")
        own_N = batch.feedback.are("response") & torch.isin(record_N, record_N[taught_N])
        # The answers of a record in order, once as they were given and once as they were read.
        own_K, taught_K = (mask_N[batch.response_K] for mask_N in (own_N, taught_N))
        teacher_K, read_K = said_K.clone(), torch.zeros_like(said_K)
        teacher_K[own_K], read_K[own_K] = said_K[taught_K], 1.0
        return {"teacher": teacher_K, "taught": read_K} | ({"old": batch.logp_K} if again else {})

    def losses(self, batch: Scored) -> Tensor:
        behind_K = (batch.logp_K - batch.remembered["teacher"]).detach()
        if "old" in batch.remembered:
            moved_K = (batch.logp_K - batch.remembered["old"]).detach()
            ratio_K = moved_K.clamp(-FARTHEST, FARTHEST).exp()
            behind_K = behind_K * (ratio_K if self.clip is None else ratio_K.clamp(max=self.clip))
        return behind_K * batch.logp_K

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        """The loss that is told: how much likelier the policy finds its tokens than the teacher does."""
        own_N, tokens_N = batch.feedback.are("response"), batch.feedback.tokens_N
        behind_N = batch.per_response(batch.logp_K - batch.remembered["teacher"]) / tokens_N
        read_N = batch.per_response(batch.remembered["taught"]) / tokens_N
        return {
            "loss": torch.where(own_N, behind_N, torch.nan),
            "taught": torch.where(own_N, read_N, torch.nan),
        }
