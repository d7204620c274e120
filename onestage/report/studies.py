"""A study folder as it stands: its cells are the source, its tables are not needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onestage.report.cells import Cell, Compared, Metric
from onestage.report.reading import Reader, is_number, mapping, number_of, texts, value_of
from onestage.report.steps import read_curves
from onestage.report.trained import Trained, is_run, read_run
from onestage.runfolder import read_json

TIDY = {"purpose", "method", "seed", "cell", "metric", "value", "choice"}
"""Columns of a study's table that are no axes."""
TABLES = ("results.csv", "results.parquet")
CELLS = "cells.json"
"""The digests of the cells that a study has, by name: folders of others may lie beside theirs."""


def is_study(folder: Path) -> bool:
    return (folder / "study.json").is_file() or (folder / "cells").is_dir()


def read_study(folder: Path) -> Compared:
    """Read a study folder. Nothing that is missing or damaged stops it."""
    reader = Reader()
    return _read(folder, reader, _cells(folder / "cells", reader))


def read_study_tables(folder: Path) -> Compared:
    """The same without its cells, whose runs take long to read: what its table says of them."""
    return _read(folder, Reader(), [])


def _read(folder: Path, reader: Reader, begun: list[Cell]) -> Compared:
    about = reader.json(folder / "study.json", folder.name, needed=True) or {}
    base = str(about["base"]) if about.get("base") else None
    cells, whole = derived(_rows(folder, reader), begun)
    metrics = _metrics(about, [*cells, *whole])
    methods = texts(about.get("methods"))
    if base is not None and base not in methods:
        methods.insert(0, base)
    curves = read_curves(folder, reader)
    ran = [*(cell.method for cell in cells), *(line.of.method for line in curves)]
    methods += [method for method in dict.fromkeys(ran) if method not in methods]
    tuning = reader.json(folder / "tuning.json", folder.name) or {}
    _tell_missing(about, [m for m in methods if not _unfit(tuning.get(m))], cells, reader)
    headline = [name for name in texts(about.get("headline")) if name in metrics]
    claims = reader.json(folder / "claims.json", folder.name, kind=list) or []
    found = Compared(
        str(about.get("name") or folder.name),
        folder,
        methods,
        cells,
        metrics,
        headline or list(metrics)[:8],
        base,
        {str(k): list(v) for k, v in mapping(about.get("axes")).items() if isinstance(v, list)},
        _front(about.get("front"), metrics),
        about,
        reader.text(folder / "study.yaml", folder.name) or "",
        [claim for claim in claims if isinstance(claim, dict)],
        reader.troubles,
        tuning,
        whole=whole,
        curves=curves,
    )
    if len(found.grounds) > 1 and mapping(about.get("tune")).get("report") == "all":
        told = f"nothing is told: axes change the base ({len(found.grounds)} of them)"
        reader.tell("at equal gain", told)
    return found


