"""The study files that come with the project: each can be read, and every recipe and claim in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny import write_rows

from onestage.report.claims import asked_again
from onestage.runfolder import read_json
from onestage.studies.asks import Judged, over_all
from onestage.studies.cells import reported
from onestage.studies.demo import FILE
from onestage.studies.file import load_study
from onestage.studies.study import Study
from onestage.studies.tuning import settled

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "studies").glob("*.yaml"))
RESULTS = sorted((ROOT / "docs" / "studies").iterdir())


@pytest.mark.parametrize("file", [*FILES, FILE], ids=lambda file: file.stem)
def test_a_study_file_can_be_done(file: Path, tmp_path: Path, model_folder: Path) -> None:
    """Making a study checks worlds, recipes and claims; nothing is written."""
    world = {"name": "folder", "model": str(model_folder), "data": str(tmp_path)}
    write_rows(tmp_path / "text.test.jsonl", [{"text": "one two three"}])
    real = file.stem.startswith("real_")  # whose model and data are its user's
    study = load_study(file, [f"world={json.dumps(world)}"] if real else [])
    Study(study, tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "out").exists()
    # The scores are kept there, not the updates; and others ask about lengths.
    by_data = file.stem == "uft_tables_4_6" or file.stem.startswith("lengths")
    assert by_data or study.budget is not None
    assert reported(study, settled(study))
    if file != FILE:
        assert study.name == file.stem
        # Fewer than four seeds decide nothing, and a real model has no more than that.
        assert len(study.seeds) >= (4 if real else 5)
        assert study.claims
        for claim in study.claims:
            assert claim.source, claim.claim
            assert claim.paper, claim.claim
            assert claim.overturned_by or claim.withdrawn or claim.asked_again, claim.claim


def test_what_is_asked_again_is_asked_on_other_seeds() -> None:
    """Than any ask before it, or a seed would count twice."""
    studies = {file.stem: load_study(file) for file in FILES}
    again = [
        (study, studies[claim.asked_again], claim)
        for study in studies.values()
        for claim in study.claims
        if claim.asked_again in studies
    ]
    for _, second, claim in again:
        (same,) = [other for other in second.claims if claim.claim == other.claim]
        assert (claim.metric, claim.direction) == (same.metric, same.direction)
    assert len(again) >= 2
    one = {"verdict": "undecided", "parts": [{"says": "", "mean": 0, "low": -1, "high": 1, "n": 4}]}
    asked = {
        name: Judged(
            study.seeds,
            [{"claim": c.claim, "asked_again": c.asked_again, **one} for c in study.claims],
        )
        for name, study in studies.items()
    }
    most = max(entry.get("asks", 1) for entries in over_all(asked).values() for entry in entries)
    assert most >= 3


def test_whoever_asks_again_says_who_asked_before() -> None:
    """So that p is doubled on its own page, too. As published: what is undecided, and had something
    to compare, was a look."""
    studies = {file.stem: load_study(file) for file in FILES}
    published = {
        (folder.name, entry["claim"]): entry
        for folder in RESULTS
        for entry in read_json(folder / "claims.json")
    }

    def before(name: str, claim: str) -> list[str]:
        found = []
        for other, study in studies.items():
            for one in study.claims:
                entry = published.get((other, claim), {})
                if (one.claim, one.asked_again) == (claim, name) and asked_again(entry):
                    looked = any(part["n"] > 1 for part in entry["parts"])
                    found += [*before(other, claim), *([other] if looked else [])]
        return found

    asked = 0
    for name, study in studies.items():
        for claim in study.claims:
            asked += len(found := before(name, claim.claim))
            assert set(found) <= set(claim.asked_before), (name, claim.claim)
            for other in claim.asked_before:
                assert claim.claim in [one.claim for one in studies[other].claims]
    assert asked > 30


def test_there_are_study_files() -> None:
    assert len(FILES) >= 9
