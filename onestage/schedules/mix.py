"""Mix: every step trains on a batch of every term and adds the losses up by weight.

    L = sum_i lambda_i f_i            (Fernando et al. 2024, arXiv 2410.15483, the "Mix" baseline)

Rows of the forest go through the model one after the other and add their gradients up, so the peak
memory is that of one row, not of all terms together (the authors keep both graphs: xright.md T4).
A step draws a batch for each term: with n terms it sees n times the data of ALRIGHT's.
"""

from __future__ import annotations

from dataclasses import dataclass

from onestage.schedules import Schedule


@dataclass
class Mix(Schedule):
    def weigh(self, step: int) -> dict[str, float]:
        return self.share
