"""Options of rewards and engines that change nothing beside the others."""

from __future__ import annotations

from typing import Any

import pytest

from onestage.rollout import engines, rewards

IDLE = [
    (
        {"name": "math", "rules": "authors", "final": "last_line"},
        "final: last_line changes nothing",
    ),
    ({"name": "format", "match": "full"}, "match: full is of a pattern"),
]


@pytest.mark.parametrize(("given", "words"), IDLE, ids=str)
def test_an_option_of_a_reward(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rewards.make(given)


@pytest.mark.parametrize(
    "option", [{"dtype": "float32"}, {"mode": "colocate", "base_url": "http://here:1"}]
)
def test_an_option_of_the_other_mode(option: dict[str, Any]) -> None:
    """Before anything is asked of the model or a server."""
    with pytest.raises(ValueError, match=r"changes nothing with mode: (server|colocate); take it"):
        engines.make({"name": "vllm", **option}, None, None)
