"""One line of a study's tables by itself: a method with the values that were chosen for it, beside the
base, so that a reader can repeat what a report says with one command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from onestage.config import as_numbers, nearest
from onestage.studies.cells import slug
from onestage.studies.file import Method, StudyError, StudyFile
from onestage.studies.results import FRONT


def alone(study: StudyFile, given: str | Mapping[str, Any]) -> StudyFile:
    """The study of one line: nothing is tuned, nothing claimed, and its name is longer.

    given: a table of `method`, and where wanted `seeds` (or `seed`), values of axes, and of what the
    method would try. Raises `StudyError` for what the study does not have, and for a variable of which
    it would try several values.
    """
    told = _table(given)
    method, seeds = told.pop("method", None), told.pop("seeds", told.pop("seed", study.seeds))
    seeds = seeds if isinstance(seeds, list) else [seeds]
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise StudyError(f"--cell: seeds must be whole numbers, got {seeds}")
    name = "-".join([study.name, *(slug(str(part)) for part in (method, *told.values()))])
    methods: dict[str, Method] = {}
    if method == study.base and study.base is not None:
        axes = _axes(study, told, [])
    else:
        methods, axes = _method(study, method, told)
    return study.model_copy(
        update={
            **{"name": name, "seeds": seeds, "axes": axes, "methods": methods},
            **{"tune": None, "claims": [], "front": None},
        }
    )


def lacking(study: StudyFile, line: StudyFile, file: str | Path) -> list[str]:
    """What a line of a study, which is in `file`, cannot have by itself, and how to have it."""
    if study.front is None or line.front is not None:
        return []
    # Where 0 and 1 lie is found among all runs of a seed.
    seeds = ",".join(map(str, line.seeds))
    return [
        f"one line has no gaps ({', '.join(FRONT)}), which need the other runs of its seed: "
        f"`onestage study {file} --set seeds=[{seeds}]` has them"
    ]


def _table(given: str | Mapping[str, Any]) -> dict[str, Any]:
    try:
        told = yaml.safe_load(given) if isinstance(given, str) else given
    except yaml.YAMLError:
        told = None
    if not isinstance(told, Mapping):
        raise StudyError(
            f"--cell: expected a table such as '{{method: SFT, seed: 0, rate: 1e-3}}', got {given!r}"
        )
    return dict(as_numbers(dict(told)))


def _method(
    study: StudyFile, method: Any, told: Mapping[str, Any]
) -> tuple[dict[str, Method], dict[str, list[Any]]]:
    if not isinstance(method, str) or method not in study.methods:
        known = [*study.methods, *([study.base] if study.base else [])]
        raise StudyError(f"--cell: no method {method!r}{nearest(str(method), known)}")
    one = study.methods[method]
    chosen = {key: [told[key]] for key in one.try_ if key in told}
    axes = _axes(study, {key: told[key] for key in told if key not in chosen}, list(one.try_))
    for key, values in one.try_.items():
        if key not in told and len(values) > 1:
            raise StudyError(
                f"--cell: {method} would try {key} {values}; add '{key}: VALUE' to say which"
            )
    return {method: one.model_copy(update={"try_": {**one.try_, **chosen}})}, axes


def _axes(study: StudyFile, told: Mapping[str, Any], tried: list[str]) -> dict[str, list[Any]]:
    """The study's axes, of those that are told only that value."""
    for key, value in told.items():
        if key not in study.axes:
            known = ["method", "seeds", "seed", *study.axes, *tried]
            raise StudyError(
                f"--cell: {key!r} is no axis and nothing it tries{nearest(key, known)}"
            )
        if value not in study.axes[key]:
            raise StudyError(f"--cell: {key} never is {value!r}; there are {study.axes[key]}")
    return {key: [told[key]] if key in told else values for key, values in study.axes.items()}
