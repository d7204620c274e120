"""Supervised fine-tuning: the likelihood of good responses.

    L = - sum_t log pi(y_t | x, y_<t)

Demonstrations and text are good by definition; of a pair the chosen side, of labels the thumbs up.
Scores count as good from `min_score` on. What is not good is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from onestage.objectives.contract import Feedback, Loss, Objective, Scored, Unit
from onestage.records.record import Kind


@dataclass(frozen=True)
class SFT(Objective):
    needs_reference = False

    reduction: Literal["token", "sum"] = "token"
    """`token`: mean over all scored tokens (what trainers do). `sum`: a response's tokens are summed
    and the mean is over responses, which is what UFT's demonstration term tends to (una_uft T5)."""
    min_score: float | None = None
    """Scored responses at or above this are imitated; needed to use `score` and `group` records."""

    @property
    def unit(self) -> Unit:
        return "token" if self.reduction == "token" else "response"

    @property
    def kinds(self) -> frozenset[Kind]:
        always: frozenset[Kind] = frozenset({"demonstration", "text", "pair", "label"})
        return always if self.min_score is None else always | {"score", "group"}

    def _weight_N(self, feedback: Feedback) -> Tensor:
        good_N = feedback.of("demonstration", "text", "pair") & ~feedback.rejected_N
        good_N |= feedback.of("label") & (feedback.score_N == 1)
        if self.min_score is not None:
            good_N |= feedback.of("score", "group") & (feedback.score_N >= self.min_score)
        return feedback.weight_N * good_N

    def count(self, feedback: Feedback) -> Tensor:
        weight_N = self._weight_N(feedback)
        return (weight_N * feedback.tokens_N).sum() if self.unit == "token" else weight_N.sum()

    def __call__(self, batch: Scored) -> Loss:
        weight_N, record_N = self._weight_N(batch.feedback), batch.feedback.record_N
        if self.unit == "token":
            weight_K = weight_N[batch.response_K]
            return Loss(-batch.logp_K * weight_K, weight_K, record_N[batch.response_K])
        return Loss(-batch.per_response(batch.logp_K) * weight_N, weight_N, record_N)
