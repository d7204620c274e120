"""Whole studies with a tiny model: done, found again, crashed, mended, killed."""

from __future__ import annotations

import csv
import itertools
import json
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from support.dying import alive, die, fail, hold_workers, until
from support.small_studies import DPO, content, ground
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.report.studies import read_study
from onestage.runfolder import read_json, silent, write_json, write_text
from onestage.studies.cells import Cell, reported, within
from onestage.studies.executors import Crew, Ended, Executor, Place
from onestage.studies.executors.local import workers
from onestage.studies.file import StudyError, parse_study
from onestage.studies.ledger import ledger
from onestage.studies.reopen import judge_again, judge_all
from onestage.studies.results import read_tidy
from onestage.studies.run_cell import begin
from onestage.studies.study import Outcome, Study
from onestage.studies.study import study as run_study
from onestage.studies.tables import markdown
from onestage.studies.worlds import Ground
from onestage.studies.worlds.folder import Folder
from onestage.studies.worlds.lab import Lab
from onestage.training.first_stage import FILE


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Path]:
    return ground(tmp_path_factory.mktemp("ground"), model_folder)


def do(study: dict[str, Any], out: Path, **options: Any) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    doing = Study(parse_study(study), out, out.parent / "cache", say=lines.append, **options)
    return doing.go(), lines


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, folders: tuple[Path, Path]
) -> tuple[dict[str, Any], Path, Outcome]:
    """A tuned study, one claim."""
    out = tmp_path_factory.mktemp("study") / "out"
    claim = {"claim": "the chain is better", "metric": "overall"}
    study = content(
        *folders,
        tune={"seeds": [100], "metric": "overall"},
        claims=[{**claim, "more": "SFT then DPO", "than": ["SFT", "base"]}],
    )
    for method in study["methods"].values():
        method["try"] = {"rate": [0.001, 0.01]}
    return study, out, do(study, out)[0]


def test_the_tables_say_what_the_cells_found(done: tuple[dict[str, Any], Path, Outcome]) -> None:
    _, out, outcome = done
    assert not outcome.failed
    lines = list(csv.DictReader((out / "results.csv").open()))
    assert {(line["purpose"], line["method"], line["seed"]) for line in lines} == {
        *(("tune", m, "100") for m in ("SFT", "SFT then DPO")),
        *(("test", m, s) for m in ("base", "SFT", "SFT then DPO") for s in "01"),
    }
    assert pq.read_table(out / "results.parquet").num_rows == len(lines)
    cell = read_json(out / "cells" / "SFT-seed=0" / "results.json")
    mine = {x["metric"]: float(x["value"]) for x in lines if x["cell"] == "SFT-seed=0"}
    assert mine == pytest.approx(cell, rel=1e-5)
    told = {(x["method"], x["metric"]): x for x in csv.DictReader((out / "summary.csv").open())}
    values = [
        read_json(out / "cells" / f"SFT-seed={s}" / "results.json")["overall"] for s in (0, 1)
    ]
    assert float(told["SFT", "overall"]["mean"]) == pytest.approx(sum(values) / 2, rel=1e-5)
    assert float(told["base", "preference"]["mean"]) == 0.5
    assert float(told["base", "retention"]["mean"]) == 1.0
    described = read_json(out / "study.json")
    assert described["tune"]["trials"] == 2
    assert described["metrics"]["text_loss"]["better"] == "lower"
    (entry,) = read_json(out / "claims.json")
    assert len(entry["parts"]) == 2


def test_tuning_and_results_look_at_different_splits(
    done: tuple[dict[str, Any], Path, Outcome], folders: tuple[Path, Path]
) -> None:
    _, out, _ = done
    asked = {}
    for split in ("validation", "test"):
        rows = (folders[1] / f"demonstration.{split}.jsonl").read_text().splitlines()
        asked[split] = [json.loads(row)["prompt"] for row in rows[:2]]
    for name, split in (("tune-SFT-rate=0.01-seed=100", "validation"), ("SFT-seed=0", "test")):
        lines = (out / "cells" / name / "samples.jsonl").read_text().splitlines()
        assert [json.loads(line)["prompt"] for line in lines] == asked[split]


def test_all_methods_spend_the_same(done: tuple[dict[str, Any], Path, Outcome]) -> None:
    _, out, outcome = done
    updates = {row.value for row in outcome.rows if row.metric == "updates"}
    assert updates == {4.0}
    stages = out / "cells" / "SFT_then_DPO-seed=0" / "run"
    recipe = yaml.safe_load((stages / "2-dpo" / "recipe.yaml").read_text())
    assert recipe["train"]["max_steps"] == 2


