"""Paired differences, claims, fronts and choices, against values computed by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.small_studies import content

from onestage.report.front import result_of
from onestage.runfolder import json_line, write_json
from onestage.studies.cells import trials, unchosen
from onestage.studies.claims import check, judged
from onestage.studies.described import tried
from onestage.studies.file import Front, StudyError, parse_study
from onestage.studies.ledger import ledger
from onestage.studies.results import TidyRow, beside, differences, summary, traded
from onestage.studies.run_cell import spent
from onestage.studies.tables import number
from onestage.studies.tuning import choose, edges, remarks, require_measured, settled, wider
from onestage.studies.worlds import Metric


def rows(values: dict[str, list[float]], axes: dict[str, Any] | None = None) -> list[TidyRow]:
    return [
        TidyRow("test", method, axes or {}, seed, f"{method}-{seed}", "score", value)
        for method, many in values.items()
        for seed, value in enumerate(many)
    ]


FOUND = {
    "A": [0.5, 0.6, 0.55, 0.5],
    "B": [0.4, 0.5, 0.46, 0.4],
    "C": [0.5, 0.61, 0.545, 0.5],
}


def verdict(**claim: Any) -> str:
    said = {"claim": "c", "metric": "score", **claim}
    base = content(Path("b"), Path("d"))
    grid = {name: {"objective": "sft", "try": {"rate": [1]}} for name in FOUND}
    study = parse_study({**base, "methods": grid, "claims": [said]})
    check(study)
    return judged(study, rows(FOUND))[0]["verdict"]


def test_verdicts() -> None:
    """A - B is .1, .1, .09, .1; A - C is 0, -.01, .005, 0."""
    assert verdict(more="A", than=["B"]) == "holds"
    assert verdict(more="A", than=["B"], margin=0.2) == "equivalent"
    assert verdict(more="A", than=["B", "C"]) == "undecided"
    assert verdict(more="B", than=["A"]) == "reversed"
    assert verdict(more="B", than=["A"], direction="less") == "holds"
    assert verdict(more="A", than=["C"], direction="same", margin=0.05) == "holds"
    assert verdict(more="A", than=["B"], direction="same", margin=0.05) == "reversed"
    assert verdict(more="C", than=["A"], direction="at_least", margin=0.05) == "holds"
    assert verdict(more="B", than=["A"], direction="at_least", margin=0.05) == "reversed"
    assert verdict(more="B", than=["A"], direction="at_most", margin=0.05) == "holds"
    assert verdict(more="A", than=["B"], withdrawn="another question") == "withdrawn"
    with pytest.raises(StudyError, match="no method 'Z'"):
        verdict(more="Z", than=["A"])


def test_a_chain_is_held_against_itself() -> None:
    """The chain ends .1, .1, .09 and .1 below what it was after SFT; SFT alone says nothing of that."""
    base = content(Path("b"), Path("d"))
    base["methods"]["SFT then DPO"]["judge_after"] = ["sft"]
    then = {"method": "SFT then DPO", "after": "sft"}
    said = {"claim": "c", "metric": "score", "direction": "less", "more": "SFT then DPO"}
    study = parse_study({**base, "claims": [{**said, "than": [then]}]})
    check(study)
    many = rows({"SFT then DPO": FOUND["B"], "SFT": FOUND["B"]})
    many += [replace(row, metric="after/sft/score") for row in rows({"SFT then DPO": FOUND["A"]})]
    (entry,) = judged(study, many)
    assert entry["verdict"] == "holds"
    assert entry["parts"][0]["says"] == "SFT then DPO - SFT then DPO (after sft)"
    assert entry["parts"][0]["mean"] == pytest.approx(-0.0975)
    with pytest.raises(StudyError, match="SFT is not judged after 'sft'; add it"):
        check(parse_study({**base, "claims": [{**said, "than": [{**then, "method": "SFT"}]}]}))


def test_trends_are_along_an_axis() -> None:
    base = content(Path("b"), Path("d"), axes={"part": [1, 2, 3]})
    method = {"A": {"objective": {"name": "uft", "beta": "{part}"}, "try": {"rate": [1]}}}
    trend = {"method": "A", "over": "part"}
    said = [{"claim": "c", "metric": "score", "trend": trend, "direction": "less"}]
    study = parse_study({**base, "methods": method, "claims": said})
    check(study)
    series = {1: [3.0, 5.0, 4.0, 9.0], 2: [2.0, 4.0, 3.5, 8.0], 3: [1.0, 3.0, 2.0, 7.0]}
    many = [row for part, values in series.items() for row in rows({"A": values}, {"part": part})]
    (entry,) = judged(study, many)
    assert entry["verdict"] == "holds"
    assert entry["parts"][0]["mean"] == -1
    # Whoever lacks a place, the first seed and place among them, is left out, and nothing else changes.
    (entry,) = judged(study, [row for row in many if (row.seed, row.axes["part"]) != (0, 1)])
    assert (entry["parts"][0]["mean"], entry["parts"][0]["n"]) == (-1, 3)
    (entry,) = judged(study, [row for row in many if row.axes["part"] != 1])
    assert (entry["verdict"], entry["parts"][0]["absent"]) == (
        "undecided",
        "A has no score at part 1",
    )
    earlier = study.claims[0].model_copy(update={"trend": {**trend, "after": "sft"}})
    flat = [replace(row, value=1.0) for row in many]
    flat += [replace(row, metric="after/sft/score") for row in many]
    (entry,) = judged(study.model_copy(update={"claims": [earlier]}), flat)
    assert entry["parts"][0]["mean"] == -1
    with pytest.raises(StudyError, match="no axis"):
        check(study.model_copy(update={"claims": [study.claims[0].model_copy(
            update={"trend": {"method": "A", "over": "nothing"}})]}))  # fmt: skip


def test_axes_left_open_are_compared_over_the_same_places() -> None:
    """A equals B at every part; without the parts where both are worst A would look better."""
    base = content(Path("b"), Path("d"), axes={"part": [1, 2]})
    method = {"objective": {"name": "uft", "beta": "{part}"}, "try": {"rate": [1]}}
    said = [{"claim": "c", "metric": "score", "more": "A", "than": ["B"]}]
    study = parse_study({**base, "methods": {"A": method, "B": method}, "claims": said})
    values = {1: [0.9, 0.8, 0.85, 0.9, 0.8], 2: [0.1, 0.2, 0.15, 0.1, 0.2]}
    many = [
        row for part, some in values.items() for row in rows({"A": some, "B": some}, {"part": part})
    ]
    for lost, n, absent in ((range(5), 0, "A has no score at part 2"), (range(2), 3, "")):
        gone = [("A", {"part": 2}, seed) for seed in lost]
        there = [row for row in many if (row.method, row.axes, row.seed) not in gone]
        (entry,) = judged(study, there)
        (part,) = entry["parts"]
        assert (entry["verdict"], part["n"], part["absent"]) == ("undecided", n, absent)


def test_a_seed_without_a_partner_is_left_out() -> None:
    many = rows({"A": [0.5, 0.6, 0.7], "B": [0.1, 0.2]})
    (line,) = differences(many, [], ["score"])
    assert (line["n"], line["difference"]) == (2, pytest.approx(0.4))
    table = {line["method"]: line for line in summary(many, [])}
    assert (table["A"]["n"], table["A"]["mean"]) == (3, pytest.approx(0.6))


def losses(method: str, part: float, sft: float, dpo: float) -> list[TidyRow]:
    cell = f"{method}-{part}"
    found = {"eval/sft": sft, "eval/dpo": dpo, "start/eval/sft": 3.0, "start/eval/dpo": 0.7}
    return [TidyRow("test", method, {"part": part}, 0, cell, name, v) for name, v in found.items()]


def test_the_front_of_a_method() -> None:
    """Best of each loss 1 and .2: parts of the gap at the start (2 and .5)."""
    many = losses("A", 0, 1.0, 0.45) + losses("A", 1, 2.0, 0.2) + losses("B", 0, 2.0, 0.7)
    made = traded(many, Front(x="eval/sft", y="eval/dpo", over="part"))
    found = {(row.method, row.axes.get("part"), row.metric): row.value for row in made}
    assert found["A", 0, "gap/y"] == pytest.approx(0.5)
    assert found["A", 1, "gap/x"] == pytest.approx(0.5)
    assert found["A", 1, "ideal_distance"] == pytest.approx(0.5)
    assert found["A", None, "hypervolume"] == pytest.approx(0.75)
    assert ("B", None, "hypervolume") not in found
    # A setting that was not chosen is seen from the same best, which it changes as little as a run that
    # diverged: (.9 - 1) / 2, (.45 - .2) / .5.
    grid = [
        replace(row, purpose="grid", cell="g", choice={"rate": 1})
        for row in losses("A", 0, 0.9, 0.45)
    ]
    front = Front(x="eval/sft", y="eval/dpo", over="part")
    more = traded(losses("C", 0, math.nan, 0.7) + many + grid, front)
    seen = {row.metric: row.value for row in more if row.purpose == "grid"}
    assert (seen["gap/x"], seen["gap/y"]) == (pytest.approx(-0.05), pytest.approx(0.5))
    assert made == [row for row in more if row.purpose == "test" and row.method != "C"]


def test_gaps_of_several_bases_are_each_to_its_own_best() -> None:
    """Two models on one axis of the world: each has its own start (1) and its own best (0)."""
    many = []
    for model, start, ends in (("small", 3.0, (2.0, 1.0)), ("large", 2.0, (1.5, 0.5))):
        for method, end in zip("AB", ends, strict=True):
            found = {name: end for name in ("eval/x", "eval/y")}
            found |= {name: start for name in ("start/eval/x", "start/eval/y")}
            axes, cell = {"model": model}, f"{method}-{model}"
            many += [TidyRow("test", method, axes, 0, cell, name, v) for name, v in found.items()]
    made = traded(many, Front(x="eval/x", y="eval/y"), ["model"])
    gaps = {(row.method, row.axes["model"]): row.value for row in made if row.metric == "gap/x"}
    assert gaps == pytest.approx(
        {("A", "small"): 0.5, ("B", "small"): 0, ("A", "large"): 2 / 3, ("B", "large"): 0}
    )


def test_too_few_seeds_have_no_p() -> None:
    """Two coarse accuracies that differ alike by chance had p = 0."""
    (few,) = differences(rows({"A": [0.5, 0.75], "B": [0.25, 0.5]}), [], ["score"])
    assert math.isnan(few["p"])
    assert math.isnan(few["p_holm"])
    four = {"A": [0.5, 0.75, 0.5, 0.6], "B": [0.25, 0.5, 0.3, 0.2]}
    (enough,) = differences(rows(four), [], ["score"])
    assert 0 < enough["p"] <= enough["p_holm"] < 0.05


def test_the_best_trial_is_chosen_and_edges_are_told() -> None:
    method = {
        "A": {"objective": "sft", "try": {"rate": [1, 2, 3]}},
        "B": {"objective": "sft", "try": {"rate": [1, 2, 3]}},
        "C": {"objective": "sft", "try": {"rate": [5]}},
    }
    base = content(Path("b"), Path("d"), methods=method, tune={"seeds": [8, 9]})
    study = parse_study(base)
    cells = trials(study)
    values = {("A", 1): 0.5, ("A", 2): 0.7, ("A", 3): math.nan}
    found = {
        cell.name: {"overall": values[cell.method, cell.choice["rate"]]}
        for cell in cells
        if cell.method == "A"
    }
    told = choose(study, cells, found, "higher")
    assert (told["A"]["best"], told["A"]["edges"]) == ({"rate": 2}, [])
    assert choose(study, cells, found, "lower")["A"]["best"] == {"rate": 1}
    assert choose(study, cells, found, "lower")["A"]["edges"] == ["rate"]
    assert told["B"]["best"] is None
    assert settled(study) == {"C": {"rate": 5}}
    both = study.methods["A"].model_copy(update={"try_": {"rate": [True, False]}})
    switch = study.model_copy(update={"methods": {"A": both}})
    assert edges(switch, "A", {"rate": True}) == []  # behind yes and no there is nothing
    penalty = study.methods["A"].model_copy(update={"try_": {"rate": [0.0, 0.05]}})
    weighed = study.model_copy(update={"methods": {"A": penalty}})
    assert edges(weighed, "A", {"rate": 0.0}) == []  # below 0 nothing is weighed
    assert edges(weighed, "A", {"rate": 0.05}) == ["rate"]


def test_grids_grow_at_the_edges_that_were_chosen() -> None:
    method = {"A": {"objective": "sft", "try": {"rate": [1e-4, 3e-4, 1e-3]}}}
    tune = {"seeds": [8], "widen": 2}
    study = parse_study(content(Path("b"), Path("d"), methods=method, tune=tune))
    high = wider(study, {"A": {"best": {"rate": 1e-3}, "edges": ["rate"]}})
    assert high is not None
    assert high.methods["A"].try_["rate"] == [1e-4, 3e-4, 1e-3, 0.00333333]
    low = wider(study, {"A": {"best": {"rate": 1e-4}, "edges": ["rate"]}})
    assert low is not None
    assert low.methods["A"].try_["rate"] == [3.33333e-05, 1e-4, 3e-4, 1e-3]
    assert wider(study, {"A": {"best": {"rate": 3e-4}, "edges": []}}) is None
    ranks = {"A": {"objective": "sft", "try": {"rate": [1, 3, 4]}}}
    whole = parse_study(content(Path("b"), Path("d"), methods=ranks, tune=tune))
    more = wider(whole, {"A": {"best": {"rate": 4}, "edges": ["rate"]}})
    assert more is not None
    assert more.methods["A"].try_["rate"] == [1, 3, 4, 5]
    assert wider(whole, {"A": {"best": {"rate": 1}, "edges": ["rate"]}}) is None  # below 1 is none
    with pytest.raises(StudyError, match="takes whole grids"):
        parse_study(content(Path("b"), Path("d"), methods=method, tune={**tune, "trials": 2}))


def test_which_settings_run_on_the_reported_seeds() -> None:
    """Beside the chosen one: with `likely` what a draw would choose, with `all` the rest."""
    method = {"A": {"objective": "sft", "try": {"rate": [1, 2, 3]}}}

    def run(report: str, chosen: Any = {"rate": 2}) -> list[tuple[str, int, int]]:  # noqa: B006
        tune = {"seeds": [8, 9], "report": report}
        study = parse_study(content(Path("b"), Path("d"), methods=method, tune=tune))
        best = {"A": chosen} if chosen else {}
        cells = unchosen(study, best, {"A": [{"rate": 2}, {"rate": 3}]})
        return [(cell.purpose, cell.choice["rate"], cell.seed) for cell in cells]

    assert run("chosen") == []
    assert run("likely") == [("grid", 3, 0), ("grid", 3, 1)]
    assert run("all") == [("grid", rate, seed) for rate in (1, 3) for seed in (0, 1)]
    # Where nothing was fit to be chosen, all of it is still there to be seen.
    assert run("all", None) == [("grid", rate, seed) for rate in (1, 2, 3) for seed in (0, 1)]
    assert run("likely", None) == []


def test_what_is_kept_is_compared_at_equal_gain() -> None:
    """Best truth of any trial .8, so .72 is asked: A's better keeper learnt too little, C too."""
    method = {
        name: {"objective": "sft", "try": {"rate": [1, 2]}}
        for name in "ABC"
    }  # fmt: skip
    tune = {"seeds": [8], "metric": "overall", "at_least": {"truth": 0.9}}
    study = parse_study(content(Path("b"), Path("d"), methods=method, tune=tune))
    values = {
        ("A", 1): (0.9, 0.5), ("A", 2): (0.4, 0.75), ("B", 1): (0.3, 0.8), ("B", 2): (0.5, 0.73),
        ("C", 1): (1.0, 0.1), ("C", 2): (1.0, 0.7),
    }  # fmt: skip
    found = {
        cell.name: dict(zip(("overall", "truth"), values[cell.method, cell.choice["rate"]], strict=True))
        for cell in trials(study)
    }  # fmt: skip
    told = choose(study, trials(study), found, "higher")
    assert [told[name]["best"] for name in "ABC"] == [{"rate": 2}, {"rate": 2}, None]
    with pytest.raises(StudyError, match=r"at_least.truth: must be in \(0, 1\], got 2.0"):
        parse_study({**content(Path("b"), Path("d")), "tune": {**tune, "at_least": {"truth": 2}}})


