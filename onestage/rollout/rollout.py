"""The recipe's section `rollout`: how the policy's answers to problems are drawn, used and judged.

Read with every recipe, also where nothing is sampled: what it makes is imported when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from onestage.config import Section

if TYPE_CHECKING:
    from onestage.data.mixture import Reuse
    from onestage.rollout.engines import Decoding


class Rollout(Section):
    """How the policy answers `check` records."""

    engine: str | dict[str, Any] = "transformers"
    """A name, or a table of it and its options."""
    num_generations: int = Field(default=8, ge=1)
    """Completions of a problem (G)."""
    max_completion_length: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    """Of sampling only; losses always use log-probabilities at temperature 1."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    steps_per_generation: int = Field(default=1, ge=1)
    """Batches of problems that are answered together, by the same policy."""
    num_iterations: int = Field(default=1, ge=1)
    """How often these batches are gone through before new ones are answered."""
    policy: Literal["current", "start"] = "current"
    """Who answers: the policy as it is, or as it was before the run (iterative DPO)."""
    missing_eos_penalty: float = Field(default=0.0, ge=0)
    """Taken off the reward of a completion that did not end within the limit."""
    success_at: float = 1.0
    """A completion with this reward or more counts as right."""
    on_failure: Literal["worst", "zero", "stop"] = "worst"
    """When a reward cannot be found (it raises, takes too long, is no number): count it as the worst
    that was found in its group, as 0 (the best on a scale below it), or stop the run."""
    alarm_after: int = Field(default=20, ge=1)
    """Rollouts that taught nothing (none right, rewards equal) after which you are told what to do."""
    eval_temperature: float = Field(default=0.0, ge=0)
    """Of evaluations; 0 is greedy."""
    eval_generations: int = Field(default=1, ge=1)

    @property
    def decoding(self) -> Decoding:
        """How training's answers are drawn."""
        return self._decoding(self.temperature)

    @property
    def eval_decoding(self) -> Decoding:
        """How an evaluation's answers are drawn."""
        return self._decoding(self.eval_temperature)

    @property
    def reuse(self) -> Reuse:
        """How often answers are trained on before new ones are drawn."""
        from onestage.data.mixture import Reuse

        return Reuse(self.steps_per_generation, self.num_iterations)

    def _decoding(self, temperature: float) -> Decoding:
        from onestage.rollout.engines import Decoding

        truncated = self.model_dump(include={"max_completion_length", "top_p", "top_k", "min_p"})
        return Decoding(temperature=temperature, **truncated)
