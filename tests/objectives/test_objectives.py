"""The contract of every objective in the folder, known by name, before its own test exists."""

from __future__ import annotations

import dataclasses
import math

import pytest
from support.objective_batches import EVERY_KIND, batch_of, subset, weighed

from onestage.objectives import Objective, find, make, names
from onestage.objectives._trial import slope_K

OPTIONS = {  # options that change nothing unless something else holds, with what makes them bite
    "uft": [
        {"beta": 0.3},
        {"loss": "bce"},
        {"pairs": "score"},
        {"target_clip": 0.1},
        {"offset": "constant", "offset_value": 0.7},
    ],
    "sft": [
        {"reduction": "sum"},
        {"min_score": 0.5},
        {"reweight": "dft"},
        {"reweight": "chord"},
    ],
    "upft": [{"first_tokens": 1}],
    "dpo": [{"beta": 0.3}, {"label_smoothing": 0.1}],
    "ipo": [{"beta": 0.3}, {"average": True}],
    "kto": [{"beta": 0.3}, {"desirable_weight": 2.0}, {"undesirable_weight": 2.0}],
    "sdft": [{"teacher": "policy"}, {"clip": 0.5}],
    "grpo": [
        {"beta": 0.1},
        {"beta": 0.1, "kl_in": "reward"},
        {"entropy_coef": 0.1},
        {"epsilon": 0.05},
        {"epsilon_high": 0.5},
        {"importance_sampling_level": "sequence"},
        {"loss_type": "grpo"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "sum"},
        {"scale_rewards": "none"},
        {"scale_rewards": "batch"},
    ],
    "bradley_terry": [
        {"margin": "score"},
        {"margin": "score", "margin_scale": 3.0},
        {"target": "soft"},
        {"centering": 0.01},
    ],
    "rloo": [{"beta": 0.1}, {"kl_in": "loss"}, {"loss_type": "dapo"}],
    "reinforce": [
        {"beta": 0.1},
        {"baseline": "none"},
        {"baseline": "group"},
        {"baseline": "running"},
        {"whiten": "batch"},
    ],
    "ppo": [
        {"beta": 0.1},
        {"gamma": 0.9},
        {"lam": 0.5},
        {"vf_coef": 1.0},
        {"value_clip": 0.05},
        {"whiten": "none"},
    ],
    "hinted": [{"hint_coef": 0.1}, {"hint_coef": 0.1, "hint_reduction": "token"}],
    "luffy": [{"shaping": 1.0}, {"epsilon": 0.2}, {"entropy_coef": 0.0}],
    "srft": [{"sft_coef": 1.0}, {"positive_coef": 1.0}, {"right_at": 0.3}],
    "hpt": [{"gate": 1}, {"right_at": 0.05}, {"sft_coef": 0.3}, {"entropy_coef": 0.0}],
    "prefix_rft": [{"top_entropy": 1.0}, {"loss_type": "sum"}, {"epsilon": 0.05}],
}


def usable(objective: Objective):
    batch = batch_of([kind for kind in EVERY_KIND if kind in objective.kinds], seed=1)
    return weighed(objective, batch)


@pytest.fixture(params=names())
def objective(request: pytest.FixtureRequest) -> Objective:
    return make(request.param)


def test_count_is_the_units_weight(objective: Objective) -> None:
    batch = usable(objective)
    loss = objective(batch)
    assert float(objective.units(batch.feedback).count) == pytest.approx(float(loss.weight_U.sum()))
    assert float(loss.weight_U.sum()) > 0
    assert len(loss.loss_U) == len(loss.weight_U) == len(loss.record_U)


def test_the_sum_does_not_depend_on_how_the_batch_is_cut(objective: Objective) -> None:
    batch = usable(objective)
    whole = objective(batch).loss_U.sum()
    size = int(batch.feedback.record_N.max()) + 1
    for cut in range(1, size):
        parts = [subset(batch, range(cut)), subset(batch, range(cut, size))]
        total = sum(objective(part).loss_U.sum() for part in parts)
        assert float(total) == pytest.approx(float(whole), rel=1e-5)