def test_a_claim_says_which_method_nothing_was_reported_of(tmp_path: Path) -> None:
    method = {name: {"objective": "sft", "try": {"rate": [1, 2]}} for name in "AB"}
    claim = {"claim": "A keeps more", "metric": "score", "more": "A", "than": ["B", "base"]}
    tune = {"seeds": [8], "metric": "score", "at_least": {"truth": 0.9}}
    changes = {"methods": method, "tune": tune, "claims": [claim]}
    study = parse_study(content(Path("b"), Path("d"), **changes))
    found = rows({"A": [0.5] * 4, "base": [0.1] * 4})
    found += [TidyRow("tune", name, {}, 8, "", "score", 0.2, {"rate": 1}) for name in "AB"]
    found += [TidyRow("grid", "B", {}, seed, "", "score", 0.9, {"rate": 1}) for seed in range(4)]
    (entry,) = judged(study, found)
    why = "no setting of B kept the limits of the choice"
    assert [part["absent"] for part in entry["parts"]] == [why, ""]
    assert entry["verdict"] == "undecided"
    write_json(tmp_path / "study.json", {"name": "s", "seeds": [0, 1, 2, 3]})
    write_json(tmp_path / "claims.json", [entry])
    assert f"A - B: {why}; A - base: +0.400" in ledger([tmp_path], tmp_path)


