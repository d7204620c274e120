"""Raters who differ in level, range and care: what is taken off, where their habits are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.rows import lines_of
from typer.testing import CliRunner

from onestage.cli import app
from onestage.data.annotators import Raters
from onestage.data.calibration import calibrate
from onestage.data.record import Record

RATERS, ANSWERS = 12, 300


def add(raters: Raters, answer: int, rater: str, score: float) -> None:
    raters.add(Record("score", "q", (str(answer),), (score,)), rater)


def drawn(seed: int, bias: float, scale: tuple[float, float], noise: tuple[float, float]):
    """Ratings of three raters an answer, the answers' worth, and the raters' biases."""
    random = np.random.default_rng(seed)
    worth, raters = random.uniform(0.1, 0.9, ANSWERS), Raters()
    biases = random.normal(0, bias, RATERS)
    scales, noises = random.uniform(*scale, RATERS), random.uniform(*noise, RATERS)
    for answer, value in enumerate(worth):
        for r in random.choice(RATERS, 3, replace=False):
            said = 0.5 + biases[r] + scales[r] * (value - 0.5) + random.normal(0, noises[r])
            add(raters, answer, f"r{r}", float(np.clip(said, 0, 1)))
    return raters, worth, biases


def error(values: list[float | None], worth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.array(values, float) - worth) ** 2)))


@pytest.mark.parametrize("seed", range(4))
def test_known_habits_are_found_and_scores_come_nearer_to_the_truth(seed):
    raters, worth, biases = drawn(seed, 0.15, (0.5, 1.4), (0.03, 0.2))
    found = calibrate(raters)
    told = np.array([found.habits[f"r{r}"].bias for r in range(RATERS)])
    assert np.corrcoef(told, biases)[0, 1] > 0.95
    mean = error([one.verdict() for one in raters], worth)
    assert error([found.score(one) for one in raters], worth) < 0.8 * mean


@pytest.mark.parametrize("seed", range(4))
def test_raters_who_do_not_differ_lose_little(seed):
    raters, worth, _ = drawn(seed, 0.0, (1.0, 1.0), (0.1, 0.1))
    mean = error([one.verdict() for one in raters], worth)
    assert error([calibrate(raters).score(one) for one in raters], worth) < 1.05 * mean


def test_a_constant_difference_is_taken_off_and_the_level_stays():
    raters = Raters()
    for answer in range(200):
        value = 0.3 + 0.4 * answer / 199
        add(raters, answer, "ann", value + 0.1)
        add(raters, answer, "bob", value - 0.1)
    found = calibrate(raters)
    assert found.habits["ann"].bias == pytest.approx(0.1, abs=0.01)
    assert found.habits["bob"].bias == pytest.approx(-0.1, abs=0.01)
    scores = [found.score(one) for one in raters]
    assert scores[0] == pytest.approx(0.3, abs=0.02)
    assert np.mean(scores) == pytest.approx(0.5, abs=1e-6)


def test_who_shares_little_stays_as_he_is_and_labels_keep_their_votes():
    raters = Raters()
    for answer in range(10):
        add(raters, answer, "alone", answer / 10)
    for rater, label in (("ann", 1.0), ("bob", 1.0), ("cy", 0.0)):
        raters.add(Record("label", "q", ("x",), (label,)), rater)
    found = calibrate(raters)
    assert not found.habits
    *scores, label = [found.score(one) for one in raters]
    assert scores == pytest.approx([answer / 10 for answer in range(10)])
    assert label == 1.0


def test_the_command_says_what_it_took_off(write, tmp_path):
    rows = [
        {"prompt": f"q{n}", "completion": "a", "score": value + off, "annotator": who}
        for n, value in enumerate(np.linspace(1.5, 4.5, 30))
        for who, off in (("ann", 0.4), ("bob", -0.4))
    ]
    source, out = write("a.jsonl", lines_of(*rows)), tmp_path / "o.jsonl"
    options = ["--score-range", "1,5", "--ratings"]
    told = CliRunner().invoke(app, ["convert", str(source), str(out), *options, "calibrated"])
    assert told.exit_code == 0, told.output
    assert "taken off" in told.output
    assert "+0.100" in told.output
    assert "beyond the range" not in told.output
    first = json.loads(out.read_text().splitlines()[0])
    assert first["score"] == pytest.approx((1.5 - 1) / 4, abs=0.02)
    wrong = CliRunner().invoke(app, ["convert", str(source), str(out), *options, "median"])
    assert wrong.exit_code != 0
    assert "neither mean nor calibrated" in wrong.output
    alone = tmp_path / "alone.jsonl"
    alone.write_text(json.dumps({"prompt": "Why?", "completion": "So.", "score": 0.5}) + "\n")
    few = CliRunner().invoke(
        app, ["convert", str(alone), str(out), "--ratings", "calibrated", "--force"]
    )
    assert "--ratings calibrated changed nothing" in " ".join(few.output.split())


def test_calibrated_scores_beyond_the_range_are_its_ends_and_counted(write, tmp_path):
    rows = [
        {
            "prompt": f"q{n}",
            "completion": "a",
            "score": float(np.clip(v + off, 0, 1)),
            "annotator": who,
        }
        for n, v in enumerate(np.linspace(0, 1, 30))
        for who, off in (("ann", 0.15), ("bob", -0.15))
    ] + [{"prompt": "alone", "completion": "a", "score": 1.0, "annotator": "bob"}]
    source, out = write("a.jsonl", lines_of(*rows)), tmp_path / "o.jsonl"
    told = CliRunner().invoke(app, ["convert", str(source), str(out), "--ratings", "calibrated"])
    scores = [json.loads(line)["score"] for line in out.read_text().splitlines()]
    assert max(scores) == 1.0
    assert f"{scores.count(1.0) + scores.count(0.0)} calibrated scores lay beyond" in told.output
