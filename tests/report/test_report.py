"""The report's readers and tables, against numbers computed here."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.report_folders import (
    SEEDS,
    VALUES,
    harm,
    make_axes_study,
    make_cell,
    make_run,
    make_stages,
    make_study,
    specs,
    value,
    write,
    write_lines,
)
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.report.calibration import calibration
from onestage.report.cells import Cell, Compared, Metric, Setting
from onestage.report.curves import (
    EVERY,
    MOST_POINTS,
    MOST_RUNS,
    ONE,
    drawn_cells,
    thinned,
    views_of,
)
from onestage.report.figures import embedded, looks_of
from onestage.report.gains import chosen_settings, group_change
from onestage.report.markup import Html, el, table
from onestage.report.measured import place_of
from onestage.report.numbers import mean_of, number
from onestage.report.page import ReportError, chapter_sections, page, read_folders, write_report
from onestage.report.results import averaged_metrics, overall
from onestage.report.samples import columns, samples_section, spread
from onestage.report.studies import read_study
from onestage.stats import critical
from onestage.training.lock import held


def compared(values: dict[str, list[float]], better: str = "higher") -> Compared:
    """One metric `m`; a method's values are those of seeds 0, 1, ..."""
    cells = [
        Cell(f"{name}-{seed}", name, seed, results={"m": one})
        for name, many in values.items()
        for seed, one in enumerate(many)
    ]
    metric = {"m": Metric("m", better=better)}
    return Compared("x", Path("x"), list(values), cells, metric, ["m"], "base")


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)],
)
def test_critical_values_of_the_t_table(freedom: int, t: float) -> None:
    assert critical(freedom) == pytest.approx(t, abs=1e-4)


def test_mean_and_interval_by_hand() -> None:
    mean = mean_of([0.5, 0.6, 0.7])
    assert mean is not None
    assert mean.mean == pytest.approx(0.6)
    assert mean.half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    alone = mean_of([0.5])
    assert alone is not None
    assert alone.half is None
    assert mean_of([]) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-1e3, 1e3))
def test_intervals_move_with_their_values(values: list[float], by: float) -> None:
    here, there = mean_of(values), mean_of([one + by for one in values])
    assert here is not None
    assert there is not None
    assert there.mean == pytest.approx(here.mean + by, abs=1e-6)
    assert there.half == pytest.approx(here.half, abs=1e-6)


@pytest.mark.parametrize(
    ("given_", "text"),
    [(0.1234, "0.123"), (12.34, "12.3"), (12345.0, "12,345"), (0.0, "0"), (0.00012, "1.20e-04")],
)
def test_numbers_for_people(given_: float, text: str) -> None:
    assert number(given_) == text
    assert number(None) == number(math.nan) == "\u2013"


def test_forgotten_is_a_paired_interval_below_zero() -> None:
    spread = [0.5, 0.7, 0.9]
    sure = compared({"base": spread, "a": [one - 0.05 for one in spread]})
    assert sure.forgotten(Setting("a"), "m")  # the seeds differ widely, their changes do not
    unsure = compared({"base": spread, "a": [0.45, 0.75, 0.8]})
    assert unsure.change(Setting("a"), "m").mean == pytest.approx(-1 / 30)  # type: ignore[union-attr]
    assert not unsure.forgotten(Setting("a"), "m")
    assert not compared({"base": spread, "a": spread}).forgotten(Setting("a"), "m")
    assert not sure.forgotten(Setting("base"), "m")


def test_forgotten_looks_the_right_way() -> None:
    rises = {"base": [1.0, 1.2], "a": [2.0, 2.2]}
    assert compared(rises, "lower").forgotten(Setting("a"), "m")
    assert not compared(rises).forgotten(Setting("a"), "m")


