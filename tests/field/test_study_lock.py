"""Two studies in one folder would do the same cells over each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_studies import content, ground

from onestage.runfolder import OutputError
from onestage.studies.file import parse_study
from onestage.studies.study import Study
from onestage.training.lock import held


def test_a_second_study_in_a_folder_is_refused(model_folder: Path, tmp_path: Path) -> None:
    file = parse_study(content(*ground(tmp_path / "ground", model_folder)))
    out = tmp_path / "out"
    with held(out, print):
        with pytest.raises(OutputError, match="in use by process"):
            Study(file, out, tmp_path / "cache", say=print).go()
        assert [path.name for path in out.iterdir()] == [".lock"]
