"""Discriminative fine-tuning: the given answer against those that the model itself would give.

Guo et al. 2025, arXiv 2502.18679: the likelihood of the answer y among all answers, instead of each
token among all tokens. With y' an answer sampled from the start model (told to be unhelpful, in the
paper) and s the score of an answer,

    L = - s(y) + exp(d - u) s(y'),   u = log((1 - gamma) e^u_before + gamma e^d)

No gradient goes through the factor: it says how large a part of all that the model would say y' is, by
a running mean of e^d, the normaliser. `form: dft`: s = log pi(y|x), d = log pi(y'|x) / tau - log
pi_ref(y'|x). `form: dft2`, without a reference: s = log pi(y|x) / |y|, d = s(y') / tau.

Records are pairs: the demonstration is chosen, what was sampled is rejected (`onestage sample` makes
them); the paper takes two of them for each prompt, which are two pairs here. It keeps a u for each
prompt, from epoch to epoch. Here the past is one number for all of them, a mean over the steps before,
in the checkpoint: for `dft` at tau 1 all prompts have the same normaliser, since the mean of pi / pi_ref
over the reference's answers is 1, and in a first epoch no prompt has a past. A pair's own e^d has
the share gamma, as there.

Defaults as in the released recipe: tau 1 and gamma 0.85 (`dft2`: 0.3 and 0.9), u = 0 at the start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Measured, Need, Objective, Scored

SMALL, LARGE = -60.0, 20.0
"""What d is kept between before `exp`: beyond, an answer is nothing, or all that there is."""


@dataclass(frozen=True)
class Discriminative(Objective):
    paper = "2502.18679"
    equation = (
        "`-s_w + exp(d - u) s_l`, s the log-likelihood, d = D_l, u the running normaliser in "
        "the checkpoint, the rejected answer a sampled one; no lower bound"
    )
    at_start = "by the model"
    second_opinion = "the authors' code, as it was read"
    unit = "pair"
    kinds = frozenset({"pair"})
    lowest = None  # a sampled answer may be made as unlikely as one likes

    form: Literal["dft", "dft2"] = "dft"
    """Log-probabilities of whole answers against the reference's, or means of their tokens alone."""
    tau: float | None = None
    """Temperature of the answers; null: that of the form."""
    gamma: float | None = None
    """Share of a pair's own number in the normaliser; null: that of the form."""

    def __post_init__(self) -> None:
        if self.tau is not None and self.tau <= 0:
            raise ValueError(f"discriminative: tau must be positive, got {self.tau}")
        if self.gamma is not None and not 0 < self.gamma <= 1:
            raise ValueError(f"discriminative: gamma must be in (0, 1], got {self.gamma}")

    @property
    def needs(self) -> frozenset[Need]:
        mine: frozenset[Need] = frozenset({"logp"})
        return mine | {"reference"} if self.form == "dft" else mine

    def losses(self, batch: Scored) -> Tensor:
        score_N, (chosen_P, rejected_P) = self._score_N(batch), batch.feedback.pair_P2.unbind(1)
        return self._factor_P(batch.detached()) * score_N[rejected_P] - score_N[chosen_P]

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        record_P = batch.feedback.record_N[batch.feedback.pair_P2[:, 0]]
        return {"factor": Measured(self._factor_P(batch), record_P)}

    def _score_N(self, batch: Scored) -> Tensor:
        total_N = batch.per_response(batch.logp_K)
        return total_N if self.form == "dft" else total_N / batch.feedback.tokens_N

    def _d_P(self, batch: Scored) -> Tensor:
        """d of each sampled answer."""
        tau = self.tau or (1.0 if self.form == "dft" else 0.3)
        if self.form == "dft":
            d_N = batch.per_response(batch.logp_K / tau - batch.ref_logp_K)
        else:
            d_N = self._score_N(batch) / tau
        return d_N[batch.feedback.pair_P2[:, 1]].clamp(SMALL, LARGE)

    def _factor_P(self, batch: Scored) -> Tensor:
        gamma, d_P = self._gamma, self._d_P(batch)
        past = (1 - gamma) * math.exp(batch.state["u"])
        # e^d over the mixture of both; divided through by e^d, so that nothing overflows.
        return 1 / (gamma + past * (-d_P).exp())

    @property
    def _gamma(self) -> float:
        return self.gamma or (0.85 if self.form == "dft" else 0.9)

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        size_N = batch.logp_K.new_full(batch.feedback.record_N.shape, torch.nan)
        size_N[batch.feedback.pair_P2[:, 1]] = self._d_P(batch).exp().to(size_N.dtype)
        return {"size": size_N}

    def start(self) -> dict[str, float]:
        return {"u": 0.0}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        if "size" not in observed:
            return dict(state)
        gamma = self._gamma
        mixed = (1 - gamma) * math.exp(state["u"]) + gamma * observed["size"]
        return {"u": math.log(mixed)}