def test_with_one_seed_a_small_fall_is_not_told() -> None:
    assert not compared({"base": [0.9], "a": [0.885]}).forgotten(Setting("a"), "m")
    assert compared({"base": [0.9], "a": [0.87]}).forgotten(Setting("a"), "m")
    assert not compared({"base": [9.0], "a": [9.1]}, "lower").forgotten(Setting("a"), "m")
    assert compared({"base": [9.0], "a": [9.2]}, "lower").forgotten(Setting("a"), "m")


def test_best_is_the_best_mean() -> None:
    values = {"base": [0.1, 0.2], "a": [0.4, 0.5], "b": [0.3, 0.9]}
    assert compared(values).best("m") == {Setting("b")}
    assert compared(values, "lower").best("m") == {Setting("base")}
    assert compared({"base": [0.1]}).best("m") == set()


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = read_study(make_study(tmp_path / "study"))
    assert found.troubles == []
    assert [one.label for one in found.settings()] == list(VALUES)
    for method in VALUES:
        assert found.values(Setting(method), "truth") == {
            s: value(method, "truth", s) for s in SEEDS
        }
    # The tuning cell of UFT (0.75) is no result.
    assert found.mean(Setting("UFT"), "formats").mean == pytest.approx(0.8)  # type: ignore[union-attr]
    change = found.change(Setting("UFT"), "formats")
    assert change is not None
    assert change.mean == pytest.approx(0.7)
    assert change.half == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-3)


def test_the_result_table(tmp_path: Path) -> None:
    found = read_study(make_study(tmp_path / "study", runs=False))
    text = chapter_sections(found)["Results"]
    rows = re.findall(r"<tr>(.*?)</tr>", text.split("</table>")[0])
    cells = {
        re.sub("<.*?>", "", row).split("0.")[0]: re.findall(r"<td.*?</td>", row) for row in rows[1:]
    }
    uft, chain = cells["UFT"], cells["SFT-&gt;DPO"]
    assert "<b>0.800</b>" in uft[0]
    assert "<b>0.800</b>" in cells["MAXRIGHT"][1]
    assert "<b>0.900</b>" in cells["base"][2]
    assert 'class="forgotten few"' in chain[2]  # three seeds: told, but not in red
    assert "against the base -0.300" in chain[2]
    assert not any("forgotten" in cell for cell in cells["base"])
    assert f"± {4.3027 * 0.05 / math.sqrt(3):.3f}" in chain[0]
    assert "<b>0.793</b>" in uft[3]  # (0.8 + 0.7 + 0.88) / 3, the highest mean


def test_the_mean_column() -> None:
    results = {"a": 0.2, "b": 0.6, "loss": 3.0}
    metrics = {n: Metric(n, better="lower" if n == "loss" else "higher") for n in results}
    cells = [Cell("x", "x", 0, results=results), Cell("y", "x", 1, results={"a": 0.4})]
    found = Compared("x", Path("x"), ["x"], cells, metrics, list(results))
    assert averaged_metrics(found, list(results)) == ["a", "b"]
    mean = overall(found, Setting("x"), ["a", "b"])
    assert mean is not None
    assert (mean.mean, mean.n) == (pytest.approx(0.4), 1)  # seed 1 lacks b
    assert averaged_metrics(found, ["a", "loss"]) == []
    assert averaged_metrics(found, ["a", "b", "overall"]) == []


def test_changes_of_a_group_are_for_the_better() -> None:
    cells = [
        Cell("base", "base", 0, results={"up": 0.2, "down": 0.9}),
        Cell("a", "a", 0, results={"up": 0.5, "down": 0.4}),
    ]
    metrics = {"up": Metric("up"), "down": Metric("down", better="lower")}
    found = Compared("x", Path("x"), ["base", "a"], cells, metrics, ["up"], "base")
    change = group_change(found, Setting("a"), ["up", "down"])
    assert change is not None
    assert change.mean == pytest.approx((0.3 + 0.5) / 2)


