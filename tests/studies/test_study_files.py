"""The study files that come with the project: each can be read, and every recipe and claim in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onestage.studies.cells import reported
from onestage.studies.demo import FILE
from onestage.studies.file import load_study
from onestage.studies.study import Study
from onestage.studies.tuning import settled

FILES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("file", [*FILES, FILE], ids=lambda file: file.stem)
def test_a_study_file_can_be_done(file: Path, tmp_path: Path) -> None:
    """Making a study checks worlds, recipes and claims; nothing is written."""
    study = load_study(file)
    Study(study, tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "out").exists()
    assert study.budget is not None
    assert reported(study, settled(study))
    if file != FILE:
        assert study.name == file.stem
        assert len(study.seeds) >= 5
        assert study.claims
        assert all(claim.source and claim.paper for claim in study.claims)


def test_there_are_study_files() -> None:
    assert len(FILES) >= 9
