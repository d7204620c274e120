"""`study.json`: what a study's folder says of itself, and that its claims are older than its results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from onestage.report.studies import CELLS
from onestage.runfolder import environment, read_json, write_json
from onestage.studies import claims
from onestage.studies.cells import Cell, choices
from onestage.studies.file import StudyError, StudyFile
from onestage.studies.worlds import Metric


def list_cells(out: Path, cells: Sequence[Cell], *, beside: bool = False) -> None:
    """Write down which cells a study has; `beside`: and those that were, for it is not done."""
    before: dict[str, str] = {}
    if beside and (out / CELLS).exists():
        with suppress(OSError, ValueError, TypeError):
            before = {**read_json(out / CELLS)}
    write_json(out / CELLS, before | {cell.name: cell.digest for cell in cells})


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
        "written": _now(),
    }


def description_of(folder: Path) -> dict[str, Any]:
    """`study.json` of a study's folder. `StudyError` where it cannot be read, or is no such thing."""
    file = folder / "study.json"
    try:
        told = read_json(file)
    except (OSError, ValueError) as error:
        raise StudyError(f"{file}: cannot be read ({error})") from error
    if not (isinstance(told, dict) and isinstance(told.get("name"), str)):
        raise StudyError(f"{file}: is no description of a study; put back what the study wrote")
    for key, empty in (("metrics", {}), ("seeds", [])):
        told.setdefault(key, empty)
    return told


def tried(folder: Path, told: Mapping[str, Any]) -> str:
    """How many trials methods had, in words, by the folder's `tuning.json`: grids may have grown. told:
    `study.json`."""
    tune, file = told.get("tune"), folder / "tuning.json"
    if not tune:
        return "not tuned"
    methods = read_json(file).values() if file.is_file() else ()
    counts = {len(one["trials"]) for one in methods if one.get("trials")} or {tune["trials"]}
    most = f" to {max(counts)}" if len(counts) > 1 else ""
    return f"{min(counts)}{most} trials a method on seed {tune['seeds']}"


def claims_of(folder: Path) -> list[dict[str, Any]]:
    """`claims.json` of a study's folder. `StudyError` where it cannot be read, or is something else."""
    file = folder / "claims.json"
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise StudyError(f"{file}: cannot be read ({error})") from error
    if not (isinstance(found, list) and all(map(_judged, found))):
        raise StudyError(
            f"{file}: is no list of judged claims; `onestage claims {folder} --again FOLDER`, with the "
            "folder of its study file, writes it anew"
        )
    return found


def _judged(entry: Any) -> bool:
    """Whether something is a claim with its verdict and differences."""
    if not isinstance(entry, dict) or not {"claim", "metric", "verdict", "parts"} <= set(entry):
        return False
    parts, keys = entry["parts"], {"says", "mean", "low", "high", "n"}
    return isinstance(parts, list) and all(
        isinstance(part, dict) and keys <= set(part) for part in parts
    )


def settled_claims(file: StudyFile, folder: Path, why: str | None) -> dict[str, Any]:
    """What the folder keeps of its claims: what they ask, since when, every change with its reason, and
    every time that seeds were added to what had been judged.

    Raises `StudyError` where they ask other things than when the first cell was done, or nobody can tell
    any more, unless `why` says what for. (Words, sources, and claims that are withdrawn may change.)
    """
    try:
        before = read_json(folder / "study.json")
        old = before["claims"]
    except (OSError, ValueError, KeyError, TypeError):
        before, old = {}, None
    results = any((folder / "cells").glob("*/results.json"))
    kept = _settled(file, before, old if results else claims.asked(file), folder, why)
    added = list(before.get("added_seeds") or [])
    # What was looked at with fewer seeds was a look; one that was never judged was none.
    seen = (folder / "claims.json").is_file() and before.get("seeds")
    if seen and set(file.seeds) - set(seen):
        added.append({"date": _now(), "before": seen, "after": file.seeds})
    return kept | ({"added_seeds": added} if added else {})


def _now() -> str:
    return datetime.now().isoformat(timespec="seconds")


def judged_anew(
    file: StudyFile, told: Mapping[str, Any], folder: Path, why: str | None
) -> dict[str, Any]:
    """What `study.json`, which says `told`, is to keep of its claims where its results are judged by
    those of `file`. Raises `StudyError` where these ask other things than it has, or it is too old to
    have any, unless `why` says what for."""
    return _settled(file, told, told.get("claims"), folder, why)


def _settled(
    file: StudyFile,
    before: Mapping[str, Any],
    old: Sequence[Any] | None,
    folder: Path,
    why: str | None,
) -> dict[str, Any]:
    """What `study.json`, which said `before`, is to keep. old: what its claims asked before there were
    results; None: nobody knows."""
    asked, now = claims.asked(file), _now()
    changed = list(before.get("changed_claims") or [])
    kept = {"claims": asked, "claims_since": before.get("claims_since", now)}
    kept |= {"changed_claims": changed} if changed else {}
    new, gone = (asked, []) if old is None else _unlike(file, old)
    if not (new or gone):
        return kept
    if not (why and why.strip()):
        first, count = (new or gone)[0], max(len(new), len(gone))
        told = f"{folder}: {count} of its claims ask other things than on {kept['claims_since']}"
        if old is None:
            told = f"{folder}: its study.json does not say what its claims asked"
        raise StudyError(
            f"{told}, before there were results (metric {first['metric']!r}, direction "
            f"{first['direction']}, margin {first['margin']}); keep what it had, or type "
            "--changed-claims WHY, which the ledger will show"
        )
    changed.append({"date": now, "why": why.strip(), "before": old, "after": asked})
    return kept | {"changed_claims": changed}


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
