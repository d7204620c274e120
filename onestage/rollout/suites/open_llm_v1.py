"""The six tasks of the first Open LLM Leaderboard (Beeching et al. 2023), as UFT's "old" tables.

Raw prompts, tasks of `lm-eval`; GSM8K is the mean of its strict and its flexible match, TruthfulQA mc2.
`average` is the mean of the six.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onestage.rollout.suites._harness import Harness, Part

PARTS = (
    Part("gsm8k", "gsm8k", 5, ("exact_match,strict-match", "exact_match,flexible-extract")),
    Part("truthfulqa", "truthfulqa_mc2", 0, ("acc",)),
    Part("winogrande", "winogrande", 5, ("acc",)),
    Part("arc", "arc_challenge", 25, ("acc_norm",)),
    Part("hellaswag", "hellaswag", 10, ("acc_norm",)),
    Part("mmlu", "mmlu", 5, ("acc",)),
)


@dataclass(frozen=True)
class OpenLLMv1(Harness):
    def parts(self) -> Sequence[Part]:
        return PARTS
