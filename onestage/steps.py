"""What steps measured, and the line of metrics that some steps add up to."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object

from onestage.schedules.contract import active
from onestage.terms import Tally


@dataclass
class Step:
    """What one step measured."""

    weights: Mapping[str, float]
    """Of the terms."""
    nodes: int
    """Tokens that were computed: shared ones once."""
    tokens_of: Counter[str] = field(default_factory=Counter)
    """Tokens of the records by stream, shared ones as often as they stand."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean loss of each term over the step's global batch, before the update."""
    loss: float = math.nan
    grad_norm: float = math.nan
    """Before clipping."""
    clip_factor: float = 1.0
    tally: Tally = field(default_factory=Tally)

    @property
    def tokens(self) -> int:
        return self.tokens_of.total()


class Window:
    """What was measured since the last line of metrics."""

    def __init__(self, tokens: int) -> None:
        self.steps: list[Step] = []
        self.since = time.perf_counter()
        self.tokens = tokens

    def add(self, step: Step) -> None:
        self.steps.append(step)

    def close(
        self, step: int, total: int, learning_rate: Any, states: Mapping[str, Mapping[str, float]]
    ) -> dict[str, Any]:
        """The line of metrics after `step` steps and `total` tokens; a new window begins.

        Every process must call it; the means are over all of them.
        """
        now, size = time.perf_counter(), len(self.steps)
        tally = Tally()
        for one in self.steps:
            tally.merge(one.tally.sums)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            merged = Tally()
            for sums in gather_object([tally.sums]):
                merged.merge(sums)
            tally = merged
        tokens_of = sum((one.tokens_of for one in self.steps), Counter())
        clipped = sum(one.clip_factor < 1 for one in self.steps)
        line = {
            "step": step,
            "loss": sum(one.loss for one in self.steps) / size,
            "tokens": total,
            "learning_rate": learning_rate.get_last_lr()[0],
            "grad_norm": sum(one.grad_norm for one in self.steps) / size,
            "grad_clip_rate": clipped / size,
            "forest_saving": 1 - sum(one.nodes for one in self.steps) / max(tokens_of.total(), 1),
            "tokens_per_second": (total - self.tokens) / (now - self.since),
            **self._by_term(),
            **{f"state/{t}/{k}": v for t, s in states.items() for k, v in s.items()},
            **{f"{stream}/tokens": count for stream, count in tokens_of.items()},
            **tally.means(),
        }
        self.steps, self.since, self.tokens = [], now, total
        return line

    def _by_term(self) -> dict[str, float]:
        """Mean weight of each term, and the gradients of those that were alone in a step."""
        terms = list(self.steps[0].weights)
        if len(terms) == 1:
            return {}
        found = {
            f"weight/{term}": sum(step.weights[term] for step in self.steps) / len(self.steps)
            for term in terms
        }
        for term in terms:
            alone = [step for step in self.steps if active(step.weights) == [term]]
            if alone:
                found[f"grad_norm/{term}"] = sum(step.grad_norm for step in alone) / len(alone)
                found[f"grad_clip_rate/{term}"] = sum(s.clip_factor < 1 for s in alone) / len(alone)
        return found
