"""The verdict: which model to keep, from numbers whose answer is plain by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.report_folders import make_run, make_study

from onestage.report.keeping import verdict_of, verdict_of_run
from onestage.report.page import read_folders, report
from onestage.report.verdict import Candidate, Change, Thresholds, judge


def change(gain: float, half: float | None = 0.0, **more: Any) -> Change:
    """Of a share that was at 40 points, in points."""
    low, high = (math.nan, math.nan) if half is None else (gain - half, gain + half)
    return Change(more.pop("name", "ifeval"), 0.4, 0.4 + gain / 100, low / 100, high / 100, **more)


@pytest.mark.parametrize(
    ("gain", "half", "allowed", "standing"),
    [
        (3, 2, 1, "gained"),
        (3, 4, 1, "unchanged"),
        (-3, 1, 1, "lost"),
        (-3, 2.5, 1, "open"),  # -5.5 to -.5: surely down, perhaps by more than 1
        (-3, 2.5, 6, "lost, as allowed"),
        (-3, 4, 1, "open"),
        (-0.5, 4, 1, "unchanged"),
        (0.04, None, 1, "unchanged"),
        (0.06, None, 1, "gained"),
        (-2, None, 1, "lost"),
        (-0.5, None, 1, "lost, as allowed"),
        (math.nan, None, 1, "lost"),
    ],
)
def test_what_became_of_a_measure(
    gain: float, half: float | None, allowed: float, standing: str
) -> None:
    assert change(gain, half).standing(Thresholds(allowed=allowed)) == standing


def test_losses_are_told_in_per_cent_and_fall_for_the_better() -> None:
    loss = Change("loss", 2.0, 1.5, -0.6, -0.4, better="lower", share=False)
    assert loss.gain == pytest.approx(25)
    assert loss.bounds == pytest.approx((20, 30))
    assert str(loss) == "loss 2 to 1.5 (-25.0 %, 95 % interval -30.0 to -20.0 %)"
    assert str(change(3, 2)) == "ifeval 40 to 43 (+3.0 points, 95 % interval +1.0 to +5.0 points)"


def test_few_seeds_are_told() -> None:
    """Two or three are a sign, whatever their interval; of items (0), or of four, that is not said."""
    for seeds, told in ((2, True), (3, True), (4, False), (0, False)):
        verdict = judge([Candidate("a", [change(3, 1, n=seeds)])])
        assert verdict is not None
        sentence = f"Intervals of {seeds} seeds: fewer than 4 are a sign, and settle nothing."
        assert (sentence in verdict.lines, sentence in verdict.asked) == (told, told)


def test_the_one_that_rose_most_and_lost_nothing() -> None:
    good, better = [change(3, 1)], [change(5, 1)]
    spoilt = [change(9, 1), change(-4, 1, name="gsm8k", kept=True)]
    models = [Candidate("a", good), Candidate("b", better), Candidate("c", spoilt)]
    verdict = judge(models)
    assert verdict is not None
    assert verdict.keep == "b"
    assert verdict.sentence == (
        "Keep b, the best of 3 models: it is better in 1 of 1 measure, and lost nothing beyond what is "
        "allowed."
    )
    assert verdict.grounds[0] == f"Gained: {better[0]}."
    verdict = judge(models, asked=Thresholds(allowed=6))
    assert verdict is not None
    assert verdict.keep == "c"
    assert "Lost, within what is allowed: gsm8k 40 to 36 (-4.0 points" in verdict.grounds[1]


@pytest.mark.parametrize("given", [{"allowed": math.nan}, {"wanted": math.nan}])
def test_a_limit_that_is_no_number_is_refused(given: dict[str, Any]) -> None:
    """Nothing falls by more than that, so a model that lost everything would have been kept."""
    with pytest.raises(ValueError, match="must be a number, got nan"):
        Thresholds.of(given)


def test_the_base_is_kept_and_why() -> None:
    def sentence(*changes: Change, **asked: Any) -> str:
        verdict = judge([Candidate("new", changes)], "old", Thresholds(**asked))
        assert verdict is not None
        assert verdict.keep == "old"
        return verdict.sentence

    lost = change(-4, 1, name="mmlu")
    assert sentence(change(9, 1), lost) == "Keep old: new lost more than is allowed in mmlu."
    assert sentence(change(2, 3)) == "Keep old: nothing shows that new is better."
    assert "gained 2.0 on average, and more than 5 is wanted" in sentence(change(2, 1), wanted=5)


def test_the_measure_that_decides() -> None:
    models = [
        Candidate("a", [change(9, 1), change(1, 0.5, name="gsm8k")]),
        Candidate("b", [change(2, 1), change(3, 0.5, name="gsm8k")]),
    ]
    for by, keep in (("", "a"), ("gsm8k", "b"), ("ifeval", "a")):
        verdict = judge(models, asked=Thresholds(by=by))
        assert verdict is not None
        assert verdict.keep == keep
    verdict = judge(models, asked=Thresholds(by="gsm9k"))
    assert verdict is not None
    assert "decided by gsm9k, which was not measured: the mean of all decided" in verdict.lines[-1]
    assert judge([Candidate("a", [])]) is None


def test_of_a_run_by_its_own_numbers(tmp_path: Path) -> None:
    """sft 2 to 1 and dpo .7 to .4 fell; the kept text rose from .867 (its first probe) to 1.0."""
    run = make_run(tmp_path / "run")
    verdict = verdict_of_run(run)
    assert verdict is not None
    assert verdict.keep == "run"
    told = yaml.safe_load((run / "recipe.yaml").read_text())
    told["verdict"] = {"wanted": 60, "by": "sft loss"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(told))
    verdict = verdict_of_run(run)
    assert verdict is not None
    assert verdict.keep == "the model it started from"
    assert "gained 50.0 on average, and more than 60 is wanted" in verdict.sentence
    # What is given goes before the recipe's, and the rest of that stays.
    verdict = verdict_of_run(run, {"wanted": 55})
    assert verdict is not None
    assert "gained 50.0 on average, and more than 55 is wanted" in verdict.sentence


def test_on_top_of_the_report(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", runs=False)
    (chapter,) = read_folders([study])
    verdict = verdict_of(chapter)
    assert verdict is not None
    page = report([study]).file.read_text()
    assert verdict.sentence.replace("'", "&#x27;") in page
    assert page.index(">Verdict<") < page.index(">Results<")
