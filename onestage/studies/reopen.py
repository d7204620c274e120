"""A study's folder judged anew by what its file claims today. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onestage.runfolder import write_json, write_text
from onestage.studies.asks import Judged, over_all
from onestage.studies.claims import check, judged, require_known
from onestage.studies.described import description_of, judged_anew
from onestage.studies.file import StudyError, load_study
from onestage.studies.results import metrics_of, read_tidy, summary
from onestage.studies.study import Outcome
from onestage.studies.tables import markdown


def judge_all(
    folders: Sequence[Path], files: Path, changed_claims: str | None = None
) -> list[Outcome]:
    """Write `claims.json` and `README.md` of studies' folders anew, each from its `results.parquet` and
    its study file in `files`, whose description it takes, too. Where one asks what others of them asked
    before, its page has the verdict of all their seeds.

    changed_claims: why they claim other things than the studies did, which `study.json` keeps.
    `StudyError` where they do and this is not given, where they claim what was not measured, and where
    a file is not there.
    """
    done = [_judged(folder, files, changed_claims) for folder in folders]
    every = {told["name"]: Judged(told["seeds"], one.claims) for told, one in done}
    of_all = over_all(every)
    for told, one in done:
        over = {entry["claim"]: entry for entry in of_all[told["name"]] if "asks" in entry}
        command = told.get("command") or f"onestage study {told['name']}.yaml"
        write_text(one.folder / "README.md", markdown(one.folder, one, command, over))
    return [one for _, one in done]


def judge_again(folder: Path, files: Path, changed_claims: str | None = None) -> Outcome:
    """`judge_all` for one study."""
    (outcome,) = judge_all([folder], files, changed_claims)
    return outcome


def _judged(folder: Path, files: Path, why: str | None) -> tuple[dict[str, Any], Outcome]:
    """What `study.json` of a folder says now, and its results as its study file judges them."""
    told = description_of(folder)
    file, results = files / f"{told['name']}.yaml", folder / "results.parquet"
    missing = [str(one) for one in (file, results) if not one.is_file()]
    if missing:
        raise StudyError(f"{folder}: judging it again takes {' and '.join(missing)}")
    study = load_study(file)
    check(study)
    rows = read_tidy(folder, study.axes)
    require_known(study, [*told["metrics"], *metrics_of(rows)])
    kept = judged_anew(study, told, folder, why)
    chooses = study.tune.metric if study.tune else ""
    lower = told["metrics"].get(chooses, {}).get("better") == "lower"
    added = len(told.get("added_seeds") or [])
    claims = judged(study, rows, "lower" if lower else "higher", added)
    outcome = Outcome(folder, rows, summary(rows, list(study.axes)), claims, {}, [])
    today = {**told, **kept, "description": study.description}
    if today != told:
        write_json(folder / "study.json", today)
    write_json(folder / "claims.json", claims)
    return today, outcome