def derived(rows: Iterable[Mapping[str, Any]], cells: list[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells with what the study's table adds to their own results, and numbers that are of several
    cells together (their rows name no cell). Without cells, as where only tables were kept, the table
    says what they reached."""
    by_name, kept = {cell.name: cell for cell in cells}, bool(cells)
    whole: list[Cell] = []
    for row in rows:
        metric, value, name = row.get("metric"), number_of(row.get("value")), row.get("cell") or ""
        if not metric or value is None:
            continue
        purpose, method = str(row.get("purpose")), str(row.get("method"))
        axes = {k: value_of(v) for k, v in row.items() if k and v and k not in TIDY}
        seed = int(number_of(row.get("seed")) or 0)
        choice = mapping(value_of(row.get("choice") or ""))
        made = Cell(name, method, seed, purpose, axes, choice)
        # Where there are cells they are the source, and the table only adds to them.
        if name and not kept:
            by_name.setdefault(name, made)
        if name in by_name:
            cell = by_name[name]
            if (cell.results or not kept) and metric not in cell.results:
                by_name[name] = replace(cell, results={**cell.results, metric: value})
        elif not name and purpose == "test":
            whole.append(replace(made, results={metric: value}))
    return list(by_name.values()), whole


def _rows(folder: Path, reader: Reader) -> list[dict[str, Any]]:
    """Of the study's table, as far as it can be read: of a study in a repository only the smaller one,
    in Parquet, may have been kept."""
    lines, packed = (folder / name for name in TABLES)
    if packed.is_file() and not lines.is_file():
        return _packed(packed, reader)
    return reader.table(lines, folder.name)


def _packed(file: Path, reader: Reader) -> list[dict[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        found: list[dict[str, Any]] = read_table(file).to_pylist()
    except (OSError, ArrowException) as error:
        reader.tell(file.parent.name, f"{file.name} cannot be read ({str(error).splitlines()[0]})")
        return []
    return found


def _unfit(told: Any) -> bool:
    """Whether a method was tried and no setting of it was fit to be run (`tune.at_most`): then nothing
    of it is missing, and what tuning chose tells it."""
    return bool(mapping(told).get("trials")) and mapping(told).get("best") is None


def _tell_missing(
    about: dict[str, Any], methods: list[str], cells: list[Cell], reader: Reader
) -> None:
    """Seeds of the study that a method, at values of axes that it has begun with, has no cell for."""
    given = about.get("seeds")
    seeds = [seed for seed in given if isinstance(seed, int)] if isinstance(given, list) else []
    tested = [cell for cell in cells if cell.purpose == "test"]
    begun = {method: {c.setting for c in tested if c.method == method} for method in methods}
    empty = [method for method, settings in begun.items() if not settings]
    if empty and seeds:
        reader.tell("not begun", ", ".join(empty))
    for settings in begun.values():
        for one in sorted(settings, key=lambda one: one.label):
            have = {cell.seed for cell in tested if cell.setting == one}
            missing = [str(seed) for seed in seeds if seed not in have]
            if missing:
                reader.tell(one.label, f"not begun: seeds {', '.join(missing)}")


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
        if not (folder.parent / TABLES[1]).is_file():  # beside it they were left out on purpose
            reader.tell(folder.parent.name, "there are no cells")
        return []
    listed = reader.json(folder.parent / CELLS, folder.parent.name)
    found = [one for one in sorted(folder.iterdir()) if one.is_dir()]
    kept = [one for one in found if listed is None or _is_of(one, listed)]
    if left := len(found) - len(kept):
        reader.tell(
            folder.parent.name,
            f"{left} of {len(found)} cell folders are of no cell that the study has now, or of what "
            "that was before, and are left out",
        )
    return [_cell(one, reader) for one in kept]


def _is_of(folder: Path, listed: Mapping[str, Any]) -> bool:
    """Whether a folder is of a cell that a study has: by its name and what decides its numbers."""
    if folder.name not in listed:
        return False
    try:
        told = read_json(folder / "cell.json")
        return not isinstance(told, dict) or told.get("digest") == listed[folder.name]
    except (OSError, ValueError):
        return True  # which is told


def _cell(folder: Path, reader: Reader) -> Cell:
    where = f"cell {folder.name}"
    about = reader.json(folder / "cell.json", where, needed=True) or {}
    status = reader.json(folder / "status.json", where) or {}
    state, error = str(status.get("state") or ""), str(status.get("error") or "")
    results = _results(folder, where, reader, needed=state == "done")
    if state != "done":
        reader.tell(where, _unfinished(state, error))
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
        _trained(folder, reader, quiet=state != "done"),
    )


def _unfinished(state: str, error: str) -> str:
    """What is told of a cell that is not done."""
    if state == "failed":
        return f"failed: {error or 'no reason was given'}"
    return f"unfinished ({state or 'no status'})"


def _results(folder: Path, where: str, reader: Reader, *, needed: bool) -> dict[str, float]:
    found = reader.json(folder / "results.json", where, needed=needed) or {}
    results = {name: float(value) for name, value in found.items() if is_number(value)}
    strange = [name for name in found if name not in results]
    if strange:
        reader.tell(where, f"no finite number for {', '.join(strange)}")
    return results


def _trained(folder: Path, reader: Reader, *, quiet: bool) -> Trained | None:
    """The cell's run. `quiet`: of a cell that is not done, one line of trouble is enough."""
    run = folder / "run"
    if not (run.is_dir() and is_run(run)):
        return None
    return read_run(run, folder.name, Reader() if quiet else reader)