def test_what_is_gained_is_compared_under_one_bound() -> None:
    """A's better setting breaks the bound, and so do both of B's: B is not reported."""
    method = {name: {"objective": "sft", "try": {"rate": [1, 2]}} for name in "AB"}
    tune = {"seeds": [8], "metric": "overall", "at_most": {"text_loss": 0.05}}
    study = parse_study(content(Path("b"), Path("d"), methods=method, tune=tune))
    values = {
        ("A", 1): (0.9, 0.06),
        ("A", 2): (0.4, 0.05),
        ("B", 1): (0.3, 0.8),
        ("B", 2): (0.5, 1),
    }
    found = {}
    for cell in trials(study):
        overall, loss = values[cell.method, cell.choice["rate"]]
        found[cell.name] = {"overall": overall, "text_loss": loss}
    told = choose(study, trials(study), found, "higher")
    assert [told[name]["best"] for name in "AB"] == [{"rate": 2}, None]
    assert remarks(study.tune, "B", told["B"]) == [
        "B: no trial has a result that is at most {'text_loss': 0.05}, so it is not reported"
    ]


def test_seeds_without_a_number_are_told(tmp_path: Path) -> None:
    """On pages and in the ledger: a mean of six of twelve seeds is none of twelve."""
    line = {"mean": 0.908, "low": 0.906, "high": 0.91, "n": 6}
    assert number(line, 12) == "0.908 ±0.002 (6 of 12 seeds)"
    assert number({**line, "n": 12}, 12) == "0.908 ±0.002"
    part = {"says": "A - B", **line, "narrow": False, "absent": ""}
    entry = {"claim": "c", "metric": "score", "verdict": "holds", "parts": [part], "p": 0.01}
    write_json(tmp_path / "study.json", {"name": "s", "seeds": list(range(12))})
    write_json(tmp_path / "claims.json", [entry])
    assert "A - B: +0.908 [+0.906, +0.910] (6 of 12 seeds)" in ledger([tmp_path], tmp_path)
    tune = {"seeds": [100], "trials": 4}
    assert tried(tmp_path, {"tune": None}) == "not tuned"
    assert tried(tmp_path, {"tune": tune}) == "4 trials a method on seed [100]"
    grown = {name: {"trials": [{}] * trials} for name, trials in (("A", 4), ("B", 15))}
    write_json(tmp_path / "tuning.json", grown)
    assert tried(tmp_path, {"tune": tune}) == "4 to 15 trials a method on seed [100]"


