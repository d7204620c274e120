"""The problems of a stream: their hint rule, their rewards, and what becomes of the answers.

Rewards of a stream are weighed and summed; those that cannot be found are counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onestage.rollout.group import Group
from onestage.rollout.hints import Hint
from onestage.rollout.rewards import Answer, Failure, Reward

SHOWN = 60
"""Characters of what is no reward that are told."""


class RewardFailedError(RuntimeError):
    """A reward could not be found, and the recipe says that the run stops then."""


@dataclass(frozen=True)
class Problems:
    """How the problems of one stream are hinted at and their answers judged."""

    rewards: Sequence[tuple[str, float, Reward]]
    """Name, weight and reward; the weighted sum is what counts."""
    hint: Hint
    feedback: Literal["group", "pair"] = "group"
    """`pair`: only the best and the worst completion are kept, as a preference pair."""

    def close(self) -> None:
        """Let go of the rewards' processes, models and connections."""
        for _, _, reward in self.rewards:
            reward.close()


def reward(
    groups: Sequence[Group],
    problems: Mapping[str, Problems],
    *,
    missing_eos_penalty: float = 0.0,
    on_failure: Literal["worst", "zero", "stop"] = "worst",
) -> None:
    """Fill in the rewards of groups whose answers are known, each stream's judged together.

    `missing_eos_penalty`: taken off the reward of a completion that did not end. `on_failure`: a reward
    that could not be found is the worst of its group, adds nothing, or stops the run with
    `RewardFailedError` (not where it could not be decided, which no repair would change).
    """
    for name, stream in problems.items():
        mine = [group for group in groups if group.record.source == name]
        answers = [answer for group in mine for answer in group.answers]
        if not answers:
            continue
        # All of a stream's answers in one call, which a reward can spread over workers or batches.
        parts = {part: judged(part, judge, answers) for part, _, judge in stream.rewards}
        weights = {part: weight for part, weight, _ in stream.rewards}
        at = 0
        for group in mine:
            cut = slice(at, at + len(group.answers))
            at = cut.stop
            found = {part: values[cut] for part, values in parts.items()}
            _note_failures(group, found, on_failure)
            group.parts = {
                part: [math.nan if isinstance(value, Failure) else value for value in values]
                for part, values in found.items()
            }
            missing = _worst(group.parts, weights) if on_failure != "zero" else {}
            group.totals = _totals(group, weights, missing, missing_eos_penalty)


def judged(part: str, judge: Reward, answers: Sequence[Answer]) -> list[float | Failure]:
    """A reward of each answer: a finite number, or why there is none. Raises ValueError where a
    stranger's class gives another number of them, or something else."""
    found = judge(answers)
    size = len(found) if hasattr(found, "__len__") else None
    if size != len(answers):
        what = type(found).__name__ if size is None else f"{size} of them"
        raise ValueError(
            f"reward {part}: must give a list of {len(answers)} rewards, one of each answer; gave {what}"
        )
    return [_finite(value) for value in found]


def _finite(value: Any) -> float | Failure:
    if isinstance(value, Failure):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and not isinstance(value, str):
        return number
    return Failure("value", f"gave {str(value)[:SHOWN]!r}, which is no finite number")


def spent(problems: Mapping[str, Problems]) -> dict[str, float]:
    """What rewards have cost so far: `STREAM/reward/NAME/...`."""
    return {
        f"{name}/reward/{part}/{what}": value
        for name, stream in problems.items()
        for part, _, judge in stream.rewards
        for what, value in judge.spent().items()
    }


def _note_failures(
    group: Group, found: Mapping[str, Sequence[float | Failure]], on_failure: str
) -> None:
    failed = [(p, v) for p, values in found.items() for v in values if isinstance(v, Failure)]
    group.failures = Counter(failure.sort for _, failure in failed)
    if not failed:
        return
    name, first = failed[0]
    group.trouble = f"{name}: {first.sort}: {first.reason}"
    if on_failure == "stop" and any(failure.sort != "undecided" for _, failure in failed):
        raise RewardFailedError(
            f"stream {group.record.source}, {group.record.id}: a reward could not be found "
            f"({group.trouble}); rollout.on_failure: worst goes on without it"
        )


def _worst(parts: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> dict[str, float]:
    """The least that each reward adds to an answer of the group; 0 where it judged none. What could not
    be judged must not be worth more, or the policy learns to answer such that it cannot be."""
    return {
        part: min((weights[part] * v for v in values if not math.isnan(v)), default=0.0)
        for part, values in parts.items()
    }


def _totals(
    group: Group,
    weights: Mapping[str, float],
    missing: Mapping[str, float],
    missing_eos_penalty: float,
) -> list[float]:
    totals = []
    for number, answer in enumerate(group.answers):
        got = (
            missing.get(part, 0.0) if math.isnan(values[number]) else weights[part] * values[number]
            for part, values in group.parts.items()
        )
        totals.append(sum(got) - (0.0 if answer.ended else missing_eos_penalty))
    return totals
