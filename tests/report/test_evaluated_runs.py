"""What `onestage evaluate` found of runs' models, on the page and in the verdict."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.report_folders import make_cell, make_run, make_stages, write, write_lines

from onestage.report.cells import Cell, Compared, Setting
from onestage.report.equal import Choice, Tried
from onestage.report.figures import looks_of
from onestage.report.gains import gains_section, group_change
from onestage.report.keeping import verdict_of, verdict_section
from onestage.report.page import read_folders
from onestage.report.studies import read_study
from onestage.report.tables import latex_of


def suite(value: float, change: float, half: float, lower: bool = False) -> dict[str, Any]:
    apart = {"value": change, "low": change - half, "high": change + half}
    told = {"value": value, "lower_is_better": lower, "difference": apart}
    return {"items": 64, "metrics": {"mean": told, "prompt_level_acc": told, "part/acc": told}}


def evaluated(file: Path, models: dict[str, dict[str, Any]]) -> Path:
    listed = [{"name": "far/base", "base": None, "suites": {}}]
    listed += [{"name": n, "base": "far/base", "suites": {"ifeval": s}} for n, s in models.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"suites": {"ifeval": {"headline": "mean"}}, "models": listed}))
    return file


def test_runs_that_were_measured_together_are_judged_by_that(tmp_path: Path) -> None:
    """.75 - .25 = .5 at the start; the run that surely gained is kept, not the one that may have not."""
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    found = {"elsewhere/a/model": suite(0.75, 0.25, 0.125), "b/model": suite(0.625, 0.125, 0.25)}
    evaluated(tmp_path / "evaluation" / "evaluation.json", found)
    (chapter,) = read_folders(runs)
    assert chapter.headline[0] == "ifeval mean"
    assert "ifeval prompt level acc" in chapter.metrics
    assert not any("part" in name for name in chapter.metrics)
    values = {one.method: chapter.values(one, "ifeval mean") for one in chapter.settings()}
    assert {m: [*v.values()] for m, v in values.items()} == {
        "start": [0.5],
        "a": [0.75],
        "b": [0.625],
    }
    halves = {name: certain["ifeval mean"] for name, certain in chapter.certain.items()}
    assert halves == {"a": 0.125, "b": 0.25}
    verdict = verdict_of(chapter, {"by": "ifeval mean", "allowed": 100})
    assert verdict is not None
    assert verdict.keep == "a"


def test_a_suite_that_was_asked_of_one_run_once_more_hides_nothing_of_the_others(
    tmp_path: Path,
) -> None:
    """Run a was asked all items in the end; b, like a, a few while it went: .5 and then .6."""
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    for run in runs:
        asked_while_it_went(run, {0: 0.5, 60: 0.6}, 0.1)
    file = runs[0] / "evaluation" / "evaluation.json"
    evaluated(file, {"a/model": suite(0.75, 0.25, 0.125)})
    (chapter,) = read_folders(runs)
    own, few = (
        {one.method: [*chapter.values(one, name).values()] for one in chapter.settings()}
        for name in ("ifeval mean", "ifeval mean, while training")
    )
    assert own == {"start": [0.5], "a": [0.75], "b": []}
    assert few == {"start": [0.5], "a": [], "b": [0.6]}
    verdict = verdict_of(chapter, {"by": "ifeval mean, while training", "allowed": 100})
    assert verdict is not None
    assert "of 2 models" in verdict.sentence
    evaluated(file, {str(run / "model"): suite(0.75, 0.25, 0.125) for run in runs})
    (chapter,) = read_folders(runs)
    assert not any("while training" in name for name in chapter.metrics)


def test_numbers_that_are_older_than_the_model_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    file = evaluated(run / "evaluation" / "evaluation.json", {"a/model": suite(0.6, 0.2, 0.1)})
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(b"")
    os.utime(file, (1000, 1000))
    (chapter,) = read_folders([run])
    assert "ifeval mean" not in chapter.metrics
    assert any("older than the model" in one.what for one in chapter.troubles)
    os.utime(weights, (1000, 1000))
    (chapter,) = read_folders([run])
    assert "ifeval mean" in chapter.metrics


def asked_while_it_went(run: Path, values: dict[int, float], change: float | None = None) -> None:
    """A suite's numbers at some steps of a run; the last with its change, ± .1 over the same items."""
    with (run / "metrics.jsonl").open("a") as log:
        log.writelines(
            json.dumps({"step": step, "suite/ifeval/mean": value}) + "\n"
            for step, value in values.items()
        )
    facts: list[dict[str, Any]] = [{"value": value} for value in values.values()]
    if change is not None:
        facts[-1] |= {"change": change, "half": 0.1}
    lines = [
        {"step": step, "suite": "ifeval", "metrics": {"mean": one}}
        for step, one in zip(values, facts, strict=True)
    ]
    write_lines(run / "evaluations.jsonl", lines)


