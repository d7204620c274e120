"""Our own contract tests, for what others plug in.

    from onestage.testing import check_objective, check_schedule

    def test_mine() -> None:
        check_objective(Hinge(beta=2.0))
        check_schedule(Mine(weights={"sft": 1, "dpo": 1}))

Each raises `ContractError` with every law that the thing breaks, in words. A run takes these laws for
granted: a plug-in that breaks one may train, resume or measure wrongly without a sign of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from onestage.objectives import Objective
from onestage.objectives import _laws as objective_laws
from onestage.rollout.hints import Hint
from onestage.rollout.hints import _laws as hint_laws
from onestage.rollout.rewards import Reward
from onestage.rollout.rewards import _laws as reward_laws
from onestage.schedules import Schedule
from onestage.schedules import _laws as schedule_laws


class ContractError(ValueError):
    """A plug-in that breaks laws of its contract."""


def check_objective(objective: Objective, skip: Collection[str] = ()) -> None:
    """Try an objective on the laws of `onestage.objectives`, with records of every kind that it takes.

    `skip`: names of laws that it means to break, as `sign` where good responses are to be unlearnt.
    """
    _require(objective, objective_laws.laws(objective, skip))


def check_schedule(schedule: Schedule) -> None:
    """Try a schedule on the laws of `onestage.schedules`.

    Give it weights where it needs certain terms; `steps`, `seed` and `optimum` are filled in.
    """
    _require(schedule, schedule_laws.laws(schedule))


def check_hint(rule: Hint) -> None:
    """Try a hint rule on the laws of `onestage.rollout.hints`."""
    _require(rule, hint_laws.laws(rule))


def check_reward(reward: Reward, facts: Sequence[Mapping[str, Any]] = ()) -> None:
    """Try a reward on answers such as models write, empty and broken ones too.

    facts: the columns of some records that it can judge answers to (a checker that makes problems of its
    own needs none). Raises `ContractError`.
    """
    _require(reward, reward_laws.laws(reward, facts))


def _require(given: object, broken: Sequence[str]) -> None:
    if broken:
        name = type(given).__name__
        raise ContractError("\n".join(f"{name} breaks a law: {law}" for law in broken))