def test_claims_are_older_than_results(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    """Another margin once the answers are seen is refused, or told for good; other words are not asked
    after, and neither is a claim that is withdrawn."""
    study, out, _ = done
    shutil.copytree(out, folder := tmp_path / "out")
    (claim,) = study["claims"]
    for why in (None, "  "):
        with pytest.raises(StudyError, match=r"1 of its claims ask .* --changed-claims WHY"):
            do({**study, "claims": [{**claim, "direction": "less"}]}, folder, changed_claims=why)
    worded = {**study, "claims": [{**claim, "claim": "It is!", "withdrawn": "2026: no."}]}
    assert do(worded, folder)[0].claims[0]["verdict"] == "withdrawn"
    assert "changed_claims" not in read_json(out / "study.json")
    changed = {**study, "claims": [{**claim, "margin": 0.5}]}
    do(changed, folder, changed_claims="the margin was forgotten")
    (one,) = read_json(folder / "study.json")["changed_claims"]
    assert one["why"] == "the margin was forgotten"
    assert [was["margin"] for was in (*one["before"], *one["after"])] == [0.5]
    assert "Claims changed on" in ledger([folder], tmp_path)
    told = read_json(folder / "study.json")
    for seeds, says in (([100], False), ([100, 101], True)):  # one seed cannot be drawn otherwise
        tune = {"trials": 2, "seeds": seeds, "report": "likely"}
        (folder / "study.json").write_text(json.dumps({**told, "tune": tune}))
        assert ("intervals include the choice" in ledger([folder], tmp_path)) is says


def test_seeds_that_are_added_after_a_look_are_paid_for(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    """p is doubled, and the ledger says when; the same seeds again are no look."""
    study, out, outcome = done
    shutil.copytree(out, folder := tmp_path / "out")
    assert {part["looks"] for part in outcome.claims[0]["parts"]} == {1}
    for _ in range(2):
        more, _ = do({**study, "seeds": [0, 1, 2]}, folder)
        assert {(part["n"], part["looks"]) for part in more.claims[0]["parts"]} == {(3, 2)}
    (one,) = read_json(folder / "study.json")["added_seeds"]
    assert (one["before"], one["after"]) == ([0, 1], [0, 1, 2])
    assert "after it had been judged with 2 of now 3" in ledger([folder], tmp_path)


@pytest.mark.parametrize("damage", ["{", "{}", ""])
def test_results_whose_claims_nobody_knows_are_not_judged_by_new_ones(
    damage: str, done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    """A damaged description would else be a way around: refused, until somebody says why."""
    study, out, _ = done
    shutil.copytree(out, folder := tmp_path / "out")
    (folder / "study.json").write_text(damage)
    if not damage:
        (folder / "study.json").unlink()
    with pytest.raises(StudyError, match=r"does not say what its claims asked.*--changed-claims"):
        do(study, folder)
    do(study, folder, changed_claims="the disk was full")
    assert "the disk was full" in ledger([folder], tmp_path)


def test_results_are_judged_again_without_a_run(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    study, out, outcome = done
    shutil.copytree(out, folder := tmp_path / "out", ignore=shutil.ignore_patterns("cells"))
    (claim,) = study["claims"]
    with pytest.raises(StudyError, match=r"takes .*counting.yaml"):
        judge_again(folder, tmp_path)
    (tmp_path / "counting.yaml").write_text(
        yaml.safe_dump(
            {
                **study,
                "description": "What is counted.",
                "claims": [{**claim, "withdrawn": "2026-11-26: no."}],
            }
        )
    )
    typed = "onestage study counting.yaml --set world.limit=24"
    (folder / "study.json").write_text(
        json.dumps({**read_json(folder / "study.json"), "command": typed})
    )
    again = judge_again(folder, tmp_path)
    assert [part["mean"] for part in again.claims[0]["parts"]] == [
        part["mean"] for part in outcome.claims[0]["parts"]
    ]
    page = (folder / "README.md").read_text()
    assert "**withdrawn**: the chain is better. 2026-11-26: no." in page
    assert f"Again: `{typed}`" in page
    assert "\n\nWhat is counted.\n" in page
    assert "What is counted." in ledger([folder], tmp_path)
    assert "changed_claims" not in read_json(folder / "study.json")
    (tmp_path / "counting.yaml").write_text(
        yaml.safe_dump({**study, "claims": [{**claim, "margin": 0.5}]})
    )
    with pytest.raises(StudyError, match=r"1 of its claims ask .* --changed-claims WHY"):
        judge_again(folder, tmp_path)
    for why in ("the margin was forgotten", None):  # kept once
        judge_again(folder, tmp_path, why)
    assert ledger([folder], tmp_path).count("the margin was forgotten") == 1
    for change, says in (
        ({"metric": "overal"}, "'overal' is not measured; did you mean 'overall'"),
        ({"more": "SFTX"}, "no method 'SFTX'"),
        ({"than": [claim["more"]]}, "against itself"),
    ):
        (tmp_path / "counting.yaml").write_text(
            yaml.safe_dump({**study, "claims": [{**claim, **change}]})
        )
        with pytest.raises(StudyError, match=says):
            judge_again(folder, tmp_path, "why not")


def test_a_page_has_the_verdict_of_all_who_asked(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    study, out, _ = done
    (claim,) = study["claims"]
    for name, seeds, more in (
        ("counting", [0, 1], {"asked_again": "later"}),
        ("later", [5, 6], {"asked_before": ["counting"]}),
    ):
        folder = tmp_path / name
        shutil.copytree(out, folder, ignore=shutil.ignore_patterns("cells"))
        told = {**read_json(folder / "study.json"), "name": name, "seeds": seeds}
        (folder / "study.json").write_text(json.dumps(told))
        asked = {**study, "name": name, "seeds": seeds, "claims": [{**claim, **more}]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(asked))
    judge_all([tmp_path / "counting", tmp_path / "later"], tmp_path)
    pages = [(tmp_path / name / "README.md").read_text() for name in ("counting", "later")]
    assert "Asked again in later." in pages[0]
    assert "Of all that asked" not in pages[0]
    assert "Of all that asked (4 seeds count): **" in pages[1]


class ByFormula(Executor, Crew):
    """Writes what a formula says instead of training: overall is highest at a rate of .1."""

    @contextmanager
    def opened(self, place: Place) -> Iterator[Crew]:
        self.folder = place.out / "cells"
        yield self

    def prepare(self, cells: Sequence[Cell]) -> Iterator[Ended]:
        for number, _ in enumerate(cells):
            yield number, Ground(Path("base"), Path("data")), ""

    def do(self, work: Sequence[tuple[Cell, Ground]], keep_models: bool) -> Iterator[Ended]:
        for number, (cell, _) in enumerate(work):
            folder = self.folder / cell.name
            begin(cell, folder)
            rate = float(cell.choice.get("rate", 0.001))
            overall = -abs(math.log10(rate) + 1) + cell.seed / 1e4
            write_json(folder / "results.json", {"overall": overall})
            write_json(folder / "status.json", {"state": "done", "error": "", "seconds": 0.0})
            yield number, "done", ""


def test_a_grid_grows_until_no_choice_lies_on_its_edge_and_all_of_it_is_reported(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tune = {"seeds": [100, 101], "metric": "overall", "widen": 5, "report": "all"}
    study = content(*folders, tune=tune, seeds=[0, 1, 2, 3])
    claim = {"claim": "the chain is better", "metric": "overall", "more": "SFT then DPO"}
    study["claims"] = [{**claim, "than": ["SFT"]}]
    for method in study["methods"].values():
        method["try"] = {"rate": [0.001, 0.01]}
    outcome, _ = do(study, tmp_path / "out", on=ByFormula())
    told = read_json(tmp_path / "out" / "tuning.json")["SFT"]
    assert (told["best"], told["edges"]) == ({"rate": 0.1}, [])
    assert [one["choice"]["rate"] for one in told["trials"]] == [0.001, 0.01, 0.1, 1.0]
    assert any("became rate [0.001, 0.01, 0.1, 1.0]" in note for note in outcome.notes)
    grid = {(r.choice["rate"], r.seed) for r in outcome.rows if r.purpose == "grid"}
    assert grid == {(rate, seed) for rate in (0.001, 0.01, 1.0) for seed in range(4)}
    assert {r.choice["rate"] for r in outcome.rows if r.purpose == "test" and r.choice} == {0.1}
    assert read_tidy(tmp_path / "out", {}) == outcome.rows


def test_what_is_kept_at_equal_gain_is_the_same_wherever_it_is_told(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    """Every setting on all seeds, computed here from the table of results: in the README, LaTeX, CSV and
    HTML. A method that never gains enough is run, too, and stands there with nothing kept."""
    study, out, _ = done
    shutil.copytree(out, folder := tmp_path / "out")
    tune = {"seeds": [100], "metric": "retention", "at_least": {"imitation": 0.9}, "report": "all"}
    outcome, _ = do({**study, "tune": tune}, folder)
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert sum(r["purpose"] == "grid" and r["metric"] == "imitation" for r in rows) >= 4
    found = {(r["method"], r["choice"], r["seed"], r["metric"]): float(r["value"]) for r in rows}
    tried = {(r["method"], r["choice"]) for r in rows if r["purpose"] == "tune"}
    gained = {one: found[*one, "100", "imitation"] for one in tried}
    enough = {one for one in tried if gained[one] >= 0.9 * max(gained.values())}
    write_text(folder / "README.md", markdown(folder, outcome))
    files = [tmp_path / f"equal.{ending}" for ending in ("html", "tex", "csv")]
    options = [*("--out", str(files[0])), "--latex", str(files[1]), "--csv", str(files[2])]
    ended = CliRunner().invoke(app, ["report", str(folder), *options])
    assert ended.exit_code == 0, ended.output
    html, latex, table = (file.read_text() for file in files)
    readme = (folder / "README.md").read_text().split("## At equal gain")[1]
    told = {one["method"]: one for one in csv.DictReader(table.split("\n\n")[1].splitlines())}
    for method in ("SFT", "SFT then DPO"):
        mine = [one for one in tried if one[0] == method]
        reach = [one for one in mine if one in enough]
        assert (told[method]["enough"], told[method]["settings"]) == (str(len(reach)), "2")
        areas = []
        for seed in "01":
            start = found["base", "{}", seed, "imitation"]
            top = max(found[*one, seed, "imitation"] for one in tried) - start
            at = [((found[*one, seed, "imitation"] - start) / top, found[*one, seed, "retention"])
                  for one in mine]  # fmt: skip
            edges = sorted({0.0, *(min(max(x, 0.0), 1.0) for x, _ in at)})
            steps = itertools.pairwise(edges)
            areas.append(sum((b - a) * max(y for x, y in at if x >= b) for a, b in steps))
        area = sum(areas) / 2
        assert float(told[method]["retention_hypervolume"]) == pytest.approx(area, rel=1e-4)
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {method} |")]
        assert f"| {len(reach)} of 2 |" in line
        assert f"{area:.3f}" in line
        assert f"{method} & {len(reach)} of 2 & " in latex
        if not reach:
            assert told[method]["retention"] == ""
            continue
        keeper = max(reach, key=lambda one: found[*one, "100", "retention"])
        kept = [found[*keeper, seed, "retention"] for seed in "01"]
        assert float(told[method]["retention"]) == pytest.approx(sum(kept) / 2, rel=1e-4)
        assert json.loads(told[method]["retention_setting"]) == json.loads(keeper[1])
        assert f"{sum(kept) / 2:.3f}" in line
        assert all(f"{sum(kept) / 2:.3f}" in page for page in (latex, html))


def test_nothing_is_done_twice(done: tuple[dict[str, Any], Path, Outcome]) -> None:
    study, out, before = done
    when = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/results.json")}
    outcome, lines = do(study, out)
    assert "found done" in "".join(lines)
    assert when == {file: file.stat().st_mtime_ns for file in out.glob("cells/*/results.json")}
    assert outcome.table == before.table


def test_a_page_has_the_cells_that_the_study_has(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    """Folders of seeds and methods that were taken out stay, and of what a recipe was before."""
    study, out = {**done[0], "claims": []}, tmp_path / "out"
    shutil.copytree(done[1], out)
    whole = read_study(out)
    fewer = {**study, "seeds": [1], "methods": {"SFT": study["methods"]["SFT"]}}
    do(fewer, out, changed_claims="fewer methods")
    found = read_study(out)
    tests = {(cell.method, cell.seed) for cell in found.cells if cell.purpose == "test"}
    assert tests == {("base", 1), ("SFT", 1)}
    left = len(whole.cells) - len(found.cells)
    (told,) = [one.what for one in found.troubles if "left out" in one.what]
    assert told.startswith(
        f"{left} of {len(whole.cells)} cell folders are of no cell that the study has"
    )
    assert not any("left out" in one.what for one in whole.troubles)


def test_a_changed_budget_redoes_the_cells_it_changes(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path
) -> None:
    study, _, _ = done
    small = {**study, "tune": None, "claims": [], "seeds": [0]}
    small["methods"] = {"SFT": {**study["methods"]["SFT"], "try": {"rate": [0.01]}}}
    do(small, tmp_path / "out")
    file = tmp_path / "out" / "cells" / "SFT-seed=0" / "results.json"
    assert read_json(file)["updates"] == 4
    base = (tmp_path / "out" / "cells" / "base-seed=0" / "results.json").stat().st_mtime_ns
    do({**small, "budget": {"updates": 2}}, tmp_path / "out")
    assert read_json(file)["updates"] == 2
    again = (tmp_path / "out" / "cells" / "base-seed=0" / "results.json").stat().st_mtime_ns
    assert again == base
    with pytest.raises(StudyError, match="holds the study 'counting'"):
        do({**small, "name": "other"}, tmp_path / "out")


def test_a_crashed_cell_is_marked_the_rest_goes_on_and_retry_mends_it(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    study = content(*folders, seeds=[0])
    late = tmp_path / "late.jsonl"
    bad = {"streams": ["demos"], "objective": "sft", "try": {"rate": [0.01]}}
    study["methods"] = {
        "broken": {**bad, "data": {"demos": {"path": str(late)}}},
        "SFT": study["methods"]["SFT"],
    }
    out = tmp_path / "out"
    outcome, _ = do(study, out)
    assert list(outcome.failed) == ["broken-seed=0"]
    assert "late.jsonl" in outcome.failed["broken-seed=0"]
    assert {row.method for row in outcome.rows} == {"base", "SFT"}
    assert read_json(out / "cells" / "broken-seed=0" / "status.json")["state"] == "failed"
    assert "Traceback" in (out / "cells" / "broken-seed=0" / "log.txt").read_text()
    late.write_text((folders[1] / "demonstration.train.jsonl").read_text())
    assert "--retry" in do(study, out)[0].failed["broken-seed=0"]
    outcome, _ = do(study, out, retry=True)
    assert not outcome.failed
    assert {row.method for row in outcome.rows} == {"base", "SFT", "broken"}


def test_an_interrupted_cell_is_done_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    study = content(*folders, seeds=[0])
    study["methods"].pop("SFT then DPO")
    out = tmp_path / "out"
    do(study, out)
    cell = out / "cells" / "SFT-seed=0"
    before = read_json(cell / "results.json")
    (cell / "status.json").write_text('{"state": "running", "error": "", "seconds": 0}')
    (cell / "results.json").unlink()
    outcome, _ = do(study, out)
    assert not outcome.failed
    after = read_json(cell / "results.json")
    assert {k: v for k, v in after.items() if k != "seconds"} == pytest.approx(
        {k: v for k, v in before.items() if k != "seconds"}
    )


def test_seconds_of_a_cell_that_goes_on_count_what_went_before(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Interrupted twice: 100 s before the second leg, which ended a stage after 50 s more."""
    study = content(*folders, seeds=[0], keep_models=True)
    study["methods"].pop("SFT")
    do(study, tmp_path / "out")
    cell = tmp_path / "out" / "cells" / "SFT_then_DPO-seed=0"
    (cell / "results.json").unlink()
    status, stages = cell / "status.json", cell / "run" / "stages.json"
    status.write_text('{"state": "running", "error": "", "seconds": 100}')
    os.utime(status, (0, stages.stat().st_mtime - 50))
    began = time.monotonic()
    outcome, _ = do(study, tmp_path / "out")
    took = time.monotonic() - began
    assert not outcome.failed
    assert "done before" in (cell / "log.txt").read_text()
    assert 150 < read_json(cell / "results.json")["seconds"] < 150 + took
    assert 150 < read_json(status)["seconds"] < 150 + took
    # One that left nothing to go on from begins anew, and so does its time.
    (cell / "results.json").unlink()
    shutil.rmtree(cell / "run")
    status.write_text('{"state": "running", "error": "", "seconds": 100}')
    do(study, tmp_path / "out")
    assert read_json(cell / "results.json")["seconds"] < 100


def test_damaged_results_are_found_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    study = content(*folders, seeds=[0])
    study["methods"].pop("SFT then DPO")
    do(study, tmp_path / "out")
    (tmp_path / "out" / "cells" / "SFT-seed=0" / "results.json").write_text("{")
    outcome, lines = do(study, tmp_path / "out")
    assert {row.method for row in outcome.rows} == {"base", "SFT"}
    assert sum("damaged; it is done again" in line for line in lines) == 1


def test_a_missing_base_is_refused_before_anything(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    study = content(Path("/nowhere/model"), folders[1])
    with pytest.raises(ValueError, match="no base model at /nowhere/model"):
        do(study, tmp_path / "out")
    with pytest.raises(ValueError, match="there is no folder"):
        do(content(folders[0], tmp_path / "none"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_ground_that_cannot_be_made_fails_its_cells_and_no_study(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """A base without a tokenizer is only found out when it is opened."""
    base = tmp_path / "base"
    shutil.copytree(folders[0], base)
    for file in base.glob("tokenizer*"):
        file.unlink()
    outcome, lines = do(content(base, folders[1], seeds=[0]), tmp_path / "out")
    assert set(outcome.failed) == {"base-seed=0", "SFT-seed=0", "SFT_then_DPO-seed=0"}
    assert all("ground could not be made" in reason for reason in outcome.failed.values())
    status = read_json(tmp_path / "out" / "cells" / "SFT-seed=0" / "status.json")
    assert (status["state"], outcome.rows) == ("failed", [])
    assert sum("ground of seed 0" in line for line in lines) == 1


def test_a_finished_study_makes_no_ground(done: tuple[dict[str, Any], Path, Outcome]) -> None:
    study, out, _ = done
    assert not any("ground" in line for line in do(study, out)[1])


def test_a_recipe_that_is_none_is_refused_before_anything(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    study = content(*folders)
    study["methods"]["SFT"]["train"] = {"learning_rat": 1}
    with pytest.raises(StudyError, match=r"methods.SFT: train.learning_rat: unknown key"):
        do(study, tmp_path / "out")


def test_stages_that_do_not_fit_together_are_refused_before_anything(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    study = content(*folders)
    study["methods"]["SFT then DPO"]["model"] = {"lora": {"r": 4, "alpha": 8}}
    with pytest.raises(
        StudyError, match=r"methods.SFT then DPO: stages.dpo: stage sft leaves an adapter"
    ):
        do(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokens_are_a_budget_too(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """About as many tokens whatever a step holds: one step more or less, and rounding of stages."""
    study = content(*folders, seeds=[0], budget={"tokens": 2000})
    outcome, _ = do(study, tmp_path / "out")
    spent = {row.method: row.value for row in outcome.rows if row.metric == "tokens"}
    steps = {row.method: row.value for row in outcome.rows if row.metric == "updates"}
    assert spent["SFT"] == pytest.approx(2000, rel=0.1)
    assert spent["SFT then DPO"] == pytest.approx(2000, rel=0.1)
    assert steps["SFT"] != steps["SFT then DPO"]


def test_stages_divide_the_budget_by_their_shares(tmp_path: Path) -> None:
    stages = [{"name": "a", "share": 3}, {"name": "b", "share": 1}]
    made = within({"stages": stages}, {"updates": 100})
    assert [stage["train"] for stage in made["stages"]] == [{"max_steps": 75}, {"max_steps": 25}]
    with pytest.raises(ValueError, match="positive number for each"):
        within({"stages": [{"name": "a", "share": 3}, {"name": "b"}]}, {"updates": 4})
    with pytest.raises(ValueError, match="the study has none"):
        within({"stages": stages}, {})


def test_chains_that_begin_alike_train_their_beginning_once(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """And find what they would have found by themselves."""
    study = content(*folders, seeds=[0], base=None)
    chain = study["methods"].pop("SFT then DPO")
    other = {**DPO, "objective": {"name": "dpo", "beta": 0.5}}
    study["methods"] = {"one": chain, "two": {**chain, "stages": [chain["stages"][0], other]}}
    outcome, _ = do(study, tmp_path / "out")
    assert not outcome.failed
    cells = tmp_path / "out" / "cells"
    taken = [
        (cells / f"{name}-seed=0" / "run" / "1-sft" / FILE).is_file() for name in ("one", "two")
    ]
    assert taken == [False, True]
    assert not (tmp_path / "out" / "first_stages").exists()
    study["methods"].pop("one")
    do(study, tmp_path / "alone")
    mine, alone = (
        read_json(tmp_path / name / "cells" / "two-seed=0" / "results.json")
        for name in ("out", "alone")
    )
    assert mine.pop("seconds") > read_json(cells / "two-seed=0" / "run" / "1-sft" / FILE)["seconds"]
    alone.pop("seconds")
    assert mine == alone


def test_an_adapter_that_is_lost_on_reload(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Judged alone on the base, the last adapter of a chain lacks what the first stage taught."""
    lora = {"r": 4, "alpha": 8}
    sft = {"name": "sft", "streams": ["demos"], "objective": "sft", "model": {"lora": lora}}
    dpo = {**DPO, "adapter": "merge", "model": {"lora": lora}}
    chain = {"stages": [sft, dpo], "try": {"rate": [0.03]}, "judge_after": ["sft"]}
    study = content(*folders, seeds=[0], budget={"updates": 20}, base=None)
    study["methods"] = {"kept": chain, "lost": {**chain, "evaluate": "last_adapter"}}
    outcome, _ = do(study, tmp_path / "out")
    assert not outcome.failed
    loss = {r.method: r.value for r in outcome.rows if r.metric == "demonstration_loss"}
    assert loss["lost"] > loss["kept"] + 0.05
    kept = {r.metric: r.value for r in outcome.rows if r.method == "kept"}
    share = kept["imitation"] / kept["after/sft/imitation"]
    assert kept["left/sft/imitation"] == pytest.approx(share)
    assert kept["after/sft/demonstration_loss"] != kept["demonstration_loss"]
    told = read_json(tmp_path / "out" / "study.json")["metrics"]
    assert (told["left/sft/imitation"]["better"], told["left/sft/imitation"]["group"]) == (
        *("higher", "left"),
    )
    assert told["after/sft/demonstration_loss"]["better"] == "lower"
    study["methods"] = {"whole": {**study["methods"]["lost"], "stages": [DPO], "judge_after": []}}
    assert "trains an adapter" in do(study, tmp_path / "two")[0].failed["whole-seed=0"]


def test_gaps_need_losses_at_the_start(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """And tuning can go by them."""
    study = content(*folders, seeds=[0], base=None, tune={"seeds": [5], "metric": "ideal_distance"})
    held = {"eval_path": "{data}/demonstration.{split}.jsonl"}
    held_pairs = {"eval_path": "{data}/pair.{split}.jsonl"}
    study["recipe"] |= {
        "objective": {"demos": "sft", "pairs": "dpo"},
        "train": {**study["recipe"]["train"], "eval_steps": 100},
    }
    mix = {
        "data": {"demos": held, "pairs": held_pairs},
        "schedule": {"name": "mix", "weights": {"sft": "{part}", "dpo": "{1 - part}"}},
        "try": {"rate": [0.01, 0.001]},
    }
    study |= {"methods": {"Mix": mix}, "axes": {"part": [0.5, 0.25]}}
    study["front"] = {"x": "eval/demos/loss", "y": "eval/pairs/loss", "over": "part"}
    untuned = {**study, "tune": None, "methods": {"Mix": {**mix, "try": {"rate": [0.01]}}}}
    outcome, _ = do({**untuned, "axes": {"part": [0.5]}}, tmp_path / "without")
    assert any("no gaps" in note for note in outcome.notes)
    study["recipe"]["optimum"] = {"given": {"sft": 0, "dpo": 0}}
    outcome, _ = do(study, tmp_path / "with")
    assert not any("no gaps" in note for note in outcome.notes)
    tuned = read_json(tmp_path / "with" / "tuning.json")["Mix"]
    values = [one["ideal_distance"] for one in tuned["trials"]]
    assert tuned["best"] == tuned["trials"][values.index(min(values))]["choice"]
    found = {(r.axes.get("part"), r.metric): r.value for r in outcome.rows if r.purpose == "test"}
    assert min(found[0.5, "gap/x"], found[0.25, "gap/x"]) == 0
    assert (None, "hypervolume") in found
    assert read_json(tmp_path / "with" / "study.json")["metrics"]["gap/x"]["better"] == "lower"
    # One line alone has none, and says how to have them.
    file = tmp_path / "counting.yaml"
    file.write_text(yaml.safe_dump(study))
    line = {"method": "Mix", "seed": 0, "part": 0.5, "rate": 0.01}
    alone = run_study(file, out=tmp_path / "line", cache=tmp_path / "cache", cell=line, say=silent)
    assert any(f"`onestage study {file} --set seeds=[0]`" in note for note in alone.notes)


def test_models_are_kept_where_asked(folders: tuple[Path, Path], tmp_path: Path) -> None:
    study = content(*folders, seeds=[0], base=None)
    study["methods"].pop("SFT then DPO")
    do(study, tmp_path / "out")
    assert not list(tmp_path.glob("out/**/*.safetensors"))
    do({**study, "keep_models": True, "budget": {"updates": 2}}, tmp_path / "kept")
    (model,) = tmp_path.glob("kept/cells/SFT-seed=0/run/model")
    AutoModelForCausalLM.from_pretrained(model)


def test_a_process_that_dies_takes_no_other_job_with_it() -> None:
    with workers(2) as run:
        found = {n: (value, error) for n, value, error in run([(die, (n,)) for n in range(4)])}
        again = list(run([(die, (7,)), (fail, (3,))]))
    assert {n: value for n, (value, _) in found.items()} == {0: 0, 1: None, 2: 2, 3: 3}
    assert "exit code 13" in found[1][1]
    assert sorted(again) == [(0, 7, ""), (1, None, "no 3")]
    with workers(1) as here:
        assert list(here([(fail, (3,)), (die, (2,))])) == [(0, None, "no 3"), (1, 2, "")]


def test_processes_end_with_a_study_that_is_killed(tmp_path: Path) -> None:
    """They would go on in the folders of cells that whoever takes up the study begins anew."""
    parent = multiprocessing.get_context("spawn").Process(target=hold_workers, args=(tmp_path,))
    parent.start()
    until(lambda: len(list(tmp_path.iterdir())) == 2, 60)
    parent.kill()
    parent.join()
    until(lambda: not any(alive(int(file.name)) for file in tmp_path.iterdir()))


def test_the_command_line_does_a_study_and_writes_the_ledger(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    claim = {"claim": "one | two", "paper": "1 > 2", "metric": "overall"}
    study = content(*folders, claims=[{**claim, "more": "SFT", "than": ["base"]}])
    study["methods"].pop("SFT then DPO")
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    out, run = tmp_path / "out", CliRunner().invoke
    options = ["--jobs", "1", "--cache", str(tmp_path / "cache"), "--set", "budget.updates=2"]
    ended = run(app, ["study", str(file), "--out", str(out), *options])
    assert ended.exit_code == 0, ended.output
    assert "±" in ended.output
    assert read_json(out / "study.json")["budget"] == {"updates": 2}
    told = (out / "README.md").read_text()
    assert "| base |" in told
    assert f"**{read_json(out / 'claims.json')[0]['verdict']}**: one | two" in told
    page = tmp_path / "claims.md"
    assert run(app, ["claims", str(out), "--out", str(page)]).exit_code == 0
    text = page.read_text()
    (entry,) = read_json(out / "claims.json")
    assert "one \\| two" in text
    assert f"**{entry['verdict']}**" in text
    assert math.isfinite(entry["parts"][0]["low"])
    assert run(app, ["claims", str(tmp_path), "--out", str(page)]).exit_code == 1


def test_one_model_is_judged_as_a_study_would(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, data = folders
    world = json.dumps({"name": "folder", "model": str(base), "data": str(data), "limit": 8})
    options = ["--world", world, "--out", str(tmp_path / "found.json")]
    ended = CliRunner().invoke(app, ["eval", str(base), *options])
    assert ended.exit_code == 0, ended.output
    found = read_json(tmp_path / "found.json")
    assert found["metrics"]["retention"] == 1.0
    assert found["metrics"]["preference"] == 0.5
    assert found["metrics"]["text_kl"] == 0.0
    assert CliRunner().invoke(app, ["eval", str(base), "--world", "lap"]).exit_code == 1


def test_an_unfinished_study_has_no_made_up_claims(folders: tuple[Path, Path]) -> None:
    study = parse_study(content(*folders))
    assert [cell.name for cell in reported(study, {})] == ["base-seed=0", "base-seed=1"]


def test_cells_of_an_earlier_exam_are_done_again(
    done: tuple[dict[str, Any], Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a world asks otherwise now, by what each cell says it was judged by; one that does not say
    so was judged by the first."""
    study, out, _ = done
    shutil.copytree(out, tmp_path / "out")
    todo: list[str] = []

    def noted(self: Study, crew: Any, work: Sequence[Any], *rest: Any) -> dict[str, str]:
        todo.extend(cell.name for cell, _ in work)
        return {}

    monkeypatch.setattr(Study, "_run", noted)
    silent = tmp_path / "out" / "cells" / "SFT-seed=0" / "cell.json"
    write_json(silent, {k: v for k, v in read_json(silent).items() if k != "exam"})
    _, lines = do(study, tmp_path / "out")
    assert (todo, [line for line in lines if "earlier exam" in line]) == ([], [])
    monkeypatch.setattr(Folder, "exam", 2)
    later = tmp_path / "out" / "cells" / "SFT-seed=1" / "cell.json"
    write_json(later, read_json(later) | {"exam": 2})
    _, lines = do(study, tmp_path / "out")
    assert "SFT-seed=0" in todo
    assert "SFT-seed=1" not in todo
    assert any("5 of 6 cells were judged by an earlier exam" in line for line in lines)


def test_cells_of_other_files_than_lie_there_now_are_done_again(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Rows that were mended, and a stranger's loss that was edited: their names are the same."""
    base, data = folders[0], Path(shutil.copytree(folders[1], tmp_path / "data"))
    loss = tmp_path / "mine.py"
    loss.write_text("from onestage.objectives.sft import SFT\n\n\nclass Mine(SFT):\n    pass\n")
    study = content(base, data, seeds=[0], budget={"updates": 1})
    study["recipe"]["train"] = {**study["recipe"]["train"], "learning_rate": 1e-3}
    method = {"streams": ["demos"], "objective": f"{loss}:Mine"}
    study["methods"] = {"mine": method, "SFT": {**method, "objective": "sft"}}
    do(study, tmp_path / "out")
    cells = tmp_path / "out" / "cells"

    def when() -> dict[str, int]:
        return {one.name: (one / "results.json").stat().st_mtime_ns for one in cells.iterdir()}

    first = when()
    do(study, tmp_path / "out")
    assert when() == first
    loss.write_text(loss.read_text() + "# edited\n")
    _, lines = do(study, tmp_path / "out")
    second = when()
    assert {name for name in first if first[name] != second[name]} == {"mine-seed=0"}
    assert any(line.startswith("1 of 3 cells were done on other data, models or") for line in lines)
    rows = data / "demonstration.train.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    silent = cells / "SFT-seed=0" / "cell.json"  # of an earlier version
    write_json(silent, {k: v for k, v in read_json(silent).items() if k != "contents"})
    do(study, tmp_path / "out")
    third = when()
    assert {name for name in first if second[name] != third[name]} == {"mine-seed=0", "base-seed=0"}


def test_the_lab_knows_its_first_exam_by_the_shares_it_found() -> None:
    """Of 12 things each a share is a twelfth; of 108 it may be any other."""
    lab = Lab()
    assert lab.exam == 2
    assert lab.examined({"refuses": 11 / 12, "helps": 0.25}) == 1
    assert lab.examined({"refuses": 5 / 8, "helps": 1.0}) == 1
    assert lab.examined({"refuses": 1.0, "helps": 107 / 108}) == 2
    assert lab.examined({"refuses": 0.0, "helps": 1.0}) == 1
