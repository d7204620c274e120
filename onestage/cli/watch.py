"""`onestage watch`: how a run elsewhere is getting on, from its folder alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._board import Board
from onestage.cli._screen import line_of, on_terminal, screen
from onestage.cli._terminal import app, say, then, word
from onestage.runfolder import read_json
from onestage.runfolder.following import Growing, Standing, begun, current, standing

SECOND = 1.0
"""Between looks."""
BACK = 10
"""Lines of the log that are printed of what was there before the first look."""
ENDED = 3
"""Exit code of a run that ended, or may have, before its last step: as `train` has it of one that was
stopped."""


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    stale_after: Annotated[
        float,
        typer.Option(
            help="Seconds without a word after which a run on another machine is called stale."
        ),
    ] = 600,
) -> None:
    """Watch a run that goes on elsewhere: another terminal, a job, a machine with the same disk.

    It reads the run folder and writes nothing. On a terminal it shows what `train` shows; elsewhere it
    prints a line for each line of the log. It ends when the run has ended.

    Exit codes: 0 finished, 1 an error, 2 wrong usage, 3 interrupted (killed, stopped or failed) or
    stale, 130 by Ctrl-C, which ends the watching and not the run.
    """
    _require(run)
    try:
        if on_terminal():
            with screen() as live:
                found = _follow(run, stale_after, lambda seen: live.update(seen.board.drawn()))
        else:
            found = _follow(run, stale_after, _tell)
    except KeyboardInterrupt:
        say("no longer watched; the run goes on")
        raise typer.Exit(130) from None
    say(f"{found.state}: {found.why}")
    if found.state == "finished":
        model = f", or: onestage sample --model {word(run / 'model')}"
        then(f"onestage report {word(run)}" + model * (run / "model").exists())
        return
    then(f"onestage train {word(run / 'recipe.yaml')} --out {word(run)} --resume")
    raise typer.Exit(ENDED)


def _require(run: Path) -> None:
    if begun(run):
        return
    if (run / "cells").is_dir():
        cell = next((run / "cells").glob("*/run"), run / "cells" / "CELL" / "run")
        raise ValueError(f"{run} is a study: one of its runs can be watched, as in {cell}")
    found = "holds no run" if run.is_dir() else "is no folder"
    raise ValueError(
        f"{run} {found}; give the folder that `onestage train` was told by --out, or runs/RECIPE"
    )


class _Seen:
    """What was read of one run, or of one stage."""

    def __init__(self, place: Path) -> None:
        self.place, self.board = place, Board(_steps(place))
        self.metrics = Growing(place / "metrics.jsonl")
        self.samples = Growing(place / "samples.jsonl")
        self.told: list[str] = []
        """A text for each line of the last look."""
        self._looked = False

    def look(self, now: Standing) -> None:
        self.board.steps = self.board.steps or _steps(self.place)
        before = self.board.step
        lines, anew = self.metrics.new()
        self.told = [f"went on from a checkpoint before step {before}"] if anew else []
        for line in lines:
            self.board.take(line)
            if not anew:
                self.told.append(line_of(line, self.board.steps, self.board.left))
        if not self._looked and len(self.told) > BACK:
            earlier = f"{len(self.told) - BACK:,} earlier lines are in {self.metrics.file}"
            self.told = [earlier, *self.told[-BACK:]]
        self._looked = True
        self.board.show(self.samples.new()[0])
        self.board.notes["run"] = f"{now.state}, {now.why}; last written {now.silent:.0f} s ago"


def _follow(run: Path, patience: float, show: Callable[[_Seen], None]) -> Standing:
    """Look and show until the run has ended; how it stands then."""
    seen: _Seen | None = None
    while True:
        now = standing(run, patience)  # before looking: what a run wrote last is read as well
        place = current(run)
        if seen is None or place != seen.place:
            if seen is not None:  # what a stage wrote before the next one began
                _show(seen, now, show)
                _damaged(seen)
            if place != run:
                say(f"stage {place.name}")
            seen = _Seen(place)
        _show(seen, now, show)
        if now.state != "running":
            _damaged(seen)
            return now
        time.sleep(SECOND)


def _show(seen: _Seen, now: Standing, show: Callable[[_Seen], None]) -> None:
    seen.look(now)
    show(seen)


def _damaged(seen: _Seen) -> None:
    if seen.metrics.damaged:
        say(f"{seen.metrics.damaged} damaged lines of {seen.metrics.file} are left out")


def _tell(seen: _Seen) -> None:
    for text in seen.told:
        if text:
            say(text)


def _steps(place: Path) -> int | None:
    """How many steps a run has, once it has said so."""
    with suppress(OSError, ValueError, AttributeError):
        found = read_json(place / "manifest.json").get("steps")
        return found if isinstance(found, int) else None
    return None
