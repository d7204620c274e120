"""Every objective that learns from sampled responses, in a whole run of two steps on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import write_rows

from onestage.models import load
from onestage.objectives import make, names
from onestage.rollout.rewards import Answer
from onestage.rollout.rewards.countdown import Countdown
from onestage.runfolder import read_metrics
from onestage.training.build import build
from onestage.training.recipe import parse_recipe

GIVEN: dict[str, tuple[dict[str, Any], Any]] = {
    "sft": ({"min_score": 0.0, "reweight": "dft"}, "none"),
    "uft": ({"loss": "raw", "offset": "group"}, "uniform"),
    "una": ({"offset": "learned"}, "none"),
    "grpo": ({"beta": 0.1, "entropy_coef": 0.01}, {"name": "uniform"}),
    "reinforce": ({"beta": 0.1, "baseline": "running"}, "none"),
    "hinted": ({}, "uniform"),
    "prefix_rft": ({}, "prefix"),
}
"""Options and hint rule."""
ONLINE = sorted({n for n in names() if "check" in make(n).kinds} | {"sft"})


def by_length(answer: Answer) -> float:
    return len(answer.completion) % 3 / 2


def test_the_list_is_not_empty() -> None:
    more = {"rloo", "ppo", "hinted", "luffy", "srft", "hpt", "prefix_rft", "upft", "reinforce"}
    assert more <= set(ONLINE)


@pytest.mark.parametrize("name", ONLINE)
def test_two_steps_of_it(
    name: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rollout in two batches: laws hold, numbers are finite, and the model moves. Rewards are by
    the length of the text, so that a model that knows nothing has different ones."""
    monkeypatch.setattr(Countdown, "__call__", lambda _, some: [by_length(one) for one in some])
    options, hint = GIVEN.get(name, ({}, "none"))
    problems = Countdown.rows(
        *(8,),
        **{"seed": 0, "split": "train", "numbers": (2, 2), "given": (1, 9), "target": (1, 20)},
        **{"operators": "+-", "template": "short"},
    )
    file = write_rows(tmp_path / "problems.jsonl", list(problems))
    recipe = parse_recipe(
        {
            "model": {"name": str(model_folder)},
            "data": [
                {
                    **{"name": "sums", "path": str(file), "kind": "check"},
                    **{"reward": "countdown", "hint": hint},
                }
            ],
            "objective": {"name": name, **options},
            "rollout": {
                **{"num_generations": 3, "max_completion_length": 9, "steps_per_generation": 2},
            },
            "train": {
                **{"max_steps": 2, "batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1},
                "max_length": 256,
            },
            "cache_dir": str(tmp_path / "cache"),
        }
    )
    before = load(recipe.model, seed=recipe.train.seed).model.state_dict()
    session = build(recipe, tmp_path / "out", say=lambda line: None)
    session.go()
    lines = [line for line in read_metrics(tmp_path / "out") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(math.isfinite(v) for line in lines for v in line.values() if isinstance(v, float))
    after = session.loaded.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