def test_axes_and_the_base_without_them(tmp_path: Path) -> None:
    found = read_study(make_axes_study(tmp_path / "study", "learning_rate", "beta"))
    one = Setting("UFT", (("learning_rate", 1e-3), ("beta", 0.1)))
    assert found.settings()[0] == Setting("base")
    assert (
        found.settings().index(one) == 1 + 6 + 3
    )  # base, six of the chain, then the order of values
    change = found.change(one, "truth")
    assert change is not None
    # both with seeds 0 and 1, whose values lie at -1 and 0 steps: (0.7 + 0.03 - 0.015) - (0.5 - 0.01)
    assert change.mean == pytest.approx(0.225)
    text = chapter_sections(found)["Over the axes"]
    figures = specs(text)
    assert len(figures) == 2  # a map for each method
    maps = {trace["pick"]: trace for trace in figures[1]["data"]}
    assert maps["truth"]["z"][1][1] == pytest.approx(0.715)  # beta 0.1 is the second line
    assert maps["truth"]["text"][1][2].startswith("★")
    # From the chain at the first place to UFT at the last, of both methods.
    assert (maps["truth"]["zmin"], maps["truth"]["zmax"]) == pytest.approx((0.675, 0.735))
    assert maps["truth"]["x"] == ["0.0001", "0.001", "0.01"]


def test_lines_over_one_axis(tmp_path: Path) -> None:
    text = chapter_sections(read_study(make_axes_study(tmp_path, "learning_rate")))["Over the axes"]
    (figure,) = specs(text)
    assert figure["layout"]["xaxis"]["type"] == "log"
    line = next(t for t in figure["data"] if t.get("name") == "UFT" and t["pick"] == "formats")
    assert line["x"] == [1e-4, 1e-3, 1e-2]
    assert line["y"] == pytest.approx([0.785, 0.795, 0.805])


def test_what_is_damaged_failed_or_unfinished_is_told(tmp_path: Path) -> None:
    found = read_study(harm(make_study(tmp_path / "study", runs=False)))
    told = {one.where: one.what for one in found.troubles}
    assert told["cell test-UFT-3"] == "failed: loss is not finite at step 12"
    assert told["cell test-UFT-4"] == "unfinished (waiting)"
    assert told["cell test-MAXRIGHT-3"].startswith("results.json is damaged")
    assert told["cell test-MAXRIGHT-4"] == "no finite number for formats"
    assert set(found.values(Setting("MAXRIGHT"), "formats")) == set(SEEDS)
    assert set(found.values(Setting("MAXRIGHT"), "truth")) == {*SEEDS, 4}
    text = chapter_sections(found)["What this is"]
    assert "1 of 17 cells failed, 1 of 17 cells unfinished" in text
    assert "loss is not finite at step 12" in text


JUNK = [
    "",
    "{",
    "[]",
    "null",
    "3",
    '{"name": 5, "seed": "x", "axes": [], "metrics": 4}',
    "\x00\xff",
]


@pytest.mark.parametrize("junk", JUNK)
def test_any_file_may_be_junk(tmp_path: Path, junk: str) -> None:
    study = make_study(tmp_path / "study", seeds=(0,))
    for other in ("MAXRIGHT", "base"):
        shutil.rmtree(study / "cells" / f"test-{other}-0")
    for file in sorted(study.rglob("*")):
        if file.is_file():
            was = file.read_bytes()
            file.write_bytes(junk.encode("latin-1"))
            chapter_sections(read_study(study))
            file.write_bytes(was)


def test_all_files_may_be_junk(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", seeds=(0,))
    for file in study.rglob("*"):
        if file.is_file():
            file.write_text("{")
    found = read_study(study)
    assert len(found.troubles) > 20
    assert "Results" not in chapter_sections(found)


def test_a_study_without_its_study_file(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    (study / "study.json").unlink()
    found = read_study(study)
    assert [one.what for one in found.troubles] == ["study.json is missing"]
    assert set(found.methods) == set(VALUES)
    assert found.mean(Setting("UFT"), "formats").mean == pytest.approx(0.8)  # type: ignore[union-attr]


def test_what_was_measured_may_be_no_headline_and_may_be_large(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", runs=False)
    for file in study.glob("cells/*/results.json"):
        write(file, {"length": 3.0})
    assert "None of the headline metrics was measured" in page(read_folders([study]), "x")
    study = make_axes_study(tmp_path / "a", "learning_rate")
    for file in [
        study / "study.json",
        *study.glob("cells/*/results.json"),
        *study.glob("results.*"),
    ]:
        file.unlink()
    assert "study.json is missing" in page(read_folders([study]), "x")
    run = make_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 60, "eval/s/score/implicit_reward_at_0.2": -800.0}) + "\n")
    assert "Implicit reward against given score" in page(read_folders([run]), "x")