def change_of(chapter: Compared, method: str) -> float:
    found = chapter.change(Setting(method), "ifeval mean")
    assert found is not None
    return found.mean


def test_a_change_is_of_the_items_that_were_asked_both_times(tmp_path: Path) -> None:
    """.5 of all items at the start and .75 of the first of them at the end, which had .6 there."""
    run = make_run(tmp_path / "a")
    asked_while_it_went(run, {0: 0.5, 60: 0.75}, 0.15)
    (chapter,) = read_folders([run])
    assert change_of(chapter, "a") == pytest.approx(0.15)
    verdict = verdict_of(chapter)
    assert verdict is not None
    (told,) = (one for one, _ in verdict.changes if one.measure == "ifeval mean")
    assert (told.before, told.after) == (pytest.approx(0.6), 0.75)
    assert told.bounds == (pytest.approx(5), pytest.approx(25))
    assert "surely worse than start" in latex_of(chapter)  # which the dagger stands for


def test_a_stage_is_compared_with_the_model_it_began_from_and_the_run_with_its_own(
    tmp_path: Path,
) -> None:
    """The second stage fell by .05 from .8, and the run rose by .25 from .5, of which no interval is
    known."""
    run = make_stages(tmp_path / "a")
    asked_while_it_went(run / "1-sft", {0: 0.5, 60: 0.8}, 0.3)
    asked_while_it_went(run / "2-dpo", {0: 0.8, 60: 0.75}, -0.05)
    (chapter,) = read_folders([run])
    assert change_of(chapter, "a") == pytest.approx(0.25)
    assert "ifeval mean" not in chapter.certain["a"]


def test_the_step_that_an_earlier_stage_kept_is_no_step_of_the_last(tmp_path: Path) -> None:
    """The first stage kept its step 20; the run's numbers are those of step 60 of the second."""
    run = make_stages(tmp_path / "a")
    with (run / "1-sft" / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 60, "evaluate/kept_step": 20.0}) + "\n")
    asked_while_it_went(run / "2-dpo", {0: 0.5, 20: 0.6, 60: 0.75})
    (chapter,) = read_folders([run])
    (value,) = chapter.values(Setting("a"), "ifeval mean").values()
    assert value == 0.75


def test_of_several_models_of_a_run_the_one_that_it_left_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (run / "model_last").mkdir()
    found = {"a/model": suite(0.75, 0.25, 0.1), "a/model_last": suite(0.6, 0.1, 0.1)}
    evaluated(run / "evaluation" / "evaluation.json", found)
    (chapter,) = read_folders([run])
    assert [*chapter.values(Setting("a"), "ifeval mean").values()] == [0.75]


def test_numbers_are_found_where_the_command_leaves_them(tmp_path: Path) -> None:
    """Of several models in the folder of the first one's run; of stages in that of the last."""
    runs = [make_run(tmp_path / name / "run") for name in "ab"]
    runs.append(make_stages(tmp_path / "c"))
    (runs[2] / "model").symlink_to("2-dpo/model")
    models = {str(run / "model"): suite(0.5 + 0.1 * n, 0.1, 0.1) for n, run in enumerate(runs)}
    evaluated(runs[0] / "evaluation" / "evaluation.json", dict([*models.items()][:2]))
    evaluated(runs[2] / "2-dpo" / "evaluation" / "evaluation.json", dict([*models.items()][2:]))
    (chapter,) = read_folders(runs)
    found = [chapter.values(Setting(name), "ifeval mean") for name in chapter.methods[1:]]
    assert [[*one.values()] for one in found] == [[0.5], [0.6], [0.7]]


@pytest.mark.parametrize("terms", [7, 12])
def test_the_verdict_goes_by_all_that_was_measured(tmp_path: Path, terms: int) -> None:
    """What was to be kept comes last, behind as many losses as a recipe has."""
    run = make_run(tmp_path / "run")
    told = [{f"eval/terms/t{n}": loss for n in range(terms)} for loss in (2.0, 1.0)]
    lines = [
        {"step": 0, **told[0], "retention/kept/loss": 1.0},
        {"step": 60, "loss": 0.1, "tokens": 10, **told[1], "retention/kept/loss": 9.0},
    ]
    write_lines(run / "metrics.jsonl", lines)
    (chapter,) = read_folders([run])
    assert len(chapter.headline) == 8
    verdict = verdict_of(chapter)
    assert verdict is not None
    assert verdict.sentence == (
        "Keep the model it started from: run lost more than is allowed in kept loss."
    )


