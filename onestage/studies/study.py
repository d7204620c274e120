"""A study from its file to its tables: grounds, trials, choices, tests, claims.

Everything is found again: a cell that is done is not done twice, one that was interrupted is begun again
or goes on from its checkpoint, one whose recipe has changed is redone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from onestage.config import RecipeError
from onestage.runfolder import Say, default_cache, read_json, write_json, write_text
from onestage.studies import claims, executors
from onestage.studies.alone import alone, lacking
from onestage.studies.cells import Cell, reported, require_whole, trials, unchosen
from onestage.studies.contents import with_contents
from onestage.studies.described import described, list_cells, settled_claims
from onestage.studies.executors import Crew, Executor, Place
from onestage.studies.executors.local import Local
from onestage.studies.file import StudyError, StudyFile, load_study
from onestage.studies.nested import likely
from onestage.studies.over_steps import write_curves
from onestage.studies.results import (
    FRONT,
    TidyRow,
    beside,
    differences,
    gather,
    metrics_of,
    noted,
    summary,
    traded,
    write_table,
    write_tidy,
)
from onestage.studies.run_cell import begin, done_again, mark_failed, state_of, world_of
from onestage.studies.tuning import choose, remarks, require_measured, settled, wider
from onestage.studies.worlds import Ground, Metric, World
from onestage.training.lock import held

SPENT = {
    "updates": Metric("optimiser steps", None, "cost"),
    "tokens": Metric("tokens trained on", None, "cost"),
    "seconds": Metric("seconds a run took (on a machine that others used, too)", "lower", "cost"),
}


@dataclass(frozen=True)
class Outcome:
    """What there is after a study."""

    folder: Path
    rows: list[TidyRow]
    table: list[dict[str, Any]]
    """Means and intervals."""
    claims: list[dict[str, Any]]
    failed: dict[str, str]
    """Names of cells that failed, and why."""
    notes: list[str]


def study(
    file: str | Path,
    *,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    on: str | Mapping[str, Any] | Executor = "local",
    retry: bool = False,
    cache: Path | None = None,
    say: Say = print,
    changed_claims: str | None = None,
    cell: str | Mapping[str, Any] | None = None,
) -> Outcome:
    """Compare recipes over seeds and settings as a study file says; what is done already is found again.

    out: the study's folder (default `runs/` and its name); overrides: `section.key=value`; jobs:
    cells at once (default: here GPUs, or else cores; on a cluster as many as fit); on: where cells
    are done (`local`, `ray`, `ray:HOST:PORT`, or a table of options); retry: do failed cells again;
    cache: bases, encoded data, references; changed_claims: why claims are others than before the first
    results, which the folder and the ledger keep; cell: only this line of its tables, in a folder of its
    own: a table of `method`, `seeds`, and values of axes and of what it would try.
    """
    whole = load_study(file, overrides)
    content = whole if cell is None else alone(whole, cell)
    folder = out or Path("runs") / content.name
    where = executors.make(on)
    places = (folder, cache or default_cache())
    made = Study(content, *places, jobs=jobs, on=where, retry=retry, say=say)
    made.changed_claims = changed_claims
    outcome = made.go()
    outcome.notes.extend(lacking(whole, content, file))
    return outcome


@dataclass
class Study:
    """A study in its folder."""

    file: StudyFile
    out: Path
    cache: Path
    jobs: int | None = 1
    on: Executor = field(default_factory=Local)
    retry: bool = False
    say: Say = print
    changed_claims: str | None = None

    def __post_init__(self) -> None:
        self.given = self.file
        self._told: set[str] = set()
        self.world = _open_world(self.file)
        check(self.file, self.world)

    def go(self) -> Outcome:
        """Do what is left, and write all tables; `OutputError` where another study is at it."""
        with held(self.out, self.say):
            with self.on.opened(self._place()) as crew:
                self._begin()
                cells, failed, notes = self._cells(crew)
            return self._tables(cells, failed, notes)

    def _place(self) -> Place:
        file = self.file
        return Place(*(self.out, self.cache, self.jobs, file.resources, file.keep_models, self.say))

    def _cells(self, crew: Crew) -> tuple[list[Cell], dict[str, str], list[str]]:
        """Grounds, trials, choices, tests: the cells, those that failed, and what to tell of them."""
        chosen, notes = settled(self.file), claims.loose(self.file)
        grounds = dict[str, Ground | str]()
        tried, failed = self._trials(crew, grounds, notes)
        if tried:
            for name, one in self._tuned(tried).items():
                notes += remarks(self.file.tune, name, one)
                if one["best"] is not None:
                    chosen[name] = one["best"]
        tested = [*reported(self.file, chosen), *unchosen(self.file, chosen, self._likely(tried))]
        failed |= self._do(crew, tested, "test", grounds)
        return [*tried, *tested], failed, notes

    def _trials(
        self, crew: Crew, grounds: dict[str, Ground | str], notes: list[str]
    ) -> tuple[list[Cell], dict[str, str]]:
        """Do the trials, and those of grids that are widened because a choice lies on their edge."""
        tried = trials(self.file)
        failed = self._do(crew, tried, "trial", grounds)
        for _ in range(self.file.tune.widen if self.file.tune and tried else 0):
            more = wider(self.file, self._tuned(tried))
            if more is None:
                break
            self.file, tried = more, trials(more)
            failed |= self._do(crew, tried, "trial", grounds)
        for name, method in self.file.methods.items():
            if method.try_ != self.given.methods[name].try_:
                grids = ", ".join(f"{key} {values}" for key, values in method.try_.items())
                notes.append(f"{name}: a choice lay on the edge of its grid, which became {grids}")
        return tried, failed

    def _begin(self) -> None:
        """The folder, with the study's description; refused where it holds another study."""
        before = self.out / "study.json"
        if before.exists():
            try:
                name = read_json(before)["name"]
            except (ValueError, KeyError, TypeError):
                name = self.file.name
            if name != self.file.name:
                raise StudyError(f"{self.out} holds the study {name!r}; choose another --out")
        self._kept = settled_claims(self.file, self.out, self.changed_claims)
        (self.out / "cells").mkdir(parents=True, exist_ok=True)
        content = self.file.model_dump(mode="json", by_alias=True, exclude_unset=True)
        write_text(self.out / "study.yaml", yaml.safe_dump(content, sort_keys=False))
        self._describe([])

    def _metrics(self, rows: Sequence[TidyRow]) -> dict[str, Metric]:
        """The world's metrics, what every run has, and whatever else was found."""
        known = {**self.world.metrics, **SPENT, **(FRONT if self.file.front else {})}
        for name in metrics_of(rows):
            known.setdefault(name, beside(name, known))
        return known

    def _describe(self, rows: Sequence[TidyRow], said: Sequence[str] = ()) -> None:
        """`study.json`. said: what worlds remarked."""
        headline = self.file.headline or list(self.world.headline)
        told = described(self.given, self._metrics(rows), headline, self._kept)
        write_json(self.out / "study.json", {**told, "remarks": list(said)})

    def _prepare(self, crew: Crew, cells: Sequence[Cell], grounds: dict[str, Ground | str]) -> None:
        """Make what the cells stand on and is not there yet, once a world and seed; where that fails,
        why stands in its place."""
        new = {key: cell for cell in cells if (key := _ground_of(cell)) not in grounds}
        for number, ground, error in crew.prepare(list(new.values())):
            key = list(new)[number]
            grounds[key] = error or ground
            notes = ground.notes if isinstance(ground, Ground) else ()
            for note in (one for one in notes if one not in self._told):
                self._told.add(note)
                self.say(note)
            self.say(f"ground of seed {new[key].seed}: {error or 'ready'}")

    def _do(
        self, crew: Crew, cells: Sequence[Cell], what: str, grounds: dict[str, Ground | str]
    ) -> dict[str, str]:
        """Do the cells that are not done; returns those that failed, now or before, and why."""
        folder, cells = self.out / "cells", with_contents(cells)
        states = {cell.name: state_of(folder / cell.name, cell) for cell in cells}
        for line in done_again(states):
            self.say(line)
        list_cells(self.out, cells, beside=True)
        before = [name for name, state in states.items() if state == "failed" and not self.retry]
        failed = {name: _reason(folder / name) + " (try again with --retry)" for name in before}
        todo = [c for c in cells if states[c.name] != "done" and c.name not in failed]
        self._prepare(crew, todo, grounds)
        failed |= self._groundless(todo, grounds)
        todo = [cell for cell in todo if cell.name not in failed]
        if known := len(cells) - len(todo):
            self.say(f"{known} of {len(cells)} {what} cells found done or failed")
        work = [
            (cell, ground)
            for cell in todo
            if isinstance(ground := grounds[_ground_of(cell)], Ground)
        ]
        return failed | self._run(crew, work, what, len(cells))

    def _groundless(
        self, cells: Sequence[Cell], grounds: Mapping[str, Ground | str]
    ) -> dict[str, str]:
        """Cells whose ground could not be made, marked as failed, and why."""
        failed = {}
        for cell in cells:
            ground, folder = grounds[_ground_of(cell)], self.out / "cells" / cell.name
            if isinstance(ground, str):
                failed[cell.name] = f"its ground could not be made: {ground}"
                begin(cell, folder)
                mark_failed(folder, failed[cell.name])
        return failed

    def _run(
        self, crew: Crew, work: Sequence[tuple[Cell, Ground]], what: str, whole: int
    ) -> dict[str, str]:
        """Do cells, the last of `whole`, on their grounds; returns those that fail, and why."""
        folder, kept = self.out / "cells", self.file.keep_models and what == "test"
        began, failed = time.perf_counter(), {}
        for ended, (number, state, error) in enumerate(crew.do(work, kept), 1):
            name = work[number][0].name
            if error:
                mark_failed(folder / name, error)
            if error or state == "failed":
                failed[name] = _reason(folder / name)
            left = (time.perf_counter() - began) / ended * (len(work) - ended)
            how = f"FAILED: {failed[name]}" if name in failed else "done"
            place = f"{what} {whole - len(work) + ended}/{whole}"
            self.say(f"{place}  {name}  {how}  {left:.0f} s left")
        return failed

    def _rows(self, cells: Sequence[Cell]) -> list[TidyRow]:
        rows = gather(cells, self.out / "cells")
        return rows + traded(rows, self.file.front, self.file.world_axes())

    def _tuned(self, tried: Sequence[Cell]) -> dict[str, dict[str, Any]]:
        """What the trials chose, as `tuning.json` has it."""
        assert self.file.tune is not None
        rows, found = self._rows(tried), dict[str, dict[str, float]]()
        for row in rows:
            found.setdefault(row.cell, {})[row.metric] = row.value
        told = choose(self.file, tried, found, self._better(rows))
        write_json(self.out / "tuning.json", told)
        return told

    def _likely(self, tried: Sequence[Cell]) -> dict[str, list[Mapping[str, Any]]]:
        """Settings that other draws of the tuning seeds would choose, by method."""
        rows = self._rows(tried)
        return likely(rows, self.file.tune, self._better(rows)) if self.file.tune else {}

    def _better(self, rows: Sequence[TidyRow]) -> Literal["higher", "lower"]:
        """Which way the metric is better that settings are chosen by."""
        metric = self._metrics(rows).get(self.file.tune.metric) if self.file.tune else None
        return (metric and metric.better) or "higher"

    def _tables(
        self, cells: Sequence[Cell], failed: Mapping[str, str], notes: list[str]
    ) -> Outcome:
        """`results.*`, `summary.csv`, `paired.csv`, `curves.csv`, `claims.json`."""
        axes = list(self.file.axes)
        list_cells(self.out, cells)
        rows = self._rows(cells)
        if self.file.front is not None and not any(row.metric == "gap/x" for row in rows):
            notes.append(
                "front: there are no gaps, because no run measured both losses at its start and end; "
                "that takes train.eval_steps and f* (optimum: {given: ...}), and x and y among "
                "eval/..."
            )
        write_tidy(self.out, rows, axes)
        table = summary(rows, axes)
        write_table(self.out / "summary.csv", table)
        shown = self.file.headline or list(self.world.headline)
        write_table(self.out / "paired.csv", differences(rows, axes, shown))
        write_curves(self.out, cells, axes)
        added = len(self._kept.get("added_seeds", []))
        verdicts = claims.judged(self.file, rows, self._better(rows), added)
        write_json(self.out / "claims.json", verdicts)
        said = noted(cells, self.out / "cells")
        self._describe(rows, said)
        notes += said
        return Outcome(self.out, rows, table, verdicts, dict(failed), notes)


def _ground_of(cell: Cell) -> str:
    return json.dumps([cell.world, cell.seed], sort_keys=True)


def _reason(folder: Path) -> str:
    try:
        return str(read_json(folder / "status.json")["error"])
    except (OSError, ValueError, KeyError):
        return "its status cannot be read"


def _open_world(file: StudyFile) -> World:
    """The world, with the first values of axes; every one it takes is checked."""
    worlds = {}
    first_seed = file.model_copy(update={"seeds": file.seeds[:1]})
    for cell in reported(first_seed, {name: {} for name in file.methods}):
        worlds[json.dumps(cell.world, sort_keys=True)] = cell.world
    made = [world_of(given) for given in worlds.values()]
    for world in made:
        world.check()
    return made[0]


def check(file: StudyFile, world: World) -> None:
    """Raise `StudyError` for what can be seen before anything is trained."""
    claims.check(file)
    require_measured(file, {**world.metrics, **SPENT})
    everything = trials(file) + reported(file, settled(file))
    for cell in everything:
        if cell.recipe is not None:
            try:
                require_whole(cell)
            except (RecipeError, ValueError) as error:
                raise StudyError(f"methods.{cell.method}: {error}") from error
