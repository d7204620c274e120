"""`study.json`: what a study's folder says of itself, and that its claims are older than its results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from onestage.runfolder import environment, read_json
from onestage.studies import claims
from onestage.studies.cells import choices
from onestage.studies.file import StudyError, StudyFile
from onestage.studies.worlds import Metric


def described(
    file: StudyFile, metrics: Mapping[str, Metric], headline: Sequence[str], kept: Mapping[str, Any]
) -> dict[str, Any]:
    """What `study.json` says; `kept`: what it goes on saying of when claims were settled and changed."""
    here, tune = environment(), None
    if file.tune is not None:
        most = max(len(choices(file, name)) for name in file.methods)
        tune = {**file.tune.model_dump(), "trials": most}
    return {
        **{"name": file.name, "description": file.description, "base": file.base},
        **{"methods": list(file.methods), "axes": file.axes, "seeds": file.seeds},
        "notes": {name: one.note for name, one in file.methods.items() if one.note},
        "budget": file.budget.model_dump(exclude_none=True) if file.budget else None,
        "tune": tune,
        "world": file.world,
        "metrics": {name: asdict(metric) for name, metric in metrics.items()},
        "headline": list(headline),
        "front": file.front.model_dump() if file.front else None,
        **kept,
        **{key: here[key] for key in ("versions", "git", "machine")},
        "command": shlex.join(["onestage", *here["command"][1:]]),  # keys are covered in it
        "written": datetime.now().isoformat(timespec="seconds"),
    }


def settled_claims(file: StudyFile, folder: Path, why: str | None) -> dict[str, Any]:
    """What the folder keeps of its claims: what they ask, since when, and every change with its reason.

    Raises `StudyError` where they ask other things than when the first cell was done, unless `why` says
    what for. (Words, sources, and claims that are withdrawn may change.)
    """
    asked, now = claims.asked(file), datetime.now().isoformat(timespec="seconds")
    try:
        before = read_json(folder / "study.json")
        old = before["claims"]
    except (OSError, ValueError, KeyError, TypeError):
        return {"claims": asked, "claims_since": now}
    changed = list(before.get("changed_claims") or [])
    since = {"claims_since": before.get("claims_since", now), "changed_claims": changed}
    new, gone = _unlike(file, old)
    if not (new or gone) or not any((folder / "cells").glob("*/results.json")):
        return {"claims": asked, **since}
    if not why:
        first = (new or gone)[0]
        raise StudyError(
            f"{folder}: {max(len(new), len(gone))} of its claims ask other things than on "
            f"{since['claims_since']}, before there were results (metric {first['metric']!r}, direction "
            f"{first['direction']}, margin {first['margin']}); keep them, or type --changed-claims WHY, "
            "which the ledger will show"
        )
    changed.append({"date": now, "why": why, "before": old, "after": asked})
    return {"claims": asked, **since}


def judged_anew(file: StudyFile, told: Mapping[str, Any]) -> dict[str, Any]:
    """What `study.json`, which says `told`, is to say where its results are judged by other claims than
    it has: the change, too. Nothing where they are the same, or it is too old to have any."""
    old, asked = told.get("claims"), claims.asked(file)
    if old is None or not any(_unlike(file, old)):
        return {}
    why = f"judged again by what {file.name}.yaml claims"
    date = datetime.now().isoformat(timespec="seconds")
    change = {"date": date, "why": why, "before": old, "after": asked}
    return {"claims": asked, "changed_claims": [*(told.get("changed_claims") or []), change]}


def _unlike(file: StudyFile, old: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Claims that ask what none of the old ones did, and old ones that nothing asks and that were not
    withdrawn."""
    asked, withdrawn = claims.asked(file), _withdrawn(file)
    new = [one for one in asked if one not in old]
    return new, [one for one in old if one not in asked and one not in withdrawn]


def _withdrawn(file: StudyFile) -> list[dict[str, Any]]:
    """What the withdrawn claims asked."""
    taken = [claim for claim in file.claims if claim.withdrawn]
    open_ = [claim.model_copy(update={"withdrawn": ""}) for claim in taken]
    return claims.asked(file.model_copy(update={"claims": open_}))
