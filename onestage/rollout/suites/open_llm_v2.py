"""The six tasks of the second Open LLM Leaderboard (Fourrier et al. 2024), as UFT's "new" tables.

Raw prompts, the `leaderboard_*` tasks of `lm-eval`; IFEval is the mean of its four accuracies. `average`
is the mean of the six, without the leaderboard's own rescaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onestage.rollout.suites._harness import Harness, Part

FOUR = tuple(
    f"{level}_level_{how}_acc" for level in ("prompt", "inst") for how in ("strict", "loose")
)
PARTS = (
    Part("bbh", "leaderboard_bbh", 3, ("acc_norm",)),
    Part("gpqa", "leaderboard_gpqa", 0, ("acc_norm",)),
    Part("mmlu_pro", "leaderboard_mmlu_pro", 5, ("acc",)),
    Part("musr", "leaderboard_musr", 0, ("acc_norm",)),
    Part("ifeval", "leaderboard_ifeval", 0, FOUR),
    Part("math_hard", "leaderboard_math_hard", 4, ("exact_match",)),
)


@dataclass(frozen=True)
class OpenLLMv2(Harness):
    def parts(self) -> Sequence[Part]:
        return PARTS
