"""MMLU (Hendrycks et al., arXiv 2009.03300) with one example in front, as Fernando et al. report it.

They asked through DeepEval, which samples a letter; here the likeliest of the four letters counts, as in
`lm-eval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onestage.rollout.suites._harness import Harness, Part


@dataclass(frozen=True)
class MMLU(Harness):
    shots: int = 1
    """Examples in front of each question."""

    def parts(self) -> Sequence[Part]:
        return [Part("mmlu", "mmlu", self.shots, ("acc",))]
