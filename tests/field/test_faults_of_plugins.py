"""A fault in somebody's own file is told once, with the line of theirs that it came from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onestage import objectives, schedules
from onestage.objectives._laws import laws as objective_laws
from onestage.rollout.problems import judged
from onestage.rollout.rewards import Failure
from onestage.schedules._laws import laws as schedule_laws
from onestage.training.answered import _judge

OBJECTIVE = """from dataclasses import dataclass
from onestage.objectives import Objective
@dataclass(frozen=True)
class Mine(Objective):
    unit = "pair"
    kinds = frozenset({"pair"})
    def losses(self, batch):
        return batch.nope()
"""
SCHEDULE = """from dataclasses import dataclass
from onestage.schedules import Schedule
@dataclass
class Mine(Schedule):
    def weigh(self, step):
        return {term: 1 / 0 for term in self.weights}
"""


@pytest.mark.parametrize(
    ("text", "make", "laws", "words"),
    [
        (
            OBJECTIVE,
            objectives.make,
            objective_laws,
            "kinds: raised AttributeError: .*nope.*line 8)",
        ),
        (SCHEDULE, schedules.make, schedule_laws, "raises no ZeroDivisionError: .*line 6)"),
    ],
    ids=["objective", "schedule"],
)
def test_what_a_file_raises_is_told_once_with_its_line(
    text: str, make: Any, laws: Any, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    told = laws(make(f"{file}:Mine"))
    raised = [line for line in told if "raise" in line]
    assert len(raised) == 1
    assert str(file) in raised[0]
    with pytest.raises(ValueError, match=words.replace(")", r"\)")):
        raise ValueError(raised[0])


@pytest.mark.parametrize(
    ("gives", "words"), [([1.0], "gave 1 of them"), (None, "gave NoneType"), (0.5, "gave float")]
)
def test_a_reward_for_each_answer(gives: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"reward mine: must give a list of 2 rewards.*{words}"):
        judged("mine", lambda answers: gives, [object(), object()])  # type: ignore


@pytest.mark.parametrize("gives", [float("nan"), float("-inf"), None, "1.0"])
def test_what_is_no_finite_number_is_a_failure_and_counted(gives: Any) -> None:
    """Not the worst of its group without a word, and no advantage that is not a number."""
    found = judged("mine", lambda answers: [gives, True], [object(), object()])  # type: ignore
    assert isinstance(found[0], Failure)
    assert found[0].sort == "value"
    assert f"gave '{gives}', which is no finite number" == found[0].reason
    assert found[1] == 1.0
    group: Any = SimpleNamespace(answers=[object()], record=SimpleNamespace(id="a:1"))
    with pytest.raises(ValueError, match="a:1: no reward was found"):
        _judge([group], lambda answers: [gives])  # type: ignore
