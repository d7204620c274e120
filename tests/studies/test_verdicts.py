"""Verdicts, their p, and how many seeds would decide: against scipy's own tests and by hand."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scipy import stats

from onestage.report.cells import Compared
from onestage.report.claims import claims_section
from onestage.runfolder import write_json
from onestage.stats import interval, p_above, p_below, seeds_needed, student
from onestage.studies.file import StudyError, Tune
from onestage.studies.ledger import _sureness, ledger
from onestage.studies.nested import likely, widened
from onestage.studies.results import TidyRow
from onestage.studies.verdicts import Difference, difference, together

VALUES = [0.3, 0.1, 0.25, 0.2, 0.4, -0.05]


def test_one_sided_p_is_scipy_s() -> None:
    found = interval(VALUES)
    for limit in (-0.1, 0.0, 0.15):
        above = stats.ttest_1samp(VALUES, limit, alternative="greater").pvalue
        below = stats.ttest_1samp(VALUES, limit, alternative="less").pvalue
        assert p_above(found, limit) == pytest.approx(above)
        assert p_below(found, limit) == pytest.approx(below)
    assert math.isnan(p_above(interval([1.0]), 0.0))
    assert (p_above(interval([1.0, 1.0]), 0.5), p_below(interval([1.0, 1.0]), 0.5)) == (0.0, 1.0)


def test_p_is_5_percent_where_the_interval_ends() -> None:
    """Or the verdict would contradict the interval beside it."""
    found = interval(VALUES)
    assert 2 * p_above(found, found.low) == pytest.approx(0.05)
    assert 2 * p_below(found, found.high) == pytest.approx(0.05)


@pytest.mark.parametrize("effect", [0.4, 0.8, 2.0])
def test_as_many_seeds_as_find_it_in_80_percent(effect: float) -> None:
    """By simulation: the power of the number told is at least .8, that of one less is below (± .03)."""
    n = seeds_needed(effect, 1.0)
    assert n is not None

    def power(size: int) -> float:
        normal = stats.norm(effect, 1.0).rvs((4000, size), random_state=1)
        return float((stats.ttest_1samp(normal, 0.0, axis=1).pvalue <= 0.05).mean())

    assert power(n) > 0.77
    assert n == 4 or power(n - 1) < 0.83
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.01, 1.0) is None


def test_what_is_of_the_choice_no_seeds_make_smaller() -> None:
    """The number that is told stays as it is when so many have run, and there may be none."""
    plain, shared = seeds_needed(1.0, 2.0), seeds_needed(1.0, 2.0, choice=0.2)
    assert plain is not None
    assert shared is not None
    assert shared > plain
    # So many seeds have an error of sqrt(4 / n + .04): the power is that of other seeds with that error.
    error = math.sqrt(4 / shared + 0.2**2)
    assert 0.8 <= stats.nct.sf(stats.t.isf(0.025, shared - 1), shared - 1, 1 / error) < 0.82
    assert seeds_needed(1.0, 2.0, choice=0.4) is None
    for n in (6, 24, 96):
        found = student(0.0, math.sqrt(2.0**2 + n * 0.2**2), n)
        part = difference("", replace(found, choice=0.2), "same", 1.0)
        (whole,) = together([[replace(part, verdict="undecided")]])
        assert whole.seeds == shared


def test_few_seeds_decide_nothing() -> None:
    """Two or three equal differences have an interval of no width, and were "surely worse"."""
    for n in (2, 3):
        assert difference("a - b", interval([-0.1] * n), "more", 0.0).verdict == "undecided"
    assert difference("a - b", interval([-0.1] * 4), "more", 0.0).verdict == "reversed"


def test_a_difference_too_small_to_matter_is_none() -> None:
    """Surely above zero: .02 ± .001, where .05 would matter."""
    small = interval([0.02, 0.021, 0.019, 0.02])
    assert difference("a - b", small, "more", 0.0).verdict == "holds"
    assert difference("a - b", small, "more", 0.05).verdict == "equivalent"
    wide = interval([0.02, 0.03, 0.08, 0.01])
    assert difference("a - b", wide, "more", 0.05).verdict == "undecided"


def part(verdict: Any, p: float) -> Difference:
    """As far from its limit as one standard deviation over seeds: ten of them would decide it."""
    return Difference("", 0.0, 0.0, 0.0, 9, verdict, p, 1.0, 1.0)


def test_claims_of_a_study_are_several() -> None:
    """Holm by hand: .012 of 3 is .036, .03 of 2 is .06; the undecided counts, the withdrawn does not."""
    found = together(
        [[part("holds", 0.012)], [part("reversed", 0.03)], [part("undecided", 0.2)], None]
    )
    assert [one.verdict for one in found] == ["holds", "undecided", "undecided", "withdrawn"]
    assert found[0].p_holm == pytest.approx(0.036)
    assert (found[1].alone, found[1].p_holm) == ("reversed", pytest.approx(0.06))
    # One claim of three is decided; of two that are left the next takes a p of .025.
    assert found[1].seeds == found[2].seeds == seeds_needed(1.0, 1.0, alpha=0.025)
    assert found[0].seeds is None


def test_seeds_that_would_decide_pay_for_all_claims_and_looks() -> None:
    """By simulation: so many seeds of a true difference of one sd reach a p of .05 over 4 in 80 %."""
    values = [0.9, -0.7, 1.5, 0.1, 0.8, -0.2]
    one = difference("a - b", interval(values), "more", 0.0, looks=2)
    (whole, *_) = together([[one], [part("undecided", 0.5)]])
    assert (whole.verdict, one.looks) == ("undecided", 2)
    assert whole.seeds == seeds_needed(sum(values) / 6, one.sd, alpha=0.05 / 4)
    normal = stats.norm(sum(values) / 6, one.sd).rvs((4000, whole.seeds or 0), random_state=1)
    found = float((stats.ttest_1samp(normal, 0.0, axis=1).pvalue <= 0.05 / 4).mean())
    assert found == pytest.approx(0.8, abs=0.03)


def test_all_parts_hold_or_one_is_reversed() -> None:
    (both,) = together([[part("holds", 0.01), part("holds", 0.04)]])
    assert (both.verdict, both.p) == ("holds", 0.04)
    (one,) = together([[part("holds", 0.001), part("reversed", 0.01)]])
    assert (one.verdict, one.p) == ("reversed", 0.02)
    (open_,) = together([[part("holds", 0.001), part("undecided", 0.5)]])
    assert (open_.verdict, open_.seeds) == ("undecided", 10)


def test_better_than_each_is_refuted_by_one_that_is_as_good() -> None:
    """Three of .01 are .03, three of .02 are .06, as of what is reversed."""
    for other in (part("holds", 0.001), part("undecided", 0.5)):
        (one,) = together([[other, part("equivalent", 0.01), part("undecided", 0.5)]])
        assert (one.verdict, one.p) == ("refuted", pytest.approx(0.03))
        (weak,) = together([[other, part("equivalent", 0.02), part("undecided", 0.5)]])
        assert (weak.verdict, weak.alone) == ("undecided", "refuted")
        assert weak.seeds == seeds_needed(1.0, 1.0, alpha=0.05 / 3)
    (behind,) = together([[part("equivalent", 0.001), part("reversed", 0.01)]])
    assert (behind.verdict, behind.p) == ("reversed", 0.02)
    (alike,) = together([[part("equivalent", 0.001), part("equivalent", 0.04)]])
    assert (alike.verdict, alike.p) == ("equivalent", 0.04)


def test_the_ledger_asks_for_seeds_only_where_seeds_would_decide() -> None:
    def said(*parts: Difference) -> list[str]:
        (whole,) = together([parts])
        return _sureness(
            {**asdict(whole), "decided": "2026-11-26", "parts": [asdict(one) for one in parts]}
        )

    assert said(part("undecided", 0.5)) == ["(10 seeds would decide)"]
    assert said(part("holds", 0.5), part("undecided", 0.5)) == ["(10 seeds would decide)"]
    far = replace(part("undecided", 0.9), distance=0.01)
    assert said(far) == ["(more than 1,000 seeds would decide)"]
    assert said(replace(far, n=1)) == []


@pytest.mark.parametrize("damaged", ['[{"claim": 3}]', '{"a": 3}', "[3]", "["])
def test_a_damaged_study_is_named(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"name": "one"}')
    (tmp_path / "claims.json").write_text(damaged)
    with pytest.raises(StudyError, match=r"claims.json: (is no list of judged claims|cannot be)"):
        ledger([tmp_path], tmp_path)
    for damaged in ("{}", "3", "{"):
        (tmp_path / "study.json").write_text(damaged)
        with pytest.raises(StudyError, match=r"study.json: (is no description|cannot be read)"):
            ledger([tmp_path], tmp_path)


def test_a_study_counts_once(tmp_path: Path) -> None:
    for name in ("one", "copy"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "study.json", {"name": "one"})
        write_json(tmp_path / name / "claims.json", [])
    with pytest.raises(StudyError, match="one: given twice"):
        ledger([tmp_path / "one", tmp_path / "copy"], tmp_path)
    ledger([tmp_path / "one"], tmp_path)


def test_what_is_undecided_counts_where_it_is_asked_again(tmp_path: Path) -> None:
    """But what is decided stays as it was, whatever another study finds."""

    def study(name: str, *verdicts: str, again: str = "") -> Path:
        claims = [
            {"claim": name, "metric": "m", "verdict": one, "parts": [], "asked_again": again}
            for one in verdicts
        ]
        (tmp_path / name).mkdir(exist_ok=True)
        write_json(tmp_path / name / "claims.json", claims)
        write_json(tmp_path / name / "study.json", {"name": name})
        return tmp_path / name

    first = study("first", "undecided", "reversed", again="second")
    second = study("second", "holds", "undecided")
    alone, both = (ledger(some, tmp_path) for some in ([first], [first, second]))
    assert "reversed: 1, equivalent: 0, refuted: 0, undecided: 1, withdrawn: 0." in alone
    assert "holds: 1, reversed: 1, equivalent: 0, refuted: 0, undecided: 1, withdrawn: 0," in both
    assert both.count("Asked again in second.") == 1
    assert "Asked again" not in alone
    assert "undecided and asked again: 1." in both


def test_a_method_that_nothing_was_allowed_of_is_named(tmp_path: Path) -> None:
    """Not: too few seeds. One that has a setting, but no seed with the other, lacks seeds."""

    def part(says: str, n: int, absent: str = "") -> dict[str, object]:
        told = {"says": says, "n": n, "mean": 0.0, "low": 0.0, "high": 0.0, "absent": absent}
        return told | {"verdict": "undecided"}

    without = "no setting of Replay kept the limits of the choice"
    parts = [part("Pull - Replay (k 1)", 0, without), part("Pull - Mix", 0)]
    parts.append(part("Replayed - Mix", 1))
    entry = {"claim": "c", "metric": "m", "verdict": "undecided", "parts": parts}
    write_json(tmp_path / "claims.json", [entry])
    write_json(tmp_path / "study.json", {"name": "s"})
    said = ledger([tmp_path], tmp_path)
    assert "Pull - Replay (k 1): no setting of Replay kept the limits of the choice" in said
    assert "Pull - Mix: too few seeds (0)" in said
    assert "Replayed - Mix: too few seeds (1)" in said


def rows(shift: float, seeds: int = 6) -> list[TidyRow]:
    """Method A has two settings that tuning can hardly tell apart; on the reported seeds the one that it
    chose is better by `shift`. B has nothing to choose."""
    random, found = Random(0), []
    for setting, tuned in (({"rate": 1}, [0.50, 0.52, 0.48]), ({"rate": 2}, [0.49, 0.50, 0.50])):
        for seed, value in enumerate(tuned, 100):
            found.append(TidyRow("tune", "A", {}, seed, "", "overall", value, setting))
        purpose, lower = ("test", 0.0) if setting["rate"] == 1 else ("grid", shift)
        for seed in range(seeds):
            value = 0.6 - lower + random.gauss(0, 0.001)
            found.append(TidyRow(purpose, "A", {}, seed, "", "score", value, setting))
    for seed in range(seeds):
        found.append(TidyRow("test", "B", {}, seed, "", "score", 0.5 + random.gauss(0, 0.001)))
    return found


def test_an_interval_includes_the_choice_of_settings() -> None:
    tune = Tune(seeds=[100, 101, 102], report="all")
    places: Any = (("A", {}), ("B", {}))
    metrics = ("score", "score")

    def of(many: list[TidyRow]) -> tuple[Any, Any]:
        a = [r.value for r in many if (r.method, r.purpose) == ("A", "test")]
        b = [r.value for r in many if r.method == "B"]
        plain = interval([x - y for x, y in zip(a, b, strict=True)])
        wide, whole = widened(plain, many, tune, metrics, places, "higher")
        assert whole
        return plain, wide

    plain, wide = of(rows(0.2))
    assert wide.mean == plain.mean
    assert plain.low > 0.09
    assert wide.low < 0 < wide.high  # had the other been chosen, A would have lost
    plain, same = of(rows(0.0))
    assert same.high - same.low < 1.6 * (plain.high - plain.low)
    one = Tune(seeds=[100], report="all")
    assert widened(plain, rows(0.0), one, metrics, places, "higher") == (plain, False)


def test_settings_that_another_draw_would_choose() -> None:
    """A's rate 1 is best on 101 drawn thrice (.52 and .50), rate 2 on 102 drawn thrice (.48 and .50);
    C's rate 3 whatever is drawn."""
    tune = Tune(seeds=[100, 101, 102], metric="overall", report="likely")
    many = rows(0.1)
    for setting, values in (({"rate": 3}, [0.9, 0.8, 0.9]), ({"rate": 4}, [0.1, 0.7, 0.2])):
        for seed, value in enumerate(values, 100):
            many.append(TidyRow("tune", "C", {}, seed, "", "overall", value, setting))
    # Diverged on one seed, it is chosen nowhere.
    for seed, value in enumerate([float("nan"), 0.75, 0.75], 100):
        many.append(TidyRow("tune", "C", {}, seed, "", "overall", value, {"rate": 5}))
    assert likely(many, tune, "higher") == {"A": [{"rate": 1}, {"rate": 2}], "C": [{"rate": 3}]}
    assert likely(many, tune, "lower") == {"A": [{"rate": 1}, {"rate": 2}], "C": [{"rate": 4}]}