def test_a_choice_among_fewer_trials_is_told() -> None:
    """Of five rates three are drawn; one has no number on a tuning seed, the best is the last."""
    rates = [1, 2, 3, 4, 5]
    method = {"A": {"objective": "sft", "try": {"rate": rates}}}
    tune = {"seeds": [8, 9], "metric": "overall", "trials": 3}
    study = parse_study(content(Path("b"), Path("d"), methods=method, tune=tune))
    low, middle, high = sorted({cell.choice["rate"] for cell in trials(study)})
    found = {
        cell.name: {"overall": float(cell.choice["rate"])}
        for cell in trials(study)
        if (cell.choice["rate"], cell.seed) != (middle, 9)
    }
    told = choose(study, trials(study), found, "higher")["A"]
    assert (told["best"], told["edges"]) == ({"rate": high}, ["rate"])
    assert remarks(study.tune, "A", told) == [
        "A: 1 of 3 trials have no overall on every tuning seed, and the choice was among the others",
        "A: rate chosen at the edge of the grid",
    ]
    # Beyond what was drawn the grid has more, and is not made longer.
    assert low < high
    if high < 5:
        assert wider(study, {"A": told}) is None


def test_what_no_trial_measures_is_refused_before_any_trial() -> None:
    def asks(**tune: Any) -> None:
        told = {"seeds": [8], "metric": "overall", **tune}
        study = parse_study(content(Path("b"), Path("d"), tune=told))
        metrics = {"overall": "higher", "truth": "higher", "text_loss": "lower", "length": None}
        require_measured(study, {name: Metric("", which) for name, which in metrics.items()})

    asks(at_least={"truth": 0.9}, at_most={"keep/text/held_out": 0.05, "text_loss": 1.0})
    with pytest.raises(StudyError, match=r"tune.at_most: 'text_los' .* did you mean 'text_loss'"):
        asks(at_most={"text_los": 0.05})
    with pytest.raises(StudyError, match=r"tune.at_least: 'trut' .* did you mean 'truth'"):
        asks(at_least={"trut": 0.9})
    with pytest.raises(StudyError, match=r"tune.metric: 'all' is not measured"):
        asks(metric="all")
    with pytest.raises(StudyError, match=r"'length' is better neither .* higher or lower"):
        asks(metric="length")
    with pytest.raises(StudyError, match=r"tune.at_least: 'text_loss' is better lower; .* higher$"):
        asks(at_least={"text_loss": 0.9})
    with pytest.raises(StudyError, match=r"tune.at_most: 'truth' is better higher; .* lower$"):
        asks(at_most={"truth": 0.9})