def test_plain_runs_side_by_side(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a", drift=1.0), make_stages(tmp_path / "b", drift=2.0)]
    (found,) = read_folders(folders)
    assert found.methods == ["start", "a", "b"]
    assert found.values(Setting("a"), "sft loss") == {0: 1.0}  # 2 - 1 / drift
    assert found.values(Setting("b"), "sft loss") == {0: 1.5}
    assert found.values(Setting("start"), "sft loss") == {0: 2.0}
    assert found.best("dpo loss") == {Setting("b")}  # 0.7 - 0.3 drift
    sections = chapter_sections(found)
    assert list(sections) == [
        *(
            "What this is",
            "Verdict",
            "Results",
            "Gained and forgotten",
            "The front",
            "Training",
            "Data",
        ),
        *("Recipes", "How to repeat it"),
    ]


def test_a_run_that_is_not_among_the_gaps_is_named(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name) for name in ("a", "b", "c")]
    with (folders[2] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "eval/te')
    (found,) = read_folders(folders)
    front = chapter_sections(found)["The front"]
    assert "Left out: c has damaged metrics (1 of its lines)" in front
    (found,) = read_folders(folders[:2])
    assert "Left out" not in chapter_sections(found)["The front"]
    metrics = folders[1] / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("eval/terms/dpo", "eval/terms/kto"))
    (found,) = read_folders(folders[:2])
    front = chapter_sections(found)["The front"]
    assert "Gaps to the best losses are not told: b has the terms" in front


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    (found,) = read_folders([make_run(tmp_path / "x" / "run"), make_run(tmp_path / "y" / "run")])
    assert found.methods == ["start", "x/run", "y/run"]


def test_unfinished_and_unevaluated_runs(tmp_path: Path) -> None:
    stopped = make_run(tmp_path / "stopped", done=False)
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    silent = tmp_path / "silent"
    write_lines(silent / "metrics.jsonl", [{"step": 5, "loss": 1.0}])
    (silent / "model").mkdir()
    (found,) = read_folders([stopped, silent])
    told = [f"{one.where}: {one.what}" for one in found.troubles]
    assert told == [
        "stopped: 1 of 20 lines of metrics.jsonl cannot be read",
        "stopped: interrupted at step 60 of 60, no model saved",
        "silent: was not evaluated (train.eval_steps)",
    ]
    text = chapter_sections(found)["What this is"]
    assert "1 of 2 runs not finished (interrupted, or still running)" in text
    assert "2, 1 finished" in text  # what was never evaluated has ended all the same


def test_a_run_that_goes_on_is_not_called_interrupted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", done=False)
    (run / ".lock").touch()
    assert [one.what for one in read_folders([run])[0].troubles] == [
        "interrupted at step 60 of 60, no model saved"  # a killed run leaves its lock behind
    ]
    with held(run, lambda line: None):
        assert [one.what for one in read_folders([run])[0].troubles] == [
            "still running, now at step 60 of 60, no model saved"
        ]


def test_stages_stand_one_after_another(tmp_path: Path) -> None:
    (found,) = read_folders([make_stages(tmp_path / "run")])
    trained = found.cells[-1].trained
    assert trained is not None
    steps = [step for step, _ in trained.series("loss")]
    assert steps == [*range(5, 61, 5), *range(65, 121, 5)]
    assert trained.tokens == 12000
    assert trained.seconds == pytest.approx(12.0)


