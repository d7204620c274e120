"""Implicit rewards by given score: by hand, and from a run's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.objective_batches import batch_of

from onestage.report.calibration import calibration
from onestage.report.page import read_folders
from onestage.runfolder import read_metrics
from onestage.training.metrics import measure
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

MARK = "implicit_reward_at_"


def test_rewards_by_tenths_of_the_score() -> None:
    batch = batch_of(["score", "demonstration", "pair", "label", "group"])
    found = measure(batch, 0.5, reference=True)
    reward_N = 0.5 * batch.log_ratio_N()
    of_N = batch.feedback.of("score", "group")
    for tenth in range(11):
        near_N = of_N & ((batch.feedback.score_N - tenth / 10).abs() < 0.05)
        name = f"{MARK}{tenth / 10:g}"
        assert (name in found) == bool(near_N.any())
        if name in found:
            assert torch.equal(found[name].value_M, reward_N[near_N])
            assert torch.equal(found[name].record_M, batch.feedback.record_N[near_N])
    assert sum(name.startswith(MARK) for name in found) == 7  # 0.9 0.2 1 0.6 0.1 0.4 0.7


def test_a_training_step_pays_nothing_for_it() -> None:
    batch = batch_of(["score"])
    trained = replace(batch, logp_K=batch.logp_K.clone().requires_grad_())
    assert not any(name.startswith(MARK) for name in measure(trained, 0.5, reference=True))
    assert not any(name.startswith(MARK) for name in measure(batch, 0.0, reference=True))


def test_a_run_tells_its_calibration(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The mean over the tenths, weighed by their counts, is the mean implicit reward."""
    recipe = recipe_of("score")
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    recipe["train"]["eval_steps"] = 4
    carry_out(parse_recipe(recipe), tmp_path / "run", say=lambda _: None, self_check=False)
    line = read_metrics(tmp_path / "run")[-1]
    (found,) = read_folders([tmp_path / "run"])
    points = dict(calibration(found.cells[-1])["scores/score"])
    # Scores are n / 7 for n in 0..7: all nearest different tenths.
    assert list(points) == [0.0, 0.1, 0.3, 0.4, 0.6, 0.7, 0.9, 1.0]
    mean = line["eval/scores/score/implicit_reward"]
    assert sum(points.values()) / 8 == pytest.approx(mean, rel=1e-4)
    assert max(points.values()) > min(points.values())