def test_which_way_is_better_is_known_of_what_runs_measure() -> None:
    """Settings are chosen by it: the highest loss of a term was."""
    lower = ("eval/terms/dpo", "eval/p/pair/score_error", "keep/old/held_out", "retention/w/kl")
    assert {beside(name, {}).better for name in (*lower, "start/eval/terms/dpo")} == {"lower"}
    assert {beside(f"eval/p/{name}", {}).better for name in ("accuracy", "success")} == {"higher"}
    assert {beside(name, {}).better for name in ("keep/old/price", "eval/p/entropy")} == {None}


def test_numbers_are_of_the_best_model_where_that_is_kept(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "eval/terms/sft": 2.0},
        {"step": 1, "tokens": 10, "eval/terms/sft": 1.0, "retention/w/kl": 0.1},
        {"step": 1, "evaluate/kept_step": 1.0},
        {"step": 2, "tokens": 20, "eval/terms/sft": 3.0, "retention/w/kl": 0.2},
        {"step": 2, "evaluate/kept_step": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json_line(line) for line in lines))
    (tmp_path / "recipe.yaml").write_text("objective: sft\n")
    found = spent(tmp_path)
    assert (found["eval/terms/sft"], found["retention/w/kl"]) == (1.0, 0.1)
    assert (found["start/eval/terms/sft"], found["updates"], found["tokens"]) == (2.0, 2, 20)
    assert result_of(tmp_path).losses == {"sft": 1.0}


def test_losses_are_of_the_model_that_is_kept_and_judged(tmp_path: Path) -> None:
    """The average, where a run keeps one: its goal must be that of the model whose retention is told."""
    lines = [
        {"step": 0, "eval/a/loss": 2.0},
        {"step": 3, "tokens": 30},
        {"step": 3, "eval/a/loss": 1.0, "average_eval/a/loss": 1.5, "average_eval/loss": 1.75},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = spent(tmp_path)
    assert found["eval/a/loss"] == 1.5
    assert found["start/eval/a/loss"] == 2.0
    assert found["eval/loss"] == 1.75
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "eval/a/loss": 1.0, "average_eval/a/loss": null}\n')
    assert "eval/a/loss" not in spent(tmp_path)  # the average has none: not that of the others
    with (tmp_path / "metrics.jsonl").open("a") as file:  # an evaluation that is lost
        file.write('{"step": 6, "eval/a/lo')
    with pytest.raises(ValueError, match=r"damaged \(1 of its lines\).*--retry"):
        spent(tmp_path)
