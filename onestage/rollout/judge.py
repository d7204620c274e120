"""Rewards of sampled responses: every stream's own ones, weighed and summed; failures are counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onestage.rollout.group import Group
from onestage.rollout.hints import Hint
from onestage.rollout.rewards import Failure, Reward


class RewardFailedError(RuntimeError):
    """A reward could not be found, and the recipe says that the run stops then."""


@dataclass(frozen=True)
class Online:
    """How the problems of one stream are answered and judged."""

    rewards: Sequence[tuple[str, float, Reward]]
    """Name, weight and reward; the weighted sum is what counts."""
    hint: Hint
    feedback: Literal["group", "pair"] = "group"
    """`pair`: only the best and the worst completion are kept, as a preference pair."""

    def close(self) -> None:
        """Let go of the rewards' processes, models and connections."""
        for _, _, reward in self.rewards:
            reward.close()


@dataclass(frozen=True)
class Judging:
    streams: Mapping[str, Online]
    missing_eos_penalty: float = 0.0
    """Taken off the reward of a completion that did not end."""
    on_failure: Literal["zero", "stop"] = "zero"
    """A reward that could not be found adds nothing, or stops the run."""

    def __call__(self, groups: Sequence[Group]) -> None:
        """Fill in the rewards of groups whose answers are known, each stream's judged together.

        Raises `RewardFailedError`."""
        for name, stream in self.streams.items():
            mine = [group for group in groups if group.record.source == name]
            answers = [answer for group in mine for answer in group.answers]
            if not answers:
                continue
            parts = {part: reward(answers) for part, _, reward in stream.rewards}
            weights = {part: weight for part, weight, _ in stream.rewards}
            at = 0
            for group in mine:
                cut = slice(at, at + len(group.answers))
                self._sum(group, {part: values[cut] for part, values in parts.items()}, weights)
                at = cut.stop

    def spent(self) -> dict[str, float]:
        """What rewards have cost so far: `STREAM/reward/NAME/...`."""
        return {
            f"{name}/reward/{part}/{what}": value
            for name, stream in self.streams.items()
            for part, _, reward in stream.rewards
            for what, value in reward.spent().items()
        }

    def _sum(
        self,
        group: Group,
        parts: Mapping[str, Sequence[float | Failure]],
        weights: Mapping[str, float],
    ) -> None:
        failed = [(p, v) for p, values in parts.items() for v in values if isinstance(v, Failure)]
        if failed:
            name, first = failed[0]
            group.trouble = f"{name}: {first.sort}: {first.reason}"
            if self.on_failure == "stop":
                raise RewardFailedError(
                    f"stream {group.record.source}, {group.record.id}: a reward could not be found "
                    f"({group.trouble}); rollout.on_failure: zero goes on without it"
                )
        group.failures = Counter(failure.sort for _, failure in failed)
        group.parts = {
            part: [math.nan if isinstance(value, Failure) else value for value in values]
            for part, values in parts.items()
        }
        totals = []
        for number, answer in enumerate(group.answers):
            got = [weights[part] * values[number] for part, values in group.parts.items()]
            penalty = 0.0 if answer.ended else self.missing_eos_penalty
            totals.append(sum(value for value in got if not math.isnan(value)) - penalty)
        group.totals = totals
