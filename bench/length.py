"""The reward of `bench/rollout.py`: a plain function of the text, and the same for a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onestage.rollout.rewards import Answer, Reward


def length_reward(text: str) -> float:
    """The nearer to thirty words, the better."""
    return -abs(len(text.split()) - 30) / 30


@dataclass(frozen=True)
class Length(Reward):
    """Told by its path: `reward: "bench/length.py:Length"`."""

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return [length_reward(answer.completion) for answer in answers]
