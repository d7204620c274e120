"""Which model of a run is the best so far, and for how long none has been better.

An evaluation may ask fewer items than the best one did (answers have grown longer, a judge was down),
and means of unlike items say nothing of the models. So two models are compared on the items that were
scored of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.rollout.suites import Scores, Suite


@dataclass
class Best:
    """The best model so far, by a metric of a suite or by the held-out loss."""

    name: str
    """What decides: a suite as the run calls it, or the held-out loss."""
    suite: Suite | None = None
    """None: the loss, of which less is better, always of the same rows."""
    metric: str = ""
    """Of the suite."""
    value: float | None = None
    """Of the best model, on all that it was asked."""
    step: int | None = None
    waited: int = 0
    """Evaluations since."""
    scores: Mapping[str, Scores] = field(default_factory=dict)
    """Of the best model, by item."""

    @property
    def key(self) -> str:
        """The number that decides, as it is logged."""
        return f"suite/{self.name}/{self.metric}" if self.suite else "eval/loss"

    def judge(self, step: int, value: float, scores: Mapping[str, Scores]) -> bool:
        """Whether the model of a step is better than ever. value, scores: what was found of it."""
        mine, theirs = self._on_the_same(value, scores)
        if math.isnan(mine):
            return False
        if theirs is None or (mine < theirs if self._less_is_better else mine > theirs):
            self.value, self.step, self.waited, self.scores = value, step, 0, scores
            return True
        self.waited += 1
        return False

    def _on_the_same(
        self, value: float, scores: Mapping[str, Scores]
    ) -> tuple[float, float | None]:
        """The number of a model and of the best one, on the items that both were asked."""
        both = [item for item in scores if item in self.scores]
        alike = len(both) == len(scores) == len(self.scores)
        if self.suite is None or self.value is None or alike or not both:
            return value, self.value
        found = [self.suite.summarise({i: one[i] for i in both}) for one in (scores, self.scores)]
        mine, theirs = (one[self.metric].value if self.metric in one else math.nan for one in found)
        return (math.nan, None) if math.isnan(theirs) else (mine, theirs)

    def state(self) -> dict[str, float | int | str | None]:
        """What a checkpoint keeps; scores lie in `evaluations.jsonl`."""
        found = {"best": self.value, "best_step": self.step, "waited": self.waited}
        return {**found, "best_of": self.key}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing, where another number decided before: the two cannot be compared."""
        if state.get("best_of", self.key) != self.key:
            return
        self.value, self.step = state.get("best"), state.get("best_step")
        self.waited = state.get("waited", 0)

    @property
    def _less_is_better(self) -> bool:
        return self.suite is None or self.suite.lower_is_better(self.metric)
