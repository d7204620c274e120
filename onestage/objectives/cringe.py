"""Pairwise cringe: likelihood on the chosen answer, and on the rejected one a contrast of each token.

Xu et al. 2023, arXiv 2312.16682, from the cringe loss of Adolphs et al. 2022 (arXiv 2211.05826):

    L = g (- log pi(y_w|x) + cringe_coef sum_t C_t),   g = sigma((bias - M) / temperature)
    M = log pi(y_w|x) - log pi(y_l|x)
    C_t = - log(exp(s*) / (exp(s*) + exp(s_t))) = log(1 + pi(y_t) / pi(*))

with s_t the logit of the t-th token of the rejected answer, and s* that of another token, one of the k
likeliest. So it says at each token what should stand there instead, which unlikelihood does not: what
the policy finds likely anyhow. The gate g closes where the two answers are already far enough apart; at
`bias: .inf` it is open, which is the cringe loss of good and bad answers. There is no reference.

The authors draw the other token by its probability among the k; here the mean over the k is taken
instead, with the weights that they would be drawn by, fixed as theirs are: the same gradient on average,
without the noise of the draw. Token by token C is that of their released code (ParlAI,
`projects/cringe`); the pairwise form was not released, and its gate is as descriptions of the paper have
it. They do not say whether a gradient goes through the gate. `gate: fixed` lets none through, as a gate
that weighs; `learned` differentiates L as it is written, so that making M larger closes the gate, too.

Sums over tokens; the mean is over pairs. Default: cringe_coef 1, the released code's; k 5, temperature
10 and bias -10, which are ours: no source that we could read has the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from onestage.config import MAY_BE_INFINITE
from onestage.objectives import Measured, Need, Objective, Scored


@dataclass(frozen=True)
class Cringe(Objective):
    paper = "2312.16682"
    equation = (
        "`g (-log pi_w + cringe_coef sum_t log(1 + pi(y_t) / pi(*)))`, the sum over rejected "
        "tokens, `*` the k likeliest others, g = `sigma((bias - log pi_w + log pi_l) / "
        "temperature)`; no reference"
    )
    at_start = "by the model"
    second_opinion = "the authors' code, as it was read (a token's)"
    unit = "pair"
    kinds = frozenset({"pair"})
    needs = frozenset({"logp", "rivals"})

    k: int = 5
    """Tokens that a rejected one is held against."""
    cringe_coef: float = 1.0
    """Weight of the contrast beside the likelihood of the chosen answer."""
    bias: float = field(default=-10.0, metadata=MAY_BE_INFINITE)
    """The margin M (nats) at which the gate is half open; .inf: always open."""
    temperature: float = 10.0
    """Nats over which it closes."""
    gate: Literal["fixed", "learned"] = "fixed"
    """Whether a gradient goes through the gate."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"cringe: k must be at least 1, got {self.k}")
        if self.cringe_coef < 0:
            raise ValueError(f"cringe: cringe_coef must be at least 0, got {self.cringe_coef}")
        if self.temperature <= 0:
            raise ValueError(f"cringe: temperature must be positive, got {self.temperature}")
        if self.bias == -math.inf:
            raise ValueError(
                "cringe: bias must be a number or .inf (gate open), got -.inf, which shuts the gate: "
                "nothing would be learnt"
            )

    @property
    def numbers(self) -> Mapping[Need, float]:
        return {"rivals": self.k}

    def losses(self, batch: Scored) -> Tensor:
        chosen_P, rejected_P = batch.feedback.pair_P2.unbind(1)
        learnt_P = -batch.per_response(batch.logp_K)[chosen_P]
        unlearnt_P = batch.per_response(batch.extra["rivals"])[rejected_P]
        gate_P = self._gate_P(batch)
        if self.gate == "fixed":
            gate_P = gate_P.detach()
        return gate_P * (learnt_P + self.cringe_coef * unlearnt_P)

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        """How open the gate is, of the chosen answer of each pair."""
        chosen_P = batch.feedback.pair_P2[:, 0]
        gate_N = torch.full_like(batch.per_response(batch.logp_K), torch.nan)
        return {"gate": gate_N.index_put((chosen_P,), self._gate_P(batch))}

    def _gate_P(self, batch: Scored) -> Tensor:
        margin_P = batch.apart_P(batch.per_response(batch.logp_K))
        return torch.sigmoid((self.bias - margin_P) / self.temperature)
