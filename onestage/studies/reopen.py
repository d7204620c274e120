"""A study's folder judged anew by what its file claims today. Nothing is trained."""

from __future__ import annotations

from pathlib import Path

from onestage.runfolder import read_json, write_json, write_text
from onestage.studies.claims import judged
from onestage.studies.described import judged_anew
from onestage.studies.file import StudyError, load_study
from onestage.studies.results import read_tidy, summary
from onestage.studies.study import Outcome
from onestage.studies.tables import markdown


def judge_again(folder: Path, files: Path) -> Outcome:
    """Write `claims.json` and `README.md` of a study's folder anew, from its `results.parquet` and its
    study file in `files`, whose description it takes, too. Where that claims other things than the study
    did, `study.json` keeps that.

    `StudyError` where either is not there.
    """
    told = read_json(folder / "study.json")
    file, results = files / f"{told['name']}.yaml", folder / "results.parquet"
    missing = [str(one) for one in (file, results) if not one.is_file()]
    if missing:
        raise StudyError(f"{folder}: judging it again takes {' and '.join(missing)}")
    study = load_study(file)
    rows = read_tidy(folder, study.axes)
    chooses = study.tune.metric if study.tune else ""
    lower = told["metrics"].get(chooses, {}).get("better") == "lower"
    claims = judged(study, rows, "lower" if lower else "higher")
    outcome = Outcome(folder, rows, summary(rows, list(study.axes)), claims, {}, [])
    today = {**told, **judged_anew(study, told), "description": study.description}
    if today != told:
        write_json(folder / "study.json", today)
    write_json(folder / "claims.json", claims)
    write_text(
        folder / "README.md",
        markdown(folder, outcome, told.get("command", f"onestage study {file}")),
    )
    return outcome
