"""What the objectives of imitation share: which responses are good, and a loss of each of their tokens.

Demonstrations and text are good by definition; of a pair the chosen side, of labels the thumbs up. What
is not good is not looked at. An objective says what a token's loss is; the mean is over all tokens of
good responses, whatever weights the loss has inside, as trainers take it.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from onestage.data.kinds import Kind
from onestage.objectives import Feedback, Measured, Objective, Scored, Units

GOOD: frozenset[Kind] = frozenset({"demonstration", "text", "pair", "label"})
"""The kinds that say by themselves what is good."""


def good_N(feedback: Feedback) -> Tensor:
    """Mask (N) of the responses that are good by definition."""
    given_N = feedback.of("demonstration", "text", "pair") & ~feedback.rejected_N
    return given_N | (feedback.of("label") & (feedback.score_N == 1))


def good_tokens(feedback: Feedback) -> Units:
    """Every token of good responses is a unit."""
    return feedback.units("token", feedback.weight_N * good_N(feedback))


def probability_K(logp_K: Tensor) -> Tensor:
    """The probability of each token, through which no gradient goes."""
    return torch.exp(logp_K.detach().clamp(max=0.0))


class Weighed(Objective):
    """SFT in which each token of good responses has a weight, through which no gradient goes."""

    unit = "token"
    kinds = GOOD

    def units(self, feedback: Feedback) -> Units:
        return good_tokens(feedback)

    def losses(self, batch: Scored) -> Tensor:
        return -batch.logp_K * self._weight_K(batch.detached())

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        return {"weight": batch.per_response(self._weight_K(batch)) / batch.feedback.tokens_N}

    @abc.abstractmethod
    def _weight_K(self, batch: Scored) -> Tensor:
        """The weight of each token (K)."""
