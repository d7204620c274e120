"""`onestage convert`: other people's rows become ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from onestage.cli._flags import Column, Delimiter, Encoding, Kind, ScoreRange, Subset
from onestage.cli._inputs import stream_of
from onestage.cli._outputs import Force, free
from onestage.cli._raters import show_raters
from onestage.cli._terminal import app, console, say, then, word

if TYPE_CHECKING:
    from onestage.data.convert import Converted

SHOWN_REASONS = 10
SHOWN_TEXT = 60
"""Characters of a text that are shown of an example."""


@app.command()
def convert(
    data: Annotated[
        str, typer.Argument(metavar="IN", help="A file, folder, glob, address, or hub data set.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .jsonl or .jsonl.gz to write.")],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="`onestage list formats`, or {name: ..., options}. [default: recognised by row]",
        ),
    ] = None,
    column: Column = None,
    kind: Kind = None,
    score_range: ScoreRange = (0, 1),
    raters: Annotated[
        str | None,
        typer.Option(metavar="COLUMN,COLUMN", help="Columns that hold one rater's rating each."),
    ] = None,
    ratings: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="How several raters' scores are made one: mean, or calibrated for the bias, scale "
            "and noise of each.",
        ),
    ] = "mean",
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    subset: Subset = None,
    split: Annotated[str, typer.Option(help="Of a hub data set.")] = "train",
    force: Force = False,
) -> None:
    """Write rows of any known format as rows that `train` reads, and what was left out beside them."""
    from onestage.config.plain_yaml import parsed
    from onestage.data.convert import convert
    from onestage.data.formats import make

    written = {"encoding": encoding, "delimiter": delimiter, "subset": subset, "split": split}
    stream = stream_of(data, kind, column, score_range, **written)
    form = None if from_ in (None, "rows") else make(parsed(str(from_), "--from"))
    columns = [name.strip() for name in raters.split(",")] if raters else []
    if ratings not in ("mean", "calibrated"):
        raise typer.BadParameter(
            f"{ratings!r} is neither mean nor calibrated", param_hint="--ratings"
        )
    free(out, force, "OUT")
    found = convert(stream, out, form, columns, "mean" if ratings == "mean" else "calibrated")
    _show(found)
    then(f"onestage check {word(out)}")


def _show(found: Converted) -> None:
    from onestage.data.calibration import FEWEST

    console.print(_examples(found))
    if found.raters.ratings:
        show_raters(console, found.raters, found.calibration)
    if found.clipped:
        say(f"{found.clipped:,} calibrated scores lay beyond the range of scores, and are its ends")
    if found.calibration is not None and not found.calibration.habits:
        say(
            f"--ratings calibrated changed nothing: it needs raters who gave scores to {FEWEST} answers "
            "that others have scored, too"
        )
    told = ", ".join(f"{count:,} rows of {_called(name)}" for name, count in found.formats.items())
    say(f"read {told}")
    if found.unused:
        say(f"columns that are not carried over: {', '.join(map(repr, found.unused))}")
    for theirs, ours in found.unused.items():
        if ours:
            say(f"warning: column {theirs!r} is not read; did you mean --column {ours}={theirs}?")
    count = sum(found.left_out.values())
    say(f"left out {count:,}" + (f", in {found.left_out_in}:" if count else ""))
    for reason, number in found.left_out.most_common(SHOWN_REASONS):
        say(f"  {number:,}: {reason}")
    if len(found.left_out) > SHOWN_REASONS:
        say(f"  and {len(found.left_out) - SHOWN_REASONS} other reasons")
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in found.written.items())
    say(f"{found.out}: {kinds}")


def _called(name: str) -> str:
    return "ours" if name == "rows" else name


def _examples(found: Converted) -> Table:
    table = Table(title="The first rows", title_justify="left", show_lines=True)
    for name in ("before", "after"):
        table.add_column(name, overflow="fold", ratio=1)
    for before, after in found.examples:
        more = [Text(f"and {len(after) - 1} more", style="dim")] if len(after) > 1 else []
        table.add_row(_short(before), Text("\n").join([_short(after[0]), *more]))
    return table


def _short(row: Mapping[str, Any]) -> Text:
    """A row, its texts cut."""
    lines = [f"{name}: {_cut(value)}" for name, value in row.items() if value is not None]
    return Text("\n".join(lines))


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 3] + "..."