def test_calibration_is_the_last_evaluation(tmp_path: Path) -> None:
    (found,) = read_folders([make_run(tmp_path / "run")])
    points = calibration(found.cells[-1])["scores/score"]
    assert points == [
        (score, pytest.approx(3 * (score - 0.5))) for score in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]


@pytest.mark.parametrize(
    ("key", "title", "pick"),
    [
        ("loss", "Training loss", "all terms"),
        ("demos/loss", "Training loss", "stream demos"),
        ("eval/terms/sft", "Held-out loss", "term sft"),
        ("eval/pairs/pair/accuracy", "Pairs the right way round", "held-out pairs/pair"),
        ("probe/cosine/sft/dpo", "Cosine between two terms' gradients", "sft and dpo"),
        ("probe/grad_share/sft", "Share of the gradient", "sft"),
        ("gauge/grad_share/sft", "Share of the gradient, by gauge", "sft"),
        ("gauge/noise/sft", "Noise of a term's gradient, by gauge", "sft"),
        ("retention/kept/kl", "KL to the start", "kept"),
        ("problems/hint_share", "Share of the solution given as a hint", "problems"),
        ("eval/problems/success", "Success", "held-out problems"),
    ],
)
def test_every_measurement_has_its_figure(key: str, title: str, pick: str) -> None:
    place = place_of(key)
    assert place is not None
    assert (place.title, place.pick) == (title, pick)


def test_what_has_no_figure() -> None:
    for key in (
        "step",
        "eval/a/b/implicit_reward_at_0.3",
        "rollout/seconds",
        "x/y/z/loss",
    ):
        assert place_of(key) is None


def test_one_seed_of_each_method_is_shown_first(tmp_path: Path) -> None:
    found = read_study(make_study(tmp_path / "study", seeds=tuple(range(20))))
    cells = drawn_cells(found)
    assert len(cells) == MOST_RUNS
    views = views_of(cells)
    assert views[ONE] == ["test-SFT_then_DPO-0", "test-UFT-0", "test-MAXRIGHT-0"]
    assert len(views[EVERY]) == MOST_RUNS
    assert "12 of 60 runs are not drawn" in chapter_sections(found)["Training"]


@given(st.integers(0, 3000))
def test_long_curves_keep_their_ends(count: int) -> None:
    points = [(step, float(step)) for step in range(count)]
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS + 1
    assert set(kept) <= set(points)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
    if count <= MOST_POINTS:
        assert kept == points


def test_looks_never_repeat() -> None:
    methods = [f"m{n}" for n in range(20)]
    looks = looks_of([*methods, "base"], "base")
    assert len({(look.colour, look.symbol, look.dash) for look in looks.values()}) == 21
    assert looks["base"].colour == "@m-base"
    assert looks_of(methods, None)["m3"] == looks["m3"]


