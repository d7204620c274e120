"""Under `proportional`, a term's effect is its share of the records, however rare it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import write_rows

from onestage.data.mixture import MixedStream, Mixture
from onestage.data.packing import pack_records
from onestage.runfolder import read_metrics
from onestage.training.build import build
from onestage.training.forward import row_loss
from onestage.training.mixtures import in_batch
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
STEPS = 4000


def spread(share: dict[str, float], size: int) -> Iterator[dict[str, int]]:
    """Batches as streams are mixed: each record when it falls due."""
    streams: Any = [MixedStream(name, [], part * size) for name, part in share.items()]  # type: ignore[arg-type]
    return (Mixture(streams, 0).take(step) for step in range(STEPS))


def by_chance(share: dict[str, float], size: int) -> Iterator[dict[str, int]]:
    """Batches of one file in which the kinds are shuffled."""
    drawn = np.random.default_rng(0).multinomial(size, list(share.values()), STEPS)
    return (dict(zip(share, map(int, counts), strict=True)) for counts in drawn)


@pytest.mark.parametrize("drawn", [spread, by_chance])
@pytest.mark.parametrize(
    ("share", "size"),
    [
        ({"rare": 0.05, "common": 0.95}, 8),
        ({"rare": 0.0265, "common": 0.9735}, 8),
        ({"rare": 0.0265, "common": 0.9735}, 64),
        ({"rare": 0.01, "some": 0.3, "common": 0.69}, 5),
        ({"rare": 0.5, "common": 0.5}, 1),
    ],
)
def test_the_expected_weight_of_a_term_is_its_share(
    share: dict[str, float], size: int, drawn: Callable[..., Iterator[dict[str, int]]]
) -> None:
    weights = [in_batch(share, share, here) for here in drawn(share, size)]
    for term, part in share.items():
        mean = np.mean([w[term] for w in weights])
        # Of a mean over shuffled batches, four standard errors.
        by = 4 * math.sqrt(part * (1 - part) / (size * STEPS)) if drawn is by_chance else 1e-3
        assert mean == pytest.approx(part, abs=by)
    assert all(sum(w.values()) == pytest.approx(1) for w in weights)


def test_a_weight_that_a_guard_raised_holds_on_average_too() -> None:
    share, raised = {"rare": 0.05, "common": 0.95}, {"rare": 0.2, "common": 0.8}
    weights = [in_batch(raised, share, here) for here in spread(share, 8)]
    for term, wanted in raised.items():
        assert np.mean([w[term] for w in weights]) == pytest.approx(wanted, abs=1e-3)


def test_a_single_term_weighs_one_in_every_step() -> None:
    for size in range(1, 50):
        assert in_batch({"uft": 1.0}, {"uft": 1.0}, {"uft": size}) == {"uft": 1.0}
    assert in_batch({"uft": 1.0}, {"uft": 1.0}, {}) == {"uft": 1.0}


def rare(recipe_of: Make, rows: dict[str, Any], tmp_path: Path, **train: Any) -> dict[str, Any]:
    """19 pairs and one demonstration, five batches of four."""
    recipe = recipe_of(
        *("demonstration", "pair"), objective={"demonstration": "sft", "pair": "dpo"}
    )
    files = {"demonstrations": rows["demonstration"][:1], "pairs": (rows["pair"] * 3)[:19]}
    for stream in recipe["data"]:
        stream["path"] = str(
            write_rows(tmp_path / f"{stream['name']}.jsonl", files[stream["name"]])
        )
    recipe["train"] |= {"batch_size": 4, "num_train_epochs": 1, "logging_steps": 1, **train}
    recipe["train"].pop("max_steps", None)
    return recipe


def test_a_run_logs_the_weights_it_used_and_loses_no_rare_term(
    recipe_of: Make, rows: dict[str, Any], tmp_path: Path
) -> None:
    recipe = rare(recipe_of, rows, tmp_path, learning_rate=1e-12)
    carry_out(parse_recipe(recipe), tmp_path / "run", say=lambda line: None, self_check=False)
    lines = read_metrics(tmp_path / "run")
    assert sorted(line["weight/sft"] for line in lines) == [0, 0, 0, 0, 0.25]
    assert np.mean([line["weight/sft"] for line in lines]) == pytest.approx(1 / 20)
    own = next(line["demonstrations/loss"] for line in lines if line["weight/sft"])
    assert own > 3
    mean = np.mean([line["loss"] for line in lines])
    assert mean == pytest.approx((19 * math.log(2) + own) / 20, abs=1e-4)


def test_an_epoch_of_steps_has_the_gradient_of_all_records_at_once(
    recipe_of: Make, rows: dict[str, Any], tmp_path: Path
) -> None:
    recipe = rare(recipe_of, rows, tmp_path)
    run = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    run.fill_reference()

    def gradient(records: Any, weights: dict[str, float]) -> torch.Tensor:
        run.optimizer.zero_grad(set_to_none=True)
        batch, counts = pack_records(records, run.options.row_budget), run.terms.count(records)
        for row in batch.rows:
            row_loss(run, row, batch, weights, counts)[0].backward()
        return torch.cat([p.grad.flatten() for p in run.policy.parameters() if p.grad is not None])

    batches = [run.feeds.draw(["sft", "dpo"]) for _ in range(run.steps)]
    steps = []
    for records in batches:
        here = {"sft": 0, "dpo": 0}
        for record in records:
            here[run.terms.name_of(record)] += 1
        weights = in_batch(run.schedule.weigh(0), run.plan.drawn, here)
        steps.append(gradient(records, weights))
    everything = [record for records in batches for record in records]
    whole = gradient(everything, {"sft": 1 / 20, "dpo": 19 / 20})
    torch.testing.assert_close(torch.stack(steps).mean(0), whole, rtol=1e-4, atol=1e-6)
