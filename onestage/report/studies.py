"""A study folder as it stands: its cells are the source, its tables are not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onestage.report.cells import Cell, Compared, Metric
from onestage.report.reading import Reader, is_number, mapping, texts
from onestage.report.trained import is_run, read_run

UNFINISHED = ("waiting", "running")


def is_study(folder: Path) -> bool:
    return (folder / "study.json").is_file() or (folder / "cells").is_dir()


def read_study(folder: Path) -> Compared:
    """Read a study folder. Nothing that is missing or damaged stops it."""
    reader = Reader()
    about = reader.json(folder / "study.json", folder.name, needed=True) or {}
    cells = _cells(folder / "cells", reader)
    metrics = _metrics(about, cells)
    methods = texts(about.get("methods"))
    methods += [m for m in dict.fromkeys(c.method for c in cells) if m not in methods]
    headline = [name for name in texts(about.get("headline")) if name in metrics]
    base = about.get("base")
    claims = reader.json(folder / "claims.json", folder.name, kind=list) or []
    return Compared(
        str(about.get("name") or folder.name),
        folder,
        methods,
        cells,
        metrics,
        headline or list(metrics)[:8],
        base if isinstance(base, str) else None,
        {str(k): list(v) for k, v in mapping(about.get("axes")).items() if isinstance(v, list)},
        _front(about.get("front"), metrics),
        about,
        reader.text(folder / "study.yaml", folder.name) or "",
        [claim for claim in claims if isinstance(claim, dict)],
        reader.troubles,
    )


def _metrics(about: dict[str, Any], cells: list[Cell]) -> dict[str, Metric]:
    """The metrics the study declares, then any other that a cell reached."""
    found = {}
    for name, told in mapping(about.get("metrics")).items():
        told = mapping(told)
        better = told.get("better")
        found[name] = Metric(
            name,
            str(told.get("says") or ""),
            better if better in ("higher", "lower") else None,
            str(told.get("group") or ""),
        )
    for cell in cells:
        for name in cell.results:
            found.setdefault(name, Metric(name, better=None))
    return found


def _front(told: object, metrics: dict[str, Metric]) -> tuple[str, str] | None:
    x, y = (str(mapping(told).get(name)) for name in ("x", "y"))
    return (x, y) if x in metrics and y in metrics else None


def _cells(folder: Path, reader: Reader) -> list[Cell]:
    if not folder.is_dir():
        reader.tell(folder.parent.name, "no cells: nothing was run")
        return []
    return [_cell(one, reader) for one in sorted(folder.iterdir()) if one.is_dir()]


def _cell(folder: Path, reader: Reader) -> Cell:
    where = f"cell {folder.name}"
    about = reader.json(folder / "cell.json", where, needed=True) or {}
    status = reader.json(folder / "status.json", where) or {}
    state, error = str(status.get("state") or ""), str(status.get("error") or "")
    found = reader.json(folder / "results.json", where, needed=state == "done") or {}
    results = {name: float(value) for name, value in found.items() if is_number(value)}
    strange = [name for name in found if name not in results]
    if strange:
        reader.tell(where, f"no finite number for {', '.join(strange)}")
    if state == "failed":
        reader.tell(where, f"failed: {error or 'no reason was given'}")
    elif state in UNFINISHED:
        reader.tell(where, f"unfinished ({state})")
    elif not status:
        reader.tell(where, "unfinished (no status)")
    run, quiet = folder / "run", Reader()
    trained = read_run(run, folder.name, quiet) if run.is_dir() and is_run(run) else None
    if state == "done":
        reader.troubles += quiet.troubles  # of a cell that is not done, one line is enough
    seed, seconds = about.get("seed"), status.get("seconds")
    return Cell(
        str(about.get("name") or folder.name),
        str(about.get("method") or folder.name),
        seed if isinstance(seed, int) else 0,
        str(about.get("purpose") or "test"),
        mapping(about.get("axes")),
        mapping(about.get("choice")),
        state,
        error,
        seconds if is_number(seconds) else None,
        {} if state == "failed" else results,
        reader.lines(folder / "samples.jsonl", where),
        trained,
    )
