"""One line of a study by itself: the commands that reports print make the very cells of the study."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from support.small_studies import content

from onestage.report.repeating import line_commands
from onestage.report.studies import read_study
from onestage.runfolder import read_json
from onestage.studies.alone import alone
from onestage.studies.cells import reported
from onestage.studies.file import StudyError, StudyFile, load_study, parse_study
from onestage.studies.tuning import settled

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "docs" / "studies").iterdir())


def small() -> StudyFile:
    given = content(Path("base"), Path("data"), tune={"seeds": [9]})
    for method in given["methods"].values():
        method["try"] = {"rate": [0.01, 0.1]}
    return parse_study(given)


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_printed_commands_make_the_same_cells(folder: Path) -> None:
    """By their digests: recipe, world, budget, seed and split are the study's."""
    found, tuned = read_study(folder), folder / "tuning.json"
    words = {label: shlex.split(line) for label, line in line_commands(found).items()}
    assert set(words) == {one.label for one in found.settings()}
    file, *flags = next(iter(words.values()))[2:]
    sets = [told for flag, told in pairwise(flags) if flag == "--set"]
    study = load_study(ROOT / file, sets)
    chosen = settled(study)
    if tuned.exists():
        told = read_json(tuned)
        # A method of which no setting was fit to be run has none.
        best = {name: told[name]["best"] for name in study.methods if name in told}
        chosen |= {name: one for name, one in best.items() if one is not None}
    whole = {cell.name: cell.digest for cell in reported(study, chosen)}
    again = {}
    for line in words.values():
        assert line[:-2] == ["onestage", "study", file, *flags[:-2]]
        assert line[-2] == "--cell"
        one = alone(study, line[-1])
        again |= {cell.name: cell.digest for cell in reported(one, settled(one))}
    # A line of a method has its base beside it, which is a line of its own, too.
    assert again == whole


def test_seeds_and_name_are_the_lines_own() -> None:
    one = alone(small(), "{method: SFT, seed: 7, rate: 1e-3}")
    assert one.seeds == [7]
    assert list(one.methods) == ["SFT"]
    assert one.methods["SFT"].try_ == {"rate": [1e-3]}
    assert (one.tune, one.claims, one.front) == (None, [], None)
    assert one.name == "counting-SFT-0.001"
    assert alone(small(), {"method": "base", "seeds": [1]}).methods == {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("SFT", "expected a table such as"),
        ("{method: [SFT]}", r"no method \['SFT'\]"),
        ("{method: [", "expected a table such as"),
        ("{method: SFTT, rate: 1}", "no method 'SFTT'; did you mean 'SFT'"),
        ("{method: SFT}", "would try rate .* add 'rate: VALUE'"),
        ("{method: SFT, rat: 1e-3}", "'rat' is no axis and nothing it tries; did you mean 'rate'"),
        ("{method: SFT, rate: 1e-3, seeds: [a]}", "seeds must be whole numbers"),
        ("{method: SFT, rate: 1e-3, seeds: []}", "seeds must be whole numbers"),
    ],
)
def test_what_the_study_does_not_have_is_refused(given: str, told: str) -> None:
    with pytest.raises(StudyError, match=told):
        alone(small(), given)
