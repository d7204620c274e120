"""`onestage cache`: what runs have left to be found again, and how to be rid of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from onestage.cli._terminal import app, console, say, then, word

if TYPE_CHECKING:
    from onestage.data.cached import Kept


@app.command()
def cache(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A cache.", show_default="$ONESTAGE_CACHE or ~/.cache/onestage"),
    ] = None,
    older: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="What nobody has used for so long.")
    ] = 30,
    remove: Annotated[bool, typer.Option("--remove", help="Take that away.")] = False,
) -> None:
    """What the cache holds (encoded data, references, files), and --remove what is old."""
    from onestage.data.cached import kept_in
    from onestage.data.cached import remove as gone
    from onestage.runfolder import default_cache

    place = folder or default_cache()
    if not place.is_dir():
        raise ValueError(f"{place}: there is no such folder; give the cache_dir of your recipes")
    found = list(kept_in(place))
    idle = [one for one in found if one.idle >= older]
    old = [one for one in idle if not one.held]
    console.print(_table(found, old, older))
    if len(old) < len(idle):
        left = len(idle) - len(old)
        say(f"{left:,} more are left, which a run that goes on may open again")
    if not remove:
        if old:
            then(f"onestage cache {word(place)} --older {older:g} --remove")
        return
    taken = [one for one in old if gone(one)]
    left = len(old) - len(taken)
    more = f"; {left:,} could not be removed" if left else ""
    say(f"removed {len(taken):,} of {len(found):,}, {_megabytes(taken)} MB{more}")


def _table(found: list[Kept], old: list[Kept], older: float) -> Table:
    from onestage.data.cached import ROOMS

    table = Table(title_justify="left")
    for name in ("", "kept", "MB", f"unused for {older:g} days", "MB"):
        table.add_column(name, justify="right" if name else "left")
    for room, what in ROOMS.items():
        parts = [[one for one in some if one.room == room] for some in (found, old)]
        numbers = (cell for part in parts for cell in (f"{len(part):,}", _megabytes(part)))
        table.add_row(f"{room}: {what}", *numbers)
    return table


def _megabytes(some: list[Kept]) -> str:
    return f"{sum(one.bytes for one in some) / 1e6:,.1f}"
