"""SFT from an f-divergence, which keeps hold of the reference where plain SFT lets go of it.

Wang et al. 2025, "Implicit Reward as the Bridge" (arXiv 2507.00018), read imitation as

    min_pi D_f(mu || pi) + beta KL(pi || pi_ref),   D_f(mu || pi) = sum_y pi f(mu / pi),   mu the expert,

in which plain SFT is the f whose conjugate is linear: there the KL cancels, and nothing but the learning
rate holds the policy. Their formulas for other f could not be had; THIS DERIVATION IS OURS. By the
conjugate f*, D_f = max_r E_mu[r] - E_pi[f*(r)], and the order of max and min may be changed. For a fixed
r the best policy is pi = pi_ref exp(f*(r) / beta) / Z(x), where what is left of both expectations under
pi is -beta log Z. Said by the policy instead of by r, with c = beta log Z,

    max_{pi, c} E_mu[g(u)] - c,   u = beta D + c,   D = log pi(y|x) - log pi_ref(y|x),   g inverse to f*.

So no answer needs to be sampled: E_pi is c exactly. The loss of an answer is (c - g(u)) / beta, and its
gradient is that of its negative log-likelihood times g'(u): the further the policy has moved towards an
answer, the less that teaches. (At the minimum g' is pi / mu.) How much less is what `divergence` says;
each f is brought to f(1) = f'(1) = 0, so that the first step is SFT's:

    reverse_kl    KL(pi || mu)            g' = e^-u
    forward_kl    KL(mu || pi)            g' = 1 / (1 + u)
    pearson       sum (mu - pi)^2 / pi    g' = 1 / sqrt(1 + u)
    neyman        sum (mu - pi)^2 / mu    g' = 1 - u / 2, 0 from u = 2 on
    hellinger     sum (sqrt mu - sqrt pi)^2            g' = 1 / (1 + u)^2
    js            twice Jensen-Shannon's  g' = 1 / (2 e^u - 1)

What is given up: c belongs to a prompt, and prompts have one answer each as a rule, which says nothing
of it (with its own best c it has plain SFT's loss). So one c, kept in the checkpoint, serves the run,
and the weights have a mean of 1 where it rests. Log-ratios of long answers grow by nats in a step, so c
moves in their units: in each step to where answers alike would have not their mean weight w but
1 + rate (w - 1) less to make up, c <- c - where(1 + rate (w - 1)), `where` inverse to g'. (Of
`reverse_kl` that is log of a running mean of e^(-beta D).) A step of rate (w - 1), which is the gradient
of the loss by c, is never longer than the rate where weights go to 0: it fell behind, to weights of .1.
Under `reverse_kl` every c has the same minimum, so nothing is lost. A weight is at most `cap`, beyond
which g goes on straight. Of all but `reverse_kl` and `neyman`, f is finite at 0: those are exact where
the expert may say anything that the reference may.

The mean is over responses. Default: reverse_kl, beta 0.1, rate 0.5 (ours).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Measured, Objective, Scored, Units
from onestage.objectives._likelihood import GOOD, good_N

Divergence = Literal["reverse_kl", "forward_kl", "pearson", "neyman", "hellinger", "js"]


@dataclass(frozen=True)
class Gain:
    """g of one divergence, its slope, and where the slope has a given value."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    where: Callable[[float], float]


GAINS: dict[Divergence, Gain] = {
    "reverse_kl": Gain(
        lambda u: 1 - torch.exp(-u), lambda u: torch.exp(-u), lambda w: -math.log(w)
    ),
    "forward_kl": Gain(torch.log1p, lambda u: 1 / (1 + u), lambda w: 1 / w - 1),
    "pearson": Gain(
        lambda u: 2 * (torch.sqrt(1 + u) - 1), lambda u: (1 + u) ** -0.5, lambda w: w**-2 - 1
    ),
    "neyman": Gain(lambda u: u - u**2 / 4, lambda u: 1 - u / 2, lambda w: 2 - 2 * w),
    "hellinger": Gain(lambda u: u / (1 + u), lambda u: (1 + u) ** -2, lambda w: w**-0.5 - 1),
    "js": Gain(
        lambda u: torch.log(2 - torch.exp(-u)),
        lambda u: torch.exp(-u) / (2 - torch.exp(-u)),
        lambda w: math.log((1 + 1 / w) / 2),
    ),
}


@dataclass(frozen=True)
class FSFT(Objective):
    paper = "2507.00018"
    equation = (
        "`(c - g(beta D + c)) / beta`, g of the `divergence` (default `1 - e^-u`), c such "
        "that the weights g' have a mean of 1"
    )
    at_start = "0, with the gradient of `sft`, `reduction: sum`"
    second_opinion = "each conjugate, searched for in its definition; the derivation is ours"
    unit = "response"
    kinds = GOOD
    lowest = None

    beta: float = 0.1
    """Weight of the KL to the reference; towards 0 this is SFT with summed tokens."""
    divergence: Divergence = "reverse_kl"
    """Of the expert from the policy."""
    cap: float = 10.0
    """Of the weight of an answer."""
    rate: float = 0.5
    """How much of a mean weight's distance from 1 the offset c makes up for in a step; 0: c stays 0."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"f_sft: beta must be positive, got {self.beta}")
        if self.cap <= 1:
            raise ValueError(f"f_sft: cap must be above 1, the mean of the weights, got {self.cap}")
        if not 0 <= self.rate < 1:
            raise ValueError(f"f_sft: rate must be in [0, 1), got {self.rate}")

    def units(self, feedback: Feedback) -> Units:
        return feedback.units("response", feedback.weight_N * good_N(feedback))

    def losses(self, batch: Scored) -> Tensor:
        gain, lowest, u_N = GAINS[self.divergence], self._lowest(), self._moved_N(batch)
        straight_N = self.cap * (u_N - lowest).clamp(max=0.0)
        return (batch.state["offset"] - gain.value(self._within(u_N)) - straight_N) / self.beta

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        return {"weight": self._weight_N(batch)}

    def start(self) -> dict[str, float]:
        return {"offset": 0.0}

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        return {"weight": self._weight_N(batch)}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        mean = observed.get("weight", 1.0)
        made_up = GAINS[self.divergence].where(1 + self.rate * (mean - 1))
        return {"offset": state["offset"] - made_up}

    def _moved_N(self, batch: Scored) -> Tensor:
        return self.beta * batch.log_ratio_N() + batch.state["offset"]

    def _lowest(self) -> float:
        """The u below which g goes on straight."""
        return GAINS[self.divergence].where(self.cap)

    def _within(self, u_N: Tensor) -> Tensor:
        """u where g is curved: Neyman's is flat from 2 on."""
        highest = 2.0 if self.divergence == "neyman" else None
        return u_N.clamp(self._lowest(), highest)

    def _weight_N(self, batch: Scored) -> Tensor:
        """g'(u) of good responses, NaN of others."""
        weight_N = GAINS[self.divergence].slope(self._within(self._moved_N(batch)))
        return weight_N.where(good_N(batch.feedback), torch.nan)