def test_only_settings_that_a_draw_chooses_need_to_have_run() -> None:
    """A third setting, which is never best and has not run on the reported seeds, changes nothing."""
    tune = Tune(seeds=[100, 101, 102], metric="overall", report="likely")
    places: Any = (("A", {}), ("B", {}))
    plain, many = interval([0.1, 0.11, 0.09, 0.1, 0.1, 0.1]), rows(0.2)
    metrics = ("score", "score")
    wide, whole = widened(plain, many, tune, metrics, places, "higher")
    assert whole
    assert wide.high - wide.low > 2 * (plain.high - plain.low)
    worse = [TidyRow("tune", "A", {}, seed, "", "overall", 0.1, {"rate": 9}) for seed in tune.seeds]
    assert widened(plain, [*many, *worse], tune, metrics, places, "higher") == (wide, True)
    best = [replace(row, value=0.9) for row in worse]  # which would be chosen, and has not run
    assert widened(plain, [*many, *best], tune, metrics, places, "higher") == (plain, False)
    # Where nothing was chosen there is nothing to include.
    alone: Any = (("B", {}), ("B", {}))
    assert widened(plain, many, tune, metrics, alone, "higher") == (plain, True)


def test_a_draw_chooses_among_settings_that_reach_and_keep_what_is_asked() -> None:
    """A's rate 2 breaks the bound in every draw and reaches half of the best truth; C, of one trial
    that does not, is never chosen."""
    many = rows(0.2)
    asked = {("A", 1): (0.1, 0.8), ("A", 2): (0.3, 0.4), ("C", 1): (0.3, 0.1), ("C", 2): (0.3, 0.1)}
    for (method, rate), values in asked.items():
        for seed in (100, 101, 102):
            for name, value in zip(("loss", "truth"), values, strict=True):
                many.append(TidyRow("tune", method, {}, seed, "", name, value, {"rate": rate}))
            if method == "C":
                many.append(TidyRow("tune", "C", {}, seed, "", "overall", 0.9, {"rate": rate}))
    plain, places = interval([0.1, 0.11, 0.09, 0.1, 0.1, 0.1]), (("A", {}), ("B", {}))
    for asks in ({"at_most": {"loss": 0.2}}, {"at_least": {"truth": 0.9}}):
        tune = Tune(seeds=[100, 101, 102], report="likely", **asks)  # type: ignore[arg-type]
        assert likely(many, tune, "higher") == {"A": [{"rate": 1}], "C": []}
        wide, whole = widened(plain, many, tune, ("score", "score"), places, "higher")
        assert whole
        assert wide.high - wide.low < 1.1 * (plain.high - plain.low)


def test_beside_a_verdict_stands_what_would_overturn_it(tmp_path: Path) -> None:
    """In the ledger and in a report, in which a p stands beside nothing that is open."""
    entry = {"claim": "it is so", "verdict": "holds", "p_holm": 0.0123, "parts": []}
    entry |= {"overturned_by": "more rain", "metric": "m"}
    undated = ["(p 0.012)", "Settled on no recorded day.", "Overturned by: more rain"]
    assert _sureness(entry) == undated
    entry["decided"] = "2026-11-26"
    assert _sureness(entry) == [undated[0], undated[2]]
    for verdict, first in (("holds", "p 0.012; "), ("undecided", "")):
        told = {**entry, "verdict": verdict}
        found = Compared("s", tmp_path, [], [], {}, [], claims=[told])
        assert f">{first}overturned by: more rain<" in str(claims_section(found))