def test_samples_are_of_one_seed(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", runs=False)
    (study / "cells" / "test-UFT-0" / "samples.jsonl").unlink()
    found = read_study(study)
    shown = columns(found, [cell for cell in found.tested if cell.samples])
    assert [cell.name for cell in shown] == [
        *("test-base-1", "test-SFT_then_DPO-1", "test-UFT-1", "test-MAXRIGHT-1"),
    ]


def test_samples_are_of_every_metric_and_differ_first() -> None:
    keys = [(f"p{n}", metric) for metric in "ab" for n in range(3)]
    turns = [("p0", "a"), ("p0", "b"), ("p1", "a"), ("p1", "b"), ("p2", "a"), ("p2", "b")]
    assert spread(keys) == turns
    rights = {"base": (0, 0, 1), "x": (1, 0, 1), "y": (1, 1, 1)}
    cells = [
        Cell(
            name, name, samples=[{"prompt": f"p{n}", "right": bool(r)} for n, r in enumerate(many)]
        )
        for name, many in rights.items()
    ]
    found = Compared("x", Path("x"), list(rights), cells, {}, [], "base")
    text = samples_section(found, looks_of(list(rights), "base"))
    # p1 parts x and y; p0 parts only the base from both.
    assert re.findall(r">(p\d)<", str(text)) == ["p1", "p0", "p2"]


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    study = tmp_path / "study"
    for seed in (0, 1):
        for method in (EVIL.replace("/", ""), "base"):
            cell = make_cell(study, method, seed, {EVIL: 0.5, "b": 0.2 * seed}, axes={EVIL: seed})
            lines = [{"prompt": EVIL, "response": EVIL, "metric": EVIL, "right": True}]
            write_lines(cell / "samples.jsonl", lines)
            make_run(cell / "run", seed)
            (cell / "run" / "recipe.yaml").write_text(f"name: '{EVIL}'\n")
    make_cell(study, "b", 7, None, state="failed", error=EVIL)
    metrics = {EVIL: {"says": EVIL, "better": "higher", "group": EVIL}, "b": {"better": "higher"}}
    about = {"name": EVIL, "description": EVIL, "base": "base", "metrics": metrics}
    write(study / "study.json", {**about, "command": EVIL, "versions": {EVIL: EVIL}})
    write(
        study / "claims.json", [{"claim": EVIL, "source": EVIL, "verdict": EVIL, "parts": [EVIL]}]
    )
    (study / "study.yaml").write_text(EVIL)
    text = page([read_study(study)], EVIL)
    assert text.count("<script") == 2 + text.count('<script type="application/json">')
    assert "<img" not in text
    assert text.count("&lt;img src=x") > 10


def test_markup_escapes_what_is_not_html() -> None:
    assert el("p", "a<b", Html("<i>"), None, title='"') == '<p title="&quot;">a&lt;b<i></p>'
    assert '<th scope="row">&lt;td&gt;</th>' in table(["x"], [["<td>"]])
    assert "<" not in embedded({"<": "</script>"})
    assert json.loads(embedded({"<": "</script>&"})) == {"<": "</script>&"}


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    written = write_report([make_study(tmp_path / "study")], tmp_path / "new" / "report.html")
    text = written.file.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert not re.findall(r"url\(|@import|https?://", text)
    assert written.troubles == []


def test_a_failed_write_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_report([make_run(tmp_path / "run")], file)
    assert [one.name for one in tmp_path.glob("*report*")] == ["report.html"]
    assert file.read_text() == "old"


def test_studies_and_runs_are_chapters(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a"), make_study(tmp_path / "s"), make_run(tmp_path / "b")]
    chapters = read_folders(folders)
    assert [chapter.name for chapter in chapters] == ["table-1", "2 runs"]
    text = page(chapters, "x")
    marks = re.findall(r'id="([^"]+)"', text)
    assert len(marks) == len(set(marks))
    links = re.findall(r'href="#([^"]+)"', text)
    assert links
    assert set(links) <= set(marks)


def test_folders_that_are_neither(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such folder"):
        read_folders([tmp_path / "none"])
    with pytest.raises(ReportError, match=r"neither a study .* nor a run"):
        read_folders([tmp_path])


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner().invoke
    study = harm(make_study(tmp_path / "study", runs=False))
    done = run(app, ["report", str(study), "--title", "What came <of> it"])
    assert done.exit_code == 0, done.output
    assert "cell test-UFT-3: failed: loss is not finite at step 12" in done.output
    text = (study / "report.html").read_text()
    assert "<title>What came &lt;of&gt; it</title>" in text
    for arguments, message in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path)], "is neither a study"),
        ([str(study), "--out", str(tmp_path / "x.pdf")], "allowed are files .html"),
        ([str(study), "--out", str(tmp_path)], "allowed are files .html"),
    ):
        failed = run(app, ["report", *arguments])
        assert failed.exit_code == 1
        assert message in " ".join(failed.output.split())
        assert "Traceback" not in failed.output


