"""Hints for the problems that stay unsolved, and no more than it takes.

After Scaf-GRPO (Zhang et al. 2025, arXiv 2510.19807): help is for the problems on which the policy has
stopped learning by itself, since all their completions fail and a group without differences teaches
nothing. For the first `free_steps` rollouts no problem is given a hint. From then on one that has failed
`patience` visits in a row without a hint is given one chunk of its solution at the next, another chunk
after each visit on which all completions still fail, and one chunk fewer after each on which one is
right, down to the bare question.

The paper's hints are written by a stronger model in three tiers (knowledge, plan, solution) and are
tried one after another within a step, with one failed completion of the group replaced by a right one.
Here they are beginnings of the worked solution, one length a visit, and what a problem was given is kept
for each problem (`per`), in checkpoints too. Default of `free_steps`: the released script's 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onestage.rollout.hints import Hint


@dataclass(frozen=True)
class Scaffold(Hint):
    per = "problem"

    free_steps: int = 50
    """Rollouts at the beginning without any hint."""
    patience: int = 1
    """Visits in a row that must fail without a hint before there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.free_steps < 0 or self.patience < 1:
            raise ValueError(
                "needs free_steps of at least 0 and patience of at least 1, got "
                f"{self.free_steps} and {self.patience}"
            )

    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        if step < self.free_steps:
            return 0
        level = state.get("failed", 0.0) - self.patience + 1
        return int(min(max(level, 0.0), size, self.max_chunks))

    def advance(
        self, state: Mapping[str, float], length: int, size: int, success: float
    ) -> dict[str, float]:
        """`failed`: visits that failed, less those that did not; at least 0 and no more than it takes
        to be given everything."""
        failed, most = state.get("failed", 0.0), self.patience - 1 + min(size, self.max_chunks)
        if success > 0:
            failed = failed - 1 if length else 0.0
        elif length or failed < self.patience:
            failed += 1
        failed = min(max(failed, 0.0), float(most))
        return {"failed": failed} if failed else {}
