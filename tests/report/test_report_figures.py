"""What the figures of a report may and may not do, read off the page without a browser."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.report_folders import make_run, make_stages, make_study, specs, write, write_lines

from onestage.report.cells import Cell, Compared, Metric, Setting
from onestage.report.curves import lines_of
from onestage.report.equal import equal_lines, equal_note, equal_section, tried, volume
from onestage.report.figures import looks_of
from onestage.report.markup import VOID, prose
from onestage.report.page import chapter_sections, page, read_folders
from onestage.report.units import unit_of


def trained_by(folder: Path, objective: Any) -> Path:
    make_run(folder)
    told = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**told, "objective": objective}))
    return folder


def test_losses_of_different_objectives_share_no_axis(tmp_path: Path) -> None:
    given = {"a": "sft", "b": {"name": "dpo", "beta": 0.1}, "c": "uft", "d": "sft"}
    runs = [trained_by(tmp_path / name, objective) for name, objective in given.items()]
    (found,) = read_folders(runs)
    drawn = {
        figure["title"]: {trace["name"] for trace in figure["data"]}
        for figure in specs(chapter_sections(found)["Training"])
        if "loss" in figure["title"].lower() and "kept" not in figure["title"]
    }
    assert drawn["Training loss: sft"] == {"a", "d"}
    assert drawn["Training loss: dpo"] == {"b"}
    assert drawn["Training loss: uft"] == {"c"}
    # A term says itself what it is: all four measured the terms sft and dpo on held-out rows.
    assert drawn["Held-out loss: sft"] == drawn["Held-out loss: dpo"] == {"a", "b", "c", "d"}


def test_the_stages_of_a_chain_share_no_axis(tmp_path: Path) -> None:
    chain = make_stages(tmp_path / "chain")
    for folder, objective in (("1-sft", "sft"), ("2-dpo", "dpo")):
        trained_by(chain / folder, objective)
    (found,) = read_folders([chain])
    lines = lines_of([cell for cell in found.cells if cell.trained])["Losses"]
    (first,), (second,) = lines["Training loss: sft"][:1], lines["Training loss: dpo"][:1]
    assert [step for step, _ in first.points] == list(range(5, 61, 5))
    assert [step for step, _ in second.points] == list(range(65, 121, 5))


@pytest.mark.parametrize(
    ("objective", "key", "unit"),
    [
        ({"demonstration": "sft", "pair": {"name": "dpo"}}, "loss", "dpo + sft"),
        ({"scores": "uft", "pair": "dpo"}, "scores/loss", "uft"),
        ({"score": "uft", "pair": "dpo"}, "scores/loss", "uft"),  # by the kind of its rows
        ({"score": "uft", "pair": "dpo"}, "eval/scores/loss", "uft"),
        ("./mine.py:Mine", "loss", "Mine"),
        ("sft", "eval/terms/dpo", "dpo"),
        ("sft", "gap/uft", "uft"),
        ("sft", "retention/text/loss", ""),
        ("sft", "suite/text/loss", ""),
        ("sft", "learning_rate", ""),
    ],
)
def test_what_a_loss_is_a_number_of(tmp_path: Path, objective: Any, key: str, unit: str) -> None:
    (found,) = read_folders([trained_by(tmp_path / "run", objective)])
    trained = found.cells[-1].trained
    assert trained is not None
    assert unit_of(trained.parts[0], key) == unit


def test_methods_differ_without_their_colours() -> None:
    looks = looks_of([f"m{n}" for n in range(12)], "base")
    assert len({(look.dash, look.symbol) for look in looks.values()}) == 13
    # Where colours begin again the dash is another one, for bars and lines without marks.
    looks = looks_of([f"m{n}" for n in range(24)], None)
    assert len({(look.colour, look.dash) for look in looks.values()}) == 24


class Tags(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_small(tmp_path: Path) -> None:
    folders = [make_study(tmp_path / "study"), make_run(tmp_path / "run")]
    text = page(read_folders(folders), "x")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    assert len(page(read_folders(folders[1:]), "x").encode()) < 200_000


def test_which_way_is_better_stands_at_every_measure(tmp_path: Path) -> None:
    text = chapter_sections(read_folders([make_study(tmp_path / "study")])[0])
    titles = [
        figure["layout"]["yaxis"]["title"]["text"]
        for figure in specs(text["Training"])
        if "loss" in figure["title"].lower() or "KL" in figure["title"]
    ]
    assert titles
    assert all("(lower is better)" in title for title in titles)
    changes = specs(text["Gained and forgotten"])
    assert all(group.endswith("↑") for trace in changes[0]["data"] for group in trace["y"])
    assert changes[1]["layout"]["xaxis"]["title"]["text"].endswith("to the left is better")


def test_backticks_become_code() -> None:
    assert prose("a `<b>` c") == "a <code>&lt;b&gt;</code> c"
    assert prose("one ` alone") == "one ` alone"


def test_bounds_over_the_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for step, much, weight in ((4, 0.09, 1.0), (8, 0.06, 2.0), (12, 0.045, 2.5)):
        numbers = {"measured": much, "bound": 0.05, "multiplier": weight, "slack": 0.05 - much}
        lines.append({"step": step, **{f"keep/maths/{k}": v for k, v in numbers.items()}})
    write_lines(run / "metrics.jsonl", lines)
    told = {"name": "maths", "what": "kl", "by": "kl", "at_most": 0.05, "verdict": "held"}
    write(run / "keep.json", [told])
    section = chapter_sections(read_folders([run])[0])["Bounds"]
    measured, multiplier = specs(section)
    assert [trace["y"] for trace in measured["data"]] == [[0.09, 0.06, 0.045], [0.05, 0.05, 0.05]]
    assert [trace["y"] for trace in multiplier["data"]] == [[1.0, 2.0, 2.5]]
    assert "KL divergence on maths; held by a pull to the start model" in section
    # Runs without bounds take no place from those that have some.
    others = [make_run(tmp_path / f"other-{n}") for n in range(8)]
    section = chapter_sections(read_folders([*others, run])[0])["Bounds"]
    assert len(specs(section)[0]["data"]) == 2


def test_questions_asked_again_stand_side_by_side(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    asked = [
        {"step": step, "suite": suite, "prompt": "Who?", "completions": [answer], "rewards": []}
        for step in range(0, 60, 10)
        for suite, answer in (("prompts", f"answer at {step}"), ("text", ""))
    ]
    write_lines(run / "samples.jsonl", asked)
    text = chapter_sections(read_folders([run])[0])["Samples"]
    assert text.count(">Who?<") == 1
    assert re.findall(r"answer at (\d+)", text) == ["0", "10", "30", "50"]
    stages = make_stages(
        tmp_path / "stages"
    )  # whose steps add up: 60 of the first, 50 of the second
    write_lines(stages / "2-dpo" / "samples.jsonl", asked)
    assert ", step 110" in chapter_sections(read_folders([stages])[0])["Samples"]


def grid() -> Compared:
    """Two methods of two settings, two seeds. Base: truth .2, formats .9, loss 1.

    Test truths: a .5 and .8, b .6 and .75 (seed 1 has .1 more), so .9 of the best mean (.85) is .765.
    """
    metrics = {
        "truth": Metric("truth", group="truth"),
        "formats": Metric("formats", group="formats"),
        "loss": Metric("loss", better="lower", group="kept"),
    }
    numbers = {
        ("a", 1): (0.5, 0.9, 1.0),
        ("a", 2): (0.8, 0.4, 1.5),
        ("b", 1): (0.6, 0.8, 1.1),
        ("b", 2): (0.75, 0.7, 1.2),
    }
    cells = []
    for seed in (0, 1):
        cells.append(
            Cell(f"base-{seed}", "base", seed, results={"truth": 0.2, "formats": 0.9, "loss": 1.0})
        )
        for (method, rate), (truth, formats, loss) in numbers.items():
            found = {"truth": truth + 0.1 * seed, "formats": formats, "loss": loss}
            for purpose in ("tune", "test" if rate == 1 else "grid"):
                number = seed + (100 if purpose == "tune" else 0)
                name = f"{purpose}-{method}-{rate}-{seed}"
                results = found if purpose != "tune" else {**found, "truth": found["truth"] - 0.05}
                choice = {"rate": rate}
                cells.append(Cell(name, method, number, purpose, {}, choice, results=results))
    about = {"tune": {"metric": "formats", "at_least": {"truth": 0.9}, "report": "all"}}
    headline = ["truth", "formats", "loss"]
    names = ["base", "a", "b"]
    return Compared("x", Path("x"), names, cells, metrics, headline, "base", about=about)


def test_retention_at_equal_gain_by_hand() -> None:
    found = grid()
    whole = tried(found)
    assert whole is not None
    assert (whole.gain, whole.share, whole.kept) == ("truth", 0.9, ["formats", "loss"])
    assert whole.on_validation
    # On validation the means are .05 lower: .9 of .8 is .72, and b's second has .75.
    assert {one.label + choice for one, choice in whole.reach()} == {'a{"rate": 2}', 'b{"rate": 2}'}
    keeper = whole.keeper("b", "formats", 1)
    assert keeper == (Setting("b"), '{"rate": 2}')
    kept = whole.mean(keeper, "formats")
    assert kept is not None
    assert (kept.mean, kept.n) == (pytest.approx(0.7), 2)


def test_settings_that_keep_as_much_are_told_alike_whatever_the_order() -> None:
    """Strings are hashed anew in every process: a page of a study changed with it."""
    results = {"truth": 0.5, "formats": 0.7}
    cells = [
        Cell(f"{rate}", "a", 0, "grid", {}, {"rate": rate}, results=results) for rate in range(9)
    ]
    about = {"tune": {"metric": "formats", "at_least": {"truth": 0.9}, "report": "all"}}
    metrics = {"truth": Metric("truth"), "formats": Metric("formats")}
    for order in (cells, cells[::-1], cells[4:] + cells[:4]):
        found = Compared("x", Path("x"), ["a"], order, metrics, ["truth", "formats"], about=about)
        whole = tried(found)
        assert whole is not None
        assert whole.keeper("a", "formats", 1) == (Setting("a"), '{"rate": 0}')


def test_hypervolume_of_gain_and_retention_by_hand() -> None:
    found = grid()
    whole = tried(found)
    assert whole is not None
    # Seed 0: gains of a are .3 / .6 and 1 of the seed's best, kept .9 and .4: .9 to half way, then .4.
    # Seed 1: .4 / .7 and 1.
    area = volume(found, whole, "a", "formats")
    assert area is not None
    by_seed = [0.9 * g + 0.4 * (1 - g) for g in (0.3 / 0.6, 0.4 / 0.7)]
    assert area.mean == pytest.approx(sum(by_seed) / 2)
    # A loss is kept as e^-(its rise): 1 and e^-.5.
    area = volume(found, whole, "a", "loss")
    assert area is not None
    rise = 0.6065306597
    by_seed = [g + rise * (1 - g) for g in (0.3 / 0.6, 0.4 / 0.7)]
    assert area.mean == pytest.approx(sum(by_seed) / 2)


def test_gain_is_what_is_less_of_a_distance_where_settings_are_chosen_by_it() -> None:
    """Distances of sqrt 2 at the start: .5 and .1 of that are left, so .5 and .9 are gained, of .9."""
    distance, kl = Metric("ideal_distance", better="lower"), Metric("kl", better="lower", group="k")
    cells = [Cell("base-0", "base", 0, results={"kl": 0.0})]
    for purpose in ("tune", "test"):
        for method, left, far in (("a", 0.5, 0.1), ("b", 0.1, 0.4), ("c", 0.15, 0.2)):
            results = {"ideal_distance": left * math.sqrt(2), "kl": far}
            cells.append(Cell(f"{purpose}{method}", method, 0, purpose, results=results))
    cells.append(Cell("grid", "a", 0, "grid", {}, {"rate": 2}, results={"kl": 9.0}))
    about = {"tune": {"metric": "ideal_distance", "report": "all"}}
    metrics, names = {"ideal_distance": distance, "kl": kl}, ["base", "a", "b", "c"]
    headline = ["ideal_distance", "kl"]
    found = Compared("x", Path("x"), names, cells, metrics, headline, "base", about=about)
    whole = tried(found)
    assert whole is not None
    assert (whole.gain, whole.kept) == ("gain", ["kl"])
    assert {one.method for one, _ in whole.reach()} == {"b", "c"}  # .85 is more than .81
    assert {line.method: line.enough for line in equal_lines(found, whole)} == {
        "a": 0,
        "b": 1,
        "c": 1,
    }
    (kept,) = equal_lines(found, whole)[2].kept
    assert kept.mean is not None
    assert kept.mean.mean == 0.2
    # .85 of the best .9 was gained, and e^-.2 kept.
    assert kept.hypervolume is not None
    assert kept.hypervolume.mean == pytest.approx(0.85 / 0.9 * math.exp(-0.2))
    assert equal_section(found, looks_of(found.methods, "base")) is not None


def test_a_setting_that_failed_everywhere_was_tried() -> None:
    found = grid()
    for seed, purpose in ((0, "grid"), (1, "grid"), (100, "tune")):
        found.cells.append(Cell(f"x{seed}", "b", seed, purpose, {}, {"rate": 3}, state="failed"))
    whole = tried(found)
    assert whole is not None
    assert whole.on_validation
    assert [(line.enough, line.settings) for line in equal_lines(found, whole)] == [(1, 2), (1, 3)]
    assert "2 of 10 cells failed or have not run: these points are missing" in equal_note(whole)


def test_equal_gain_is_shown_where_all_settings_were_run() -> None:
    found = grid()
    text = equal_section(found, looks_of(found.methods, "base"))
    assert text is not None
    assert "1 of 2" in text
    assert "chosen on validation" in text
    assert "points are missing" not in text
    (figure,) = specs(text)
    assert [len(trace["x"]) for trace in figure["data"] if trace["pick"] == "loss"] == [2, 2, 2]
    chosen = [cell for cell in found.cells if cell.purpose != "grid"]
    alone = Compared("x", Path("x"), found.methods, chosen, found.metrics, found.headline, "base")
    assert equal_section(alone, looks_of(found.methods, "base")) is None
    found.about["tune"]["report"] = "likely"  # some settings were left out
    assert equal_section(found, looks_of(found.methods, "base")) is None


def test_chains_against_their_own_first_stage() -> None:
    metrics = {
        "formats": Metric("formats"),
        "left/sft/formats": Metric("left/sft/formats", "share that is left", "higher", "left"),
    }
    cells = [
        Cell(f"chain-{seed}", "chain", seed, results={"formats": 0.6, "left/sft/formats": 0.75})
        for seed in range(4)
    ]
    cells += [Cell("UFT-0", "UFT", 0, results={"formats": 0.8})]
    found = Compared("x", Path("x"), ["chain", "UFT"], cells, metrics, ["formats"])
    text = chapter_sections(found)["Results"].split("Chains against themselves")[1]
    table = text.split("</table>")[0]
    assert "formats, left of that after sft" in table
    assert "0.750" in table
    assert "UFT" not in table
