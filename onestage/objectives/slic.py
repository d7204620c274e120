"""Hinge loss on pairs: SLiC, and its form with a reference.

Zhao et al. 2023, SLiC-HF (arXiv 2305.10425), whose ranking loss is max(0, delta - log pi(y_w|x) + log
pi(y_l|x)); Liu et al. 2023, RSO (arXiv 2309.06657), who measure both sides against the reference
(`hinge-norm`):

    L = max(0, 1 - beta (D_w - D_l)),   D = log pi(y|x) - log pi_ref(y|x)

A pair that leads by 1 / beta teaches nothing more, while DPO pushes it apart for ever. With `against:
nothing` D is log pi(y|x) and no reference is needed: delta is 1 / beta, and the loss SLiC's over delta.
SLiC's regulariser, the likelihood of a good answer, is a term of its own here (`sft`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from onestage.objectives import Need, Objective, Scored


@dataclass(frozen=True)
class SLiC(Objective):
    paper = "2305.10425"
    equation = (
        "`max(0, 1 - beta (D_w - D_l))`; `against: nothing`: of log-probabilities, no reference"
    )
    at_start = "1"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.1
    """The margin that is enough is 1 / beta nats."""
    against: Literal["reference", "nothing"] = "reference"
    """What log-probabilities are compared with: RSO's form, or SLiC's own."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"slic: beta must be positive, got {self.beta}")

    @property
    def needs(self) -> frozenset[Need]:
        mine: frozenset[Need] = frozenset({"logp"})
        return mine | {"reference"} if self.against == "reference" else mine

    def losses(self, batch: Scored) -> Tensor:
        if self.against == "reference":
            margin_P = batch.margin_P()
        else:
            margin_P = batch.apart_P(batch.per_response(batch.logp_K))
        return (1 - self.beta * margin_P).clamp(min=0)