def test_the_order_of_records_does_not_matter(objective: Objective) -> None:
    batch = usable(objective)
    size = int(batch.feedback.record_N.max()) + 1
    shuffled = subset(batch, list(reversed(range(size))))
    assert float(objective(shuffled).loss_U.sum()) == pytest.approx(
        float(objective(batch).loss_U.sum()), rel=1e-5
    )


def test_record_weights_scale_losses_and_counts(objective: Objective) -> None:
    batch = usable(objective)
    heavy = dataclasses.replace(
        batch, feedback=dataclasses.replace(batch.feedback, weight_N=batch.feedback.weight_N * 3)
    )
    assert float(objective(heavy).loss_U.sum()) == pytest.approx(
        3 * float(objective(batch).loss_U.sum()), rel=1e-5
    )
    assert float(objective.units(heavy.feedback).count) == pytest.approx(
        3 * float(objective.units(batch.feedback).count)
    )


def test_the_loss_is_finite_at_extreme_log_ratios(objective: Objective) -> None:
    batch = usable(objective)
    for shift in (-300.0, 300.0):
        far = dataclasses.replace(batch, logp_K=batch.ref_logp_K + shift)
        assert math.isfinite(objective(far).loss_U.sum().item())
        assert bool(slope_K(objective, far).isfinite().all())


def test_metrics_are_detached(objective: Objective) -> None:
    for item in objective(usable(objective)).metrics.values():
        assert not item.value_M.requires_grad
        assert len(item.value_M) == len(item.record_M)


@pytest.mark.parametrize(
    ("name", "options"), [(name, o) for name, many in OPTIONS.items() for o in many]
)
def test_every_option_changes_the_loss(name: str, options: dict) -> None:
    plain, changed = make(name), make({"name": name, **options})
    kinds = changed.kinds if name == "sft" else plain.kinds
    batch = batch_of([kind for kind in EVERY_KIND if kind in kinds], seed=1)
    sums = []
    for objective in (plain, changed):
        mine = weighed(objective, batch)
        sums.append(
            (objective(mine).loss_U.sum().item(), objective.units(batch.feedback).count.item())
        )
    assert sums[0] != pytest.approx(sums[1])


def test_names_are_files_and_una_is_uft() -> None:
    assert {"sft", "uft", "una", "dpo", "ipo", "kto"} <= set(names())
    assert find("una") is find("uft")
    assert "contract" not in names()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dpoo", {}, "did you mean 'dpo'"),
        ("contract", {}, "unknown objective"),
        ("dpo", {"betta": 1}, "did you mean 'beta'"),
        ("dpo", {"beta": -1}, "beta must be positive"),
        ("dpo", {"beta": "much"}, "beta"),
        ("dpo", {"label_smoothing": 0.5}, "label_smoothing"),
        ("uft", {"loss": "mae"}, "loss"),
        ("uft", {"target_clip": 0.5}, "target_clip"),
        ("uft", {"offset": "group"}, "target_clip > 0"),
        ("kto", {"decay": 1.0}, "decay"),
        ("kto", {"desirable_weight": -1}, "desirable_weight"),
        ("ipo", {"beta": 0}, "beta"),
        ("uft", {"loss": "raw", "target_clip": 0.1}, "no target_clip"),
        ("uft", {"loss": "raw", "pairs": "score"}, "pairs only as pairs"),
        ("grpo", {"beta": -0.1}, "beta and entropy_coef must be at least 0"),
        ("grpo", {"epsilon": 0}, "epsilon and epsilon_high must be positive"),
        ("grpo", {"epsilon": None, "epsilon_high": 0.3}, "would do nothing"),
        ("reinforce", {"decay": 1.0}, "decay"),
        ("reinforce", {"baseline": "mean"}, "baseline"),
        ("ppo", {"lam": 1.5}, "lam must be in"),
        ("ppo", {"vf_coef": 0}, "vf_coef and value_clip"),
        ("hinted", {"hint_coef": -1}, "hint_coef"),
        ("luffy", {"shaping": 0}, "shaping"),
        ("srft", {"sft_coef": -1}, "sft_coef"),
        ("hpt", {"gate": -1}, "gate"),
        ("prefix_rft", {"top_entropy": 2}, "top_entropy"),
        ("upft", {"first_tokens": 0}, "first_tokens"),
        ("upft", {"full_share": 1.5}, "full_share"),
    ],
)
def test_bad_names_and_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({"name": name, **options})
