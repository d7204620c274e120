"""Gradient surgery: every step trains on all terms, and their gradients are combined so that they agree.

    g = sum_i w_i(G) lambda_i grad f_i,   G_ij = lambda_i lambda_j <grad f_i, grad f_j>

The weights w are those of a rule on the terms' inner products, by TorchJD (Quinton and Rey 2024, arXiv
2406.16232): `upgrad` (theirs: the mean of the gradients, each projected so that it opposes none),
`pcgrad` (Yu et al. 2020, 2001.06782), `mgda` (the shortest vector between them; Sener and Koltun 2018,
1810.04650), `imtl_g` (equal projections; Liu et al. 2021), `aligned_mtl` (Senushkin et al. 2023,
2305.19000), `cagrad` (Liu et al. 2021, 2110.14048). They are scaled so that gradients that do not
conflict give Mix's step, or one about as long.

A step costs no more forward or backward passes than Mix, but holds the gradients of each term: memory
for as many numbers as are trained, a term. With adapters that is little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onestage.schedules import Schedule

Rule = Literal["upgrad", "pcgrad", "mgda", "imtl_g", "aligned_mtl", "cagrad"]


@dataclass
class Surgery(Schedule):
    rule: Rule = "upgrad"
    """By which the gradients are combined."""

    @property
    def combines(self) -> str:
        return self.rule

    def weigh(self, step: int) -> dict[str, float]:
        return self.share
