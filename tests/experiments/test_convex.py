"""The convex bench against the numbers of xright.md 2.3, 2.4 and T13.

Two printed digits could not be had, both in the last place: .1148 for an upper bound of .114748, and
.3789 for construction A at T = 100, which is .37885 (below).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.convex import problem as convex
from experiments.convex.__main__ import app
from experiments.convex.deciding import (
    PRODUCT,
    SELECTION,
    STALENESS,
    chosen,
    decided_by,
    excess,
    smoothed,
    stale,
)
from experiments.convex.runs import alright, deciding, maxright, mix, sequential
from experiments.convex.tables import OVER_TIME, Clipped, clipped, gap_a, gaps_at

A, B = convex.construction_a(), convex.construction_b()


def test_gradients_are_those_of_the_losses() -> None:
    theta, h = np.array([0.3, -0.7]), 1e-6
    for part in convex.construction_b(scale=5.0).objectives:
        often = part.draw(np.random.default_rng(0), 16, ())
        ends = [(theta + h * e, theta - h * e) for e in np.eye(2)]
        slope = [(part.loss(a, often) - part.loss(b, often)) / (2 * h) for a, b in ends]
        assert part.gradient(theta, often) == pytest.approx(slope, abs=1e-8)
        bend = [(part.gradient(a) - part.gradient(b)) / (2 * h) for a, b in ends]
        assert part.hessian(theta) == pytest.approx(np.array(bend), abs=1e-8)


@pytest.mark.parametrize("batch", [1, 16])
def test_batches_are_drawn_by_the_objective_s_odds(batch: int) -> None:
    for part in B.objectives:
        often = part.draw(np.random.default_rng(1), batch, (20_000,))
        assert np.allclose(often.sum(-1), 1)
        assert often.mean(0) == pytest.approx(part.odds_C, abs=0.02)


# Construction A


def test_a_closed_forms() -> None:
    assert convex.gap_a(2.0, 0.5) == pytest.approx((0.43378, 0.43378), abs=5e-6)
    assert convex.steps_a(2.0, 1.0) == pytest.approx(1126, abs=0.5)
    gaps = [convex.gap_a(5.0, lam)[0] for lam in (0.25, 0.5, 0.75)]
    assert gaps == pytest.approx([0.6944, 1.8136, 3.1944], abs=5e-5)
    for lam in (0.25, 0.5, 0.75):
        assert A.argmin(lam)[0] == pytest.approx(np.log(lam / (1 - lam)), abs=1e-9)
        assert A.mixture(A.argmin(lam), lam) == pytest.approx(convex.entropy(lam), abs=1e-12)
        ends = A.gap(np.array([[-2.0], [2.0]]), lam)
        assert ends == pytest.approx(convex.gap_a(2.0, lam), abs=1e-12)


@pytest.mark.parametrize(
    ("steps", "first"),
    [(1000, "dpo"), (1500, "dpo"), (10_000, "dpo"), (1000, "sft"), (1500, "sft")],
)
def test_a_sequential_is_stuck_in_both_orders(steps: int, first: str) -> None:
    assert gap_a(2.0, 0.5, steps, first=first) == pytest.approx(0.43378, abs=5e-6)


def test_a_short_runs_are_not_there_yet() -> None:
    # .37885 here; xright.md prints .3789
    assert gap_a(2.0, 0.5, 100) == pytest.approx(0.3789, abs=1e-4)


@pytest.mark.parametrize(("lam", "gap"), [(0.25, 0.6944), (0.5, 1.8136), (0.75, 3.1944)])
def test_a_wide_box_forgets_more(lam: float, gap: float) -> None:
    assert gap_a(5.0, lam, 1500, scale=40.0) == pytest.approx(gap, abs=5e-5)
    assert gap_a(5.0, 1 - lam, 1500, scale=40.0, first="sft") == pytest.approx(gap, abs=5e-5)


# Construction B, exactly


def test_b_closed_forms() -> None:
    for found, closed, printed in zip(
        (B.argmin(1.0), B.argmin(0.0)),
        convex.optima_b(),
        ((1.386294, 0.847298), (-1.522261, 0.674963)),
        strict=True,
    ):
        assert found == pytest.approx(closed, abs=1e-9)
        assert closed == pytest.approx(printed, abs=5e-7)
    assert B.optima == pytest.approx((0.555633, 0.467974), abs=5e-7)
    entropies = [sum(map(convex.entropy, pair)) / 2 for pair in ((0.8, 0.7), (0.3, 0.1))]
    assert B.optima == pytest.approx(entropies, abs=1e-12)
    assert [part.loss(np.zeros(2)) for part in B.objectives] == pytest.approx([0.693147] * 2)
    assert B.first.loss(B.argmin(0.0)) == pytest.approx(1.014625, abs=5e-7)
    assert B.second.loss(B.argmin(1.0)) == pytest.approx(1.304963, abs=5e-7)
    assert [part.smoothness() for part in B.objectives] == pytest.approx([0.125, 0.25])


LAMBDA_TABLE = {
    # lam: argmin F, min F, DPO then SFT, SFT then DPO, (gaps, distance) there, Chebyshev, mu
    0.25: (
        ((-0.9744, 0.5615), 0.58254),
        ((0.0138, 0.02210, 0.1148), (0.4156, 0.53509)),
        ((0.3041, 0.0222), 0.3049),
        ((-0.5907, 0.5528), (0.2112, 0.0704), 0.2226, 0.428),
    ),
    0.5: (
        ((-0.4265, 0.5627), 0.65029),
        ((0.0645, 0.09101, 0.2295), (0.2155, 0.28001)),
        ((0.1760, 0.1009), 0.2029),
        ((-0.2483, 0.5814), (0.1413, 0.1413), 0.1998, 0.573),
    ),
    0.75: (
        ((0.2515, 0.6673), 0.65587),
        ((0.1741, 0.22209, 0.3442), (0.0647, 0.08709)),
        ((0.0643, 0.2956), 0.3026),
        ((0.1140, 0.6400), (0.0824, 0.2472), 0.2606, 0.706),
    ),
}


@pytest.mark.parametrize("lam", LAMBDA_TABLE)
def test_b_lambda_table(lam: float) -> None:
    (best, value), (to_sft, to_dpo), (gaps, distance), corner = LAMBDA_TABLE[lam]
    assert B.argmin(lam) == pytest.approx(best, abs=6e-5)
    assert B.mixture(B.argmin(lam), lam) == pytest.approx(value, abs=6e-6)
    lower, gap, upper = B.forgetting(lam, kept=1)
    assert (lower, upper) == pytest.approx((to_sft[0], to_sft[2]), abs=6e-5)
    assert gap == pytest.approx(to_sft[1], abs=6e-6)
    lower, gap, upper = B.forgetting(lam, kept=0)
    assert lower == pytest.approx(to_dpo[0], abs=6e-5)
    assert gap == pytest.approx(to_dpo[1], abs=6e-6)
    assert lower < gap < upper
    assert B.gaps(B.argmin(lam)) == pytest.approx(gaps, abs=6e-5)
    assert B.ideal_distance(B.argmin(lam)) == pytest.approx(distance, abs=6e-5)
    point, share = B.chebyshev(lam)
    assert point == pytest.approx(corner[0], abs=6e-5)
    assert B.gaps(point) == pytest.approx(corner[1], abs=6e-5)
    assert B.ideal_distance(point) == pytest.approx(corner[2], abs=6e-5)
    assert share == pytest.approx(corner[3], abs=6e-4)


def test_chebyshev_point_is_best_at_its_own_criterion() -> None:
    for lam in LAMBDA_TABLE:
        around = np.random.default_rng(0).normal(B.chebyshev(lam)[0], 0.05, (500, 2))
        assert excess(B, around, lam).min() > 0


# Construction B, by SGD with the product's schedules


@pytest.fixture(scope="module")
def over_time() -> dict[int, dict[str, np.ndarray]]:
    """10,000 steps take ten seconds: `make convex` has them."""
    return {steps: gaps_at(steps, 64) for steps in (100, 1000)}


@pytest.mark.parametrize("steps", [1000])
def test_sequential_sits_at_its_gap(over_time: dict, steps: int) -> None:
    """Within three standard errors of the printed means, which have errors like ours."""
    closed = [B.forgetting(0.5, kept)[1] for kept in (1, 0)]
    measured = list(over_time[steps].values())[:2]
    for gaps, printed, limit in zip(measured, OVER_TIME[steps], closed, strict=False):
        error = gaps.std(ddof=1) / len(gaps) ** 0.5
        assert gaps.mean() == pytest.approx(printed, abs=3 * 2**0.5 * error)
        assert gaps.mean() == pytest.approx(limit, abs=4 * error)


def test_alright_falls_like_one_over_root_t(over_time: dict) -> None:
    steps = np.log(list(over_time))

    def slope(name: str) -> float:
        return float(np.polyfit(steps, [np.log(t[name].mean()) for t in over_time.values()], 1)[0])

    last, average = slope("ALRIGHT, last iterate"), slope("ALRIGHT, average")
    assert -0.65 < last < -0.4
    assert average < last - 0.2
    for name, column in (("ALRIGHT, last iterate", 2), ("ALRIGHT, average", 3)):
        for t, found in over_time.items():
            error = found[name].std(ddof=1) / len(found[name]) ** 0.5
            # half a unit of the last printed digit beside the errors of both means
            assert found[name].mean() == pytest.approx(
                OVER_TIME[t][column], abs=3 * 2**0.5 * error + 5e-6
            )


@pytest.mark.parametrize("lam", LAMBDA_TABLE)
def test_maxright_lands_on_the_chebyshev_point(lam: float) -> None:
    run = chosen(B, lam, 6, decide="independent", decided="exact")
    gaps = B.gaps(run.average_SD.mean(0))
    assert gaps == pytest.approx(B.gaps(B.chebyshev(lam)[0]), abs=3e-3)
    assert run.trained[0] == pytest.approx(B.chebyshev(lam)[1], abs=0.02)


SELECTION_POINTS = {
    "exact losses": (-0.247, 0.553),
    "same batch, size 1": (-0.120, 0.063),
    "same batch, size 16": (-0.220, 0.295),
    "same batch, size 256": (-0.240, 0.472),
    "independent batch, size 1": (-0.286, 0.550),
    "EMA .05, size 1": (-0.268, 0.552),
}


def test_selection_bias() -> None:
    runs = {name: chosen(B, 0.5, 6, **options) for name, (options, _) in SELECTION.items()}
    points = {name: run.average_SD.mean(0) for name, run in runs.items()}
    for name, printed in SELECTION_POINTS.items():
        assert points[name] == pytest.approx(printed, abs=0.04), name
        distance = SELECTION[name][1]
        assert B.ideal_distance(points[name]) == pytest.approx(distance, abs=1.5e-3), name
    worse = {name: excess(B, point, 0.5) for name, point in points.items()}
    same = [worse[f"same batch, size {batch}"] for batch in (1, 16, 256)]
    assert same[0] > 3 * same[1] > 6 * same[2]
    # one record decides, and is not what is trained on: as good as sixteen that are
    assert same[0] > 3 * worse["independent batch, size 1"]
    assert worse["EMA .05, size 1"] < worse["independent batch, size 1"]
    # a batch that is kept until it is trained on selects none: most of the bias is gone
    assert same[0] > 3 * worse["same, size 1, kept if unchosen"]


@pytest.mark.parametrize("alpha", STALENESS)
def test_losses_must_not_be_stale(alpha: float) -> None:
    found = {period: stale(B, alpha, period, 6) for period in (1, 10, 1000)}
    mean = {period: distance.mean() for period, distance in found.items()}
    assert mean[10] < mean[1] < mean[1000]
    printed = dict(zip((1, 10, 100, 1000), STALENESS[alpha], strict=True))
    for period, distance in found.items():
        error = distance.std(ddof=1) / len(distance) ** 0.5
        assert mean[period] == pytest.approx(printed[period], abs=4 * error + 1e-3)


def test_which_loss_should_decide() -> None:
    """At lambda = .25, k = 10, batch 16: a running mean finds the point, single losses do not; and
    a slower mean is harmed less by an f* that noisy losses lower. Second half of the run."""

    def worse(name: str, optimum: str) -> float:
        run = decided_by(B, 0.25, 4, optimum, PRODUCT[name])
        return float(excess(B, run.tail_SD.mean(0), 0.25))

    names = ("independent", "EMA .2", "EMA .1", "EMA .05")
    given = {name: worse(name, "given") for name in names}
    assert given["independent"] > 0.02 > given["EMA .2"] > given["EMA .1"] > given["EMA .05"]
    assert given["EMA .1"] < 0.008
    lowered = {name: worse(name, "lowered") for name in ("independent", "EMA .1", "EMA .05")}
    assert lowered["independent"] > 0.015
    assert lowered["EMA .1"] > 2 * lowered["EMA .05"]


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.01])
def test_smooth_maxright_lands_on_its_optimum(tau: float) -> None:
    point, _ = B.smooth_chebyshev(0.25, tau)
    assert smoothed(B, tau, 4).average_SD.mean(0) == pytest.approx(point, abs=0.06)


def test_smooth_maxright_lies_between_mix_and_maxright() -> None:
    mixed, corner = B.argmin(0.25), B.chebyshev(0.25)[0]
    assert B.smooth_chebyshev(0.25, 1e4)[0] == pytest.approx(mixed, abs=1e-3)
    assert B.smooth_chebyshev(0.25, 1e-4)[0] == pytest.approx(corner, abs=1e-3)
    shares = [B.smooth_chebyshev(0.25, tau)[1] for tau in (1.0, 0.1, 0.01)]
    assert shares == sorted(shares)


def test_clipping_each_step_changes_the_weights() -> None:
    problem = convex.construction_b(scale=5.0)

    def gap(name: str, how: Clipped) -> float:
        return float(problem.gap(clipped(problem, name, how, 4).tail_SD, 0.5).mean())

    # the reference does not tell its step size and length; with 64 seeds ours is .0722
    assert gap("ALRIGHT", "step") == pytest.approx(0.0720, abs=0.007)
    assert gap("Mix", "step") < 3e-4
    assert gap("ALRIGHT", "none") < 5e-4
    assert gap("ALRIGHT", "common") < 5e-4


def test_runs_are_functions_of_the_seed() -> None:
    def last(seed: int) -> list[np.ndarray]:
        make = deciding(B, 50, 0.5, decide="ema")
        return [
            sequential(B, 50, 2.0, first="sft", seeds=3, seed=seed).last_SD,
            alright(B, 50, 0.1, lam=0.5, seeds=3, seed=seed).last_SD,
            mix(B, 50, 0.1, lam=0.5, seeds=3, seed=seed).last_SD,
            maxright(B, make, 50, 0.1, seeds=3, seed=seed).last_SD,
        ]

    for once, again, other in zip(last(1), last(1), last(2), strict=True):
        assert np.array_equal(once, again)
        assert not np.array_equal(once, other)
        assert len(np.unique(once[:, 0])) == 3


# The command


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dict(list(SELECTION.items())[:2])  # all of them: test_selection_bias
    monkeypatch.setattr("experiments.convex.deciding.SELECTION", few)
    words = ["--quick", "--seeds", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Construction A" in result.output
    assert "0.4338" in result.output
    numbers = json.loads((tmp_path / "convex.json").read_text())
    assert numbers["seeds"] == 2
    assert {"stuck", "optima", "over_time", "selection", "clipping"} <= set(numbers["tables"])
    rows = numbers["tables"]["over_time"]["rows"]
    assert {row[0] for row in rows} == {100, 1000}
    assert "| 0.4338 | 0.4338 |" in (tmp_path / "convex.md").read_text()
    picture = (tmp_path / "convex.svg").read_text()
    assert all(f"{name} optimum" in picture for name in ("DPO", "SFT", "Mix", "Chebyshev"))
    assert len(picture) < 300_000


def test_figures_need_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "pip install 'onestage[figures]'" in result.output
    assert not (tmp_path / "out").exists()
