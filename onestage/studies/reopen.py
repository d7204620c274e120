"""A study's folder judged anew by what its file claims today. Nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onestage.runfolder import write_json, write_text
from onestage.studies.asks import Judged, over_all
from onestage.studies.claims import check, judged, require_known
from onestage.studies.described import description_of, judged_anew
from onestage.studies.file import StudyError, load_study
from onestage.studies.results import metrics_of, read_tidy, summary
from onestage.studies.study import Outcome
from onestage.studies.tables import markdown

NOTHING: Mapping[str, Any] = MappingProxyType({})


def judge_all(folders: Sequence[Path], files: Path, changed_claims: str | None = None) -> None:
    """`judge_again` for several studies; where one asks what others of them asked before, its page has
    the verdict of all their seeds, too."""
    outcomes = [judge_again(folder, files, changed_claims) for folder in folders]
    told = [description_of(folder) for folder in folders]
    every = {
        one["name"]: Judged(one["seeds"], outcome.claims)
        for one, outcome in zip(told, outcomes, strict=True)
    }
    for one, outcome in zip(told, outcomes, strict=True):
        over = {entry["claim"]: entry for entry in over_all(every)[one["name"]] if "asks" in entry}
        if over:
            _page(outcome, one, over)


def judge_again(folder: Path, files: Path, changed_claims: str | None = None) -> Outcome:
    """Write `claims.json` and `README.md` of a study's folder anew, from its `results.parquet` and its
    study file in `files`, whose description it takes, too.

    changed_claims: why that claims other things than the study did, which `study.json` keeps.
    `StudyError` where it does and this is not given, where it claims what was not measured, and where
    either is not there.
    """
    told = description_of(folder)
    file, results = files / f"{told['name']}.yaml", folder / "results.parquet"
    missing = [str(one) for one in (file, results) if not one.is_file()]
    if missing:
        raise StudyError(f"{folder}: judging it again takes {' and '.join(missing)}")
    study = load_study(file)
    check(study)
    rows = read_tidy(folder, study.axes)
    require_known(study, [*told["metrics"], *metrics_of(rows)])
    kept = judged_anew(study, told, folder, changed_claims)
    chooses = study.tune.metric if study.tune else ""
    lower = told["metrics"].get(chooses, {}).get("better") == "lower"
    added = len(told.get("added_seeds") or [])
    claims = judged(study, rows, "lower" if lower else "higher", added)
    outcome = Outcome(folder, rows, summary(rows, list(study.axes)), claims, {}, [])
    today = {**told, **kept, "description": study.description}
    if today != told:
        write_json(folder / "study.json", today)
    write_json(folder / "claims.json", claims)
    _page(outcome, today)
    return outcome


def _page(
    outcome: Outcome, told: Mapping[str, Any], over: Mapping[str, Mapping[str, Any]] = NOTHING
) -> None:
    command = told.get("command") or f"onestage study {told['name']}.yaml"
    write_text(outcome.folder / "README.md", markdown(outcome.folder, outcome, command, over))
