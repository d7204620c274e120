"""The contract tests for rewards: ours obey, and what breaks a law is told which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.lawless import BROKEN, Odd, Told, Unsendable, Unsolved

from onestage.rollout.rewards import Reward, make
from onestage.rollout.rewards._laws import laws
from onestage.testing import ContractError, check_reward

FACTS: dict[str, list[dict[str, Any]]] = {
    "countdown": [],
    "knights_knaves": [],
    "gsm8k": [{"answer": 4}, {"answer": "so it is 31\n#### 31"}],
    "math": [{"answer": "\\frac{7}{3}"}],
    "ifeval": [{"instruction_id_list": ["detectable_format:title"], "kwargs": [{}]}],
    "match": [{"answer": ["4", "the answer is 4"]}],
    "format": [],
    "length": [],
}


@pytest.mark.parametrize("name", FACTS)
def test_our_rewards_obey(name: str) -> None:
    check_reward(make(name), FACTS[name])


def test_a_function_obeys_where_it_is_given_its_columns(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def brief(completion, target, **others):\n    return float(str(target) in completion)\n"
    )
    reward = make({"name": "function", "path": f"{tmp_path / 'mine.py'}:brief"})
    assert laws(reward, [{"target": 4}]) == []
    (broken,) = laws(reward)
    assert "needs target" in broken
    assert "give `facts`" in broken


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_law_is_named(law: str) -> None:
    assert any(law in broken for broken in laws(Told(BROKEN[law]), [{"answer": 4}]))


@pytest.mark.parametrize(
    ("reward", "law"),
    [
        (Odd(what="text"), "raised: IndexError"),
        (Odd(what="check"), "`check` raises ValueError"),
        (Odd(what="slow", deadline=0.3), "deadline: took longer than 0.3 s"),
        (Unsendable(), "can be sent to a process of its own"),
        (Unsolved(), "earn more than an empty one"),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Reward) else given,
)
def test_a_broken_checker_is_told(reward: Reward, law: str) -> None:
    with pytest.raises(ContractError, match=f"{type(reward).__name__} breaks") as told:
        check_reward(reward)
    assert law in str(told.value)