ODD = (None, 3, "x", [], {}, [[1]], {"a": {}}, [{"a": 1}], True, -1e400)


def mutants(content: Any) -> Iterator[Any]:
    """The content with one value at a time replaced by odd ones, at any depth."""
    for odd in ODD:
        yield odd
    places = content.items() if isinstance(content, dict) else enumerate(content)
    for key, inner in list(places) if isinstance(content, dict | list) else []:
        for odd in mutants(inner) if isinstance(inner, dict | list) else ODD:
            changed = content.copy()
            changed[key] = odd
            yield changed


@pytest.mark.parametrize(
    "name",
    [
        *(
            "study.json",
            "claims.json",
            "cells/test-UFT-0/cell.json",
            "cells/test-UFT-0/status.json",
        ),
        *("cells/test-UFT-0/results.json", "cells/test-UFT-0/samples.jsonl"),
        *("cells/test-UFT-0/run/manifest.json", "cells/test-UFT-0/run/data.json"),
        *("cells/test-SFT_then_DPO-0/run/stages.json", "cells/test-UFT-0/run/metrics.jsonl"),
    ],
)
def test_any_value_may_be_odd(tmp_path: Path, name: str) -> None:
    study = make_study(tmp_path / "study", seeds=(0,))
    for other in ("MAXRIGHT", "base"):
        shutil.rmtree(study / "cells" / f"test-{other}-0")
    file = study / name
    contents = [json.loads(line) for line in file.read_text().splitlines()[:3]]
    chosen = list(mutants(contents[0]))
    for odd in chosen[:: max(1, len(chosen) // 25)]:
        file.write_text("".join(json.dumps(one) + "\n" for one in [odd, *contents[1:]]))
        chapter_sections(read_study(study))


def test_what_the_table_adds_to_the_cells(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", runs=False)
    rows = [
        "purpose,method,rate,seed,cell,metric,value",
        'test,UFT,"""""",0,test-UFT-0,ideal_distance,0.25',
        'test,UFT,"""""",1,test-UFT-1,formats,0.0',  # the cell's own number stands
        'test,UFT,"""""",0,,hypervolume,0.5',
        'test,UFT,"""""",1,,hypervolume,0.7',
        "test,UFT,,0,gone,ideal_distance,0.5",
        "test,UFT,,0,test-UFT-0,broken,nan",
    ]
    (study / "results.csv").write_text("\n".join(rows))
    found = read_study(study)
    assert found.values(Setting("UFT"), "ideal_distance") == {0: 0.25}
    assert found.values(Setting("UFT"), "formats")[1] == value("UFT", "formats", 1)
    assert "broken" not in found.metrics
    text = chapter_sections(found)["Results"].split("Of all settings of a method together")[1]
    assert f"0.600<small> ± {12.7062 * math.sqrt(0.02) / math.sqrt(2):.3f}" in text


def test_seeds_and_methods_that_were_not_begun(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", runs=False)
    shutil.rmtree(study / "cells" / "test-UFT-1")
    about = json.loads((study / "study.json").read_text())
    write(study / "study.json", {**about, "methods": ["UFT", "GRPO"], "seeds": [0, 1, 2]})
    found = read_study(study)
    assert [f"{one.where}: {one.what}" for one in found.troubles] == [
        "not begun: GRPO",
        "UFT: not begun: seeds 1",
    ]
    # The base stands first, then the methods in the study's order.
    assert found.methods == ["base", "UFT", "GRPO", "MAXRIGHT", "SFT->DPO"]


def test_runs_of_one_model_share_a_start(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name) for name in "ab"]
    lines = [json.loads(line) for line in (folders[1] / "metrics.jsonl").read_text().splitlines()]
    write_lines(folders[1] / "metrics.jsonl", lines[1:])
    assert read_folders(folders)[0].base is None  # b measured nothing before its first step
    for folder in folders:
        told = json.loads((folder / "manifest.json").read_text())
        write(folder / "manifest.json", {**told, "model": "0123-float32"})
    (found,) = read_folders(folders)
    change = found.change(Setting("b"), "sft loss")
    assert change is not None
    assert change.mean == pytest.approx(-1.0)


def test_of_many_settings_the_best_of_each_method_has_bars(tmp_path: Path) -> None:
    plain_study = read_study(make_study(tmp_path / "plain", runs=False))
    assert chosen_settings(plain_study) == ([Setting(name) for name in list(VALUES)[1:]], "")
    rows, note = chosen_settings(read_study(make_axes_study(tmp_path, "learning_rate", "beta")))
    assert [one.label for one in rows] == [
        "SFT->DPO, learning_rate 0.01, beta 0.1",
        "UFT, learning_rate 0.01, beta 0.1",
    ]
    assert (
        note == "Of each method the setting with the best formats of the test, which flatters it."
    )


def test_where_all_are_equal_none_is_best() -> None:
    assert compared({"base": [0.5], "a": [0.5]}).best("m") == set()


def test_a_study_of_which_only_tables_were_kept(tmp_path: Path) -> None:
    study = make_axes_study(tmp_path / "study", "learning_rate")
    whole = read_study(study)
    rows = ["purpose,method,learning_rate,seed,cell,metric,value"]
    for cell in whole.cells:
        rate = cell.axes.get("learning_rate", "")
        for metric, one in cell.results.items():
            rows.append(f"test,{cell.method},{rate},{cell.seed},{cell.name},{metric},{one!r}")
    (study / "results.csv").write_text("\n".join(rows))
    shutil.rmtree(study / "cells")
    found = read_study(study)
    assert [one.what for one in found.troubles] == ["there are no cells"]
    csv.field_size_limit(131_072)  # as Python has it, whatever a table of another test has set
    (study / "results.csv").write_text("purpose,metric,value\ntest,a," + "1" * 200_000)
    assert "results.csv is damaged" in read_study(study).troubles[1].what
    assert found.settings() == whole.settings()
    for one in whole.settings():
        assert found.values(one, "truth") == whole.values(one, "truth")


DOCS = Path(__file__).parents[2] / "docs" / "studies"


@pytest.mark.parametrize("folder", sorted(DOCS.iterdir()), ids=lambda folder: folder.name)
def test_committed_studies_open_again(folder: Path) -> None:
    """From what is in the repository: no cells, and the packed table alone."""
    found = read_study(folder)
    assert found.troubles == []
    with (folder / "summary.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == found.headline[0]]
    shown = [one for one in found.settings() if found.mean(one, found.headline[0])]
    assert len(lines) == len(shown) > 1
    for line in lines:
        axes = {name: json.loads(line[name]) for name in found.axes if line[name]}
        one = Cell("", line["method"], axes=axes).setting
        mean = found.mean(one, line["metric"])
        assert mean is not None
        assert mean.mean == pytest.approx(float(line["mean"]), rel=1e-4)
    sections = chapter_sections(found)
    assert {"Results", "Claims"} <= set(sections)
    # What was gained and lost is said against a base, which a study may leave out.
    told = json.loads((folder / "study.json").read_text())
    assert ("Verdict" in sections) == (told["base"] is not None)


def test_a_packed_table_may_be_odd(tmp_path: Path) -> None:
    """Damaged, or of other columns and types than ours."""
    study = make_study(tmp_path / "study", runs=False)
    shutil.rmtree(study / "cells")
    file = study / "results.parquet"
    file.write_bytes(b"PAR1 and no more")
    found = read_study(study)
    assert found.troubles[0].what.startswith("results.parquet cannot be read")
    row = {"purpose": "test", "method": "UFT", "seed": 0, "cell": "c", "metric": "truth"}
    rows = [
        {**row, "value": 0.5, "depth": 3},
        {**row, "metric": None, "value": None, "depth": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    found = read_study(study)
    assert found.values(Setting("UFT", (("depth", 3),)), "truth") == {0: 0.5}
    chapter_sections(found)