def test_what_is_no_number_in_the_end_is_lost(tmp_path: Path) -> None:
    """Not as it was when it last was one."""
    run = make_run(tmp_path / "run")
    lines = [
        {"step": 0, "eval/terms/sft": 2.0, "retention/kept/loss": 1.0},
        {"step": 30, "loss": 1.0, "tokens": 5, "eval/terms/sft": 1.5, "retention/kept/loss": 1.0},
        {"step": 60, "loss": 0.5, "tokens": 9, "eval/terms/sft": 1.0, "retention/kept/loss": None},
    ]
    write_lines(run / "metrics.jsonl", lines)
    (chapter,) = read_folders([run])
    assert [t.what for t in chapter.troubles] == ["no number at the last evaluation: kept loss"]
    verdict = verdict_of(chapter)
    assert verdict is not None
    assert verdict.keep == "the model it started from"
    standing = {change.measure: told for change, told in verdict.changes}
    assert standing == {"sft loss": "gained", "kept loss": "lost"}


def test_a_suite_without_a_number_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    broken = suite(0.75, 0.25, 0.125)
    broken["metrics"]["mean"] = {**broken["metrics"]["mean"], "value": None}
    evaluated(tmp_path / "evaluation" / "evaluation.json", {"elsewhere/a/model": broken})
    (chapter,) = read_folders([run])
    assert "ifeval mean" not in chapter.metrics
    told = "suite ifeval: mean is no number, and is left out"
    assert told in [trouble.what for trouble in chapter.troubles]


def test_a_trial_that_failed_on_a_tuning_seed_keeps_nothing() -> None:
    """As in tuning: rate 2 has more left on one seed, and nothing on the other."""
    cells: dict[Choice, list[Cell]] = {}
    for rate, kept in ((1, [0.4, 0.5]), (2, [0.9])):
        one = (Setting("A"), json.dumps({"rate": rate}))
        cells[one] = [
            Cell("t", "A", seed, "tune", results={"truth": 0.5, "kept": value})
            for seed, value in enumerate(kept)
        ]
    whole = Tried("truth", "truth", 0.9, ["kept"], tests=cells, trials=cells, seeds=2)
    assert whole.keeper("A", "kept", 1) == (Setting("A"), json.dumps({"rate": 1}))


def test_a_method_that_lacks_a_metric_is_not_beside_those_that_have_it(tmp_path: Path) -> None:
    """B has x alone: its mean of x and y would be another number, and its verdict one of less."""
    for seed in range(4):
        make_cell(tmp_path, "base", seed, {"x": 0.5, "y": 0.5})
        make_cell(tmp_path, "A", seed, {"x": 0.9, "y": 0.1})
        make_cell(tmp_path, "B", seed, {"x": 0.9})
    metrics = {name: {"says": "", "better": "higher", "group": "g"} for name in "xy"}
    about = {"name": "s", "base": "base", "methods": ["base", "A", "B"], "seeds": [0, 1, 2, 3]}
    write(tmp_path / "study.json", {**about, "metrics": metrics, "headline": ["x", "y"]})
    found = read_study(tmp_path)
    a, b = (group_change(found, Setting(name), ["x", "y"]) for name in "AB")
    assert (a and a.mean, b) == (pytest.approx(0.0), None)
    page = str(gains_section(found, looks_of(found.methods, found.base)))
    assert "Without a bar where a metric of the group is missing: B." in page
    assert "Judged by less than others: B (no y)." in str(verdict_section(found, None))


def test_what_only_an_earlier_stage_measured_is_not_of_the_end(tmp_path: Path) -> None:
    """A loss of the first stage's model is none of the model that the second left."""
    run = make_stages(tmp_path / "run")
    both = {"step": 9, "eval/terms/sft": 1.5, "eval/terms/dpo": 0.6}
    write_lines(run / "1-sft" / "metrics.jsonl", [{"step": 0, "eval/terms/sft": 2.0}, both])
    write_lines(run / "2-dpo" / "metrics.jsonl", [{"step": 9, "eval/terms/dpo": 0.4}])
    (chapter,) = read_folders([run])
    (cell,) = [cell for cell in chapter.cells if cell.method != "start"]
    assert dict(cell.results) == {"dpo loss": 0.4}
