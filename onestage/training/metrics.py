"""What is logged: measurements of every objective beside its loss, and the line that steps add up to.

Log-ratios of chosen and rejected responses are told apart: a margin can grow while both fall.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from onestage.data.kinds import ASKED, GRADED, THUMBS
from onestage.objectives import Feedback, Loss, Measured, Scored, Weighted, wide
from onestage.objectives._host import there_of
from onestage.schedules import Slopes, active
from onestage.training.gauges import told


class Tally:
    """Running sums and counts of measurements by group (a stream, or a stream's kind) and name.

    What is added stays on its device until `sums` is read: reading waits for all that the device has
    to do, and a step of many rows would wait after each.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[float, float]] = {}
        self._waiting: list[tuple[list[tuple[str, str]], Tensor]] = []
        """Groups and names (S) of what was added, and its sums and counts (2, S)."""

    def add(self, losses: Iterable[Loss], groups: Sequence[str]) -> None:
        """Add the losses and metrics of a row; `groups[r]` names the group of the batch's record r."""
        names = sorted(set(groups))
        place = {group: number for number, group in enumerate(names)}
        code_R = torch.as_tensor([place[group] for group in groups])
        for loss in losses:
            parts: dict[str, Weighted | Measured] = {"loss": loss.reported, **loss.metrics}
            keys = [(group, name) for name in parts for group in names]
            self._waiting.append((keys, _sums_2S(parts.values(), code_R, len(names))))

    @property
    def sums(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(sum, count) by group and name."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            found = torch.cat([sums_2S for _, sums_2S in waiting], dim=1).tolist()
            keys = [key for some, _ in waiting for key in some]
            for key, total, count in zip(keys, *found, strict=True):
                if count:
                    self._merge(key, total, count)
        return self._sums

    def merge(self, other: Mapping[tuple[str, str], tuple[float, float]]) -> None:
        for key, (total, count) in other.items():
            self._merge(key, total, count)

    def _merge(self, key: tuple[str, str], total: float, count: float) -> None:
        before = self._sums.get(key, (0.0, 0.0))
        self._sums[key] = (before[0] + total, before[1] + count)

    def means(self) -> dict[str, float]:
        """Means by `group/name`."""
        return {
            f"{group}/{name}": total / count for (group, name), (total, count) in self.sums.items()
        }


def _sums_2S(parts: Collection[Weighted | Measured], code_R: Tensor, groups: int) -> Tensor:
    """Sums and counts (2, S) of some measurements by measurement and group, in float64: a window adds
    up very many small numbers. `code_R`: the group of each record."""
    values, weights, places = [], [], []
    for number, part in enumerate(parts):
        if isinstance(part, Weighted):
            value_M, weight_M, record_M = part.value_M, part.weight_M, part.record_M
        else:
            has_M = (
                ~part.every.isnan() if part.gaps else torch.ones_like(part.every, dtype=torch.bool)
            )
            value_M, weight_M, record_M = part.every.where(has_M, 0.0), has_M, part.record
        values.append(value_M.to(wide(value_M.device)))
        weights.append(weight_M.to(wide(value_M.device)))
        places.append(number * groups + there_of(code_R, record_M.device)[record_M])
    zeros_S = values[0].new_zeros(len(values) * groups)
    place_M = torch.cat(places)
    both = (zeros_S.index_add(0, place_M, torch.cat(some)) for some in (values, weights))
    return torch.stack([*both])


def measure(batch: Scored, beta: float, *, reference: bool) -> dict[str, Measured]:
    """Detached measurements by name; with `reference`, those that need one.

    `logp` is per token; log-ratios and implicit rewards (beta times them) are per response. In an
    evaluation, where nothing is trained, implicit rewards are also told by given score:
    `implicit_reward_at_0.3` is of the responses whose score is nearest 0.3.
    """
    feedback, trained, batch = batch.feedback, batch.logp_K.requires_grad, batch.detached()
    own_N, check_N = feedback.are("response"), feedback.of(*ASKED)
    of_responses = {
        "logp": _only(own_N, batch.per_response(batch.logp_K) / feedback.tokens_N),
        "reward": _only(own_N & check_N, feedback.score_N),
    }
    if not reference:
        return {name: Measured.of(value_N, feedback) for name, value_N in of_responses.items()}
    log_ratio_N, label_N = batch.log_ratio_N(), own_N & feedback.of(*THUMBS)
    side_N = torch.where(feedback.score_N > 0.5, log_ratio_N, -log_ratio_N)
    of_responses["log_ratio"] = _only(own_N, log_ratio_N)
    of_responses["label_accuracy"] = _only(label_N, _right(side_N))
    if beta:
        of_responses["implicit_reward"] = _only(own_N, beta * log_ratio_N)
    if beta and not trained:
        of_responses |= _by_score(beta * log_ratio_N, feedback)
    found = {name: Measured.of(value_N, feedback) for name, value_N in of_responses.items()}
    chosen_P, rejected_P = feedback.pair_P2.unbind(1)
    margin_P = batch.apart_P(log_ratio_N)
    of_pairs = {
        "chosen_log_ratio": log_ratio_N[chosen_P],
        "rejected_log_ratio": log_ratio_N[rejected_P],
        "margin": (beta or 1.0) * margin_P,
        "accuracy": _right(margin_P),
    }
    record_P = feedback.record_N[chosen_P]
    return found | {name: Measured(value_P, record_P) for name, value_P in of_pairs.items()}


def _only(mask_N: Tensor, value_N: Tensor) -> Tensor:
    return torch.where(mask_N, value_N, torch.nan)


def _by_score(reward_N: Tensor, feedback: Feedback) -> dict[str, Tensor]:
    """Implicit rewards of the responses whose given score lies nearest each tenth."""
    scored_N = feedback.of(*GRADED, *ASKED) & feedback.are("response")
    tenth_N = (10 * feedback.score_N).round().where(scored_N, -1)
    return {
        f"implicit_reward_at_{tenth / 10:g}": _only(tenth_N == tenth, reward_N)
        for tenth in tenth_N.unique().tolist()
        if 0 <= tenth <= 10
    }


def _right(margin: Tensor) -> Tensor:
    """1 where the margin is positive, 1/2 where it is zero (as before training), else 0."""
    return (torch.sign(margin) + 1) / 2


@dataclass
class Step:
    """What one step measured."""

    weights: Mapping[str, float]
    """Of the terms."""
    nodes: int = 0
    """Tokens that were computed: shared ones once."""
    repeated: int = 0
    """Tokens that were computed once more, in pieces of rows that were too long."""
    tokens_of: Counter[str] = field(default_factory=Counter)
    """Tokens of the records by stream, shared ones as often as they stand."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean loss of each term over the step's global batch, before the update."""
    loss: float = math.nan
    grad_norm: float = math.nan
    """Before clipping."""
    clip_factor: float = 1.0
    slopes: Slopes | None = None
    """What a gauge reads of the terms' gradients."""
    tally: Tally = field(default_factory=Tally)

    @property
    def tokens(self) -> int:
        return self.tokens_of.total()


class Window:
    """What was measured since the last line of metrics."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.since = math.nan
        self.tokens = 0

    def begin(self, tokens: int) -> None:
        """The run starts, or goes on, with that many tokens trained on: its pace is told from here."""
        self.since, self.tokens = time.perf_counter(), tokens

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
        tally = _of_all_ranks([tally])[0]
        tokens_of = sum((one.tokens_of for one in self.steps), Counter())
        clipped = sum(one.clip_factor < 1 for one in self.steps)
        repeated = sum(one.repeated for one in self.steps)
        line = {
            "step": step,
            "loss": sum(one.loss for one in self.steps) / size,
            "tokens": total,
            "learning_rate": learning_rate.get_last_lr()[0],
            "grad_norm": sum(one.grad_norm for one in self.steps) / size,
            "grad_clip_rate": clipped / size,
            "forest_saving": 1 - sum(one.nodes for one in self.steps) / max(tokens_of.total(), 1),
            **({"repeated_tokens": repeated} if repeated else {}),
            "tokens_per_second": (total - self.tokens) / (now - self.since),
            **self._by_term(),
            **told([(one.weights, one.slopes) for one in self.steps if one.slopes]),
            **{f"state/{t}/{k}": v for t, s in states.items() for k, v in s.items()},
            **{f"{stream}/tokens": count for stream, count in tokens_of.items()},
            **tally.means(),
        }
        self.steps, self.since, self.tokens = [], now, total
        return line

    def state(self) -> list[dict[str, Any]]:
        """The steps as plain data, for a checkpoint between two lines. Every process must call it."""
        tallies = _of_all_ranks([step.tally for step in self.steps])
        return [
            {
                **vars(step),
                "slopes": step.slopes and asdict(step.slopes),
                "tally": [[*key, *both] for key, both in tally.sums.items()],
            }
            for step, tally in zip(self.steps, tallies, strict=True)
        ]

    def restore(self, state: Sequence[Mapping[str, Any]], *, main: bool) -> None:
        """Put back what `state` gave, on every process; `main`: on that one the measurements of all."""
        self.steps = []
        for one in state:
            tally = Tally()
            tally.merge({(group, name): (x, n) for group, name, x, n in one["tally"] if main})
            slopes = one["slopes"] and Slopes(**one["slopes"])
            tokens_of = Counter(one["tokens_of"])
            self.steps.append(
                Step(**{**one, "tokens_of": tokens_of, "slopes": slopes, "tally": tally})
            )

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


def _of_all_ranks(tallies: Sequence[Tally]) -> Sequence[Tally]:
    """Each with what it is on other ranks added; as many on all of them."""
    alone = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
    if alone or not tallies:
        return tallies
    merged = [Tally() for _ in tallies]
    for of_rank in gather_object([[tally.sums for tally in tallies]]):
        for tally, sums in zip(merged, of_rank, strict=True):
            tally.merge(sums)
    return merged
