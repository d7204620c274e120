"""Groups that cannot teach, rewards that cannot be found, facts that cannot be judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import onestage as one
from onestage.config import RecipeError
from onestage.rollout.problems import Problems, RewardFailedError, reward
from onestage.rollout.rewards import Answer, Failure, Reward


@dataclass(frozen=True)
class Told(Reward):
    values: tuple[Any, ...] = ()

    def __call__(self, answers: Any) -> list[float | Failure]:
        return list(self.values)


FAILED = Failure("value", "None")
UNCLEAR = Failure("undecided", "which base?")


def totals(*values: Any, weight: float = 1.0, **how: Any) -> list[float]:
    answers = [Answer("", "", ended=True) for _ in values]
    group: Any = SimpleNamespace(record=SimpleNamespace(source="s", id="x"), answers=answers)
    reward([group], {"s": Problems([("told", weight, Told(values))], None)}, **how)  # type: ignore
    return list(group.totals)


def test_a_failure_is_worth_no_more_than_any_answer() -> None:
    """On a scale below 0, where nothing would be the best."""
    assert totals(-1.0, FAILED, -1.4, UNCLEAR) == [-1.0, -1.4, -1.4, -1.4]
    assert totals(1.0, FAILED, 3.0, weight=-1.0) == [-1.0, -3.0, -3.0]
    assert totals(FAILED, FAILED) == [0.0, 0.0]
    assert totals(-1.0, FAILED, on_failure="zero") == [-1.0, 0.0]


def test_stopping_is_for_failures_that_can_be_mended() -> None:
    with pytest.raises(RewardFailedError, match="on_failure: worst"):
        totals(1.0, FAILED, on_failure="stop")
    assert totals(1.0, UNCLEAR, on_failure="stop") == [1.0, 1.0]


ROWS = [{"prompt": f"{n} + {n} =", "answer": str(2 * n)} for n in range(70)]


def recipe(
    model: str, rows: list[dict[str, Any]], objective: str, **rollout: Any
) -> dict[str, Any]:
    return {
        "model": {"name": model},
        "data": [{"name": "sums", "path": rows, "kind": "check", "reward": "match"}],
        "objective": objective,
        "rollout": {"max_completion_length": 4, **rollout},
        "train": {"max_steps": 1, "batch_size": 1},
    }


@pytest.mark.parametrize("objective", ["grpo", "rloo"])
@pytest.mark.parametrize(
    ("rollout", "sentence"),
    [({"num_generations": 1}, "at least 2"), ({"temperature": 0}, "above 0")],
)
def test_a_group_of_one_or_of_equals_is_refused(
    model_folder: Path, tmp_path: Path, objective: str, rollout: Any, sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        one.train(recipe(str(model_folder), ROWS, objective, **rollout), out=tmp_path / "out")
    with_baseline = recipe(str(model_folder), ROWS[:2], "reinforce", num_generations=1)
    one.train(with_baseline, out=tmp_path / "alone", say=lambda line: None)


def test_facts_of_every_row_are_checked(model_folder: Path, tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": "say nothing", "answer": "."}]
    with pytest.raises(RecipeError, match=r"\[70\].*an `answer` with a word in it"):
        one.train(recipe(str(model_folder), rows, "grpo"), out=tmp_path / "out")


def test_an_accepted_answer_without_a_word_accepts_nothing() -> None:
    (judged,) = one.rewards.Match()([Answer("", "", {"answer": ["."]})])
    assert judged == 0.0
    assert not math.isnan(judged)
