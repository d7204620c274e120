"""`onestage problems`: rows whose answers can be checked, made or converted."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from onestage.cli._terminal import app, plain_errors, say

problems = typer.Typer(
    help="Make problems whose answers can be checked, with worked solutions, as JSON Lines.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(problems, name="problems")


Out = Annotated[Path, typer.Option(help="File to write: .jsonl or .jsonl.gz.")]


Count = Annotated[int, typer.Option(min=1, help="How many problems.")]


Seed = Annotated[int, typer.Option(help="Of the draws; the same seed gives the same file.")]


Part = Annotated[
    str,
    typer.Option(help="train or test, which never share a problem, or all."),
]


Style = Annotated[str, typer.Option(help="The prompt: tinyzero, or short for tiny models.")]


Data = Annotated[
    str, typer.Argument(metavar="DATA", help="JSON Lines (.gz), Parquet, or a hub data set.")
]


OfSplit = Annotated[str, typer.Option("--split", help="Of a hub data set.")]


Subset = Annotated[str | None, typer.Option(help="Configuration of a hub data set.")]


@problems.command()
def countdown(
    out: Out,
    count: Count = 1000,
    numbers: Annotated[str, typer.Option(help="How many are given: 3, or 3-4.")] = "3-4",
    given: Annotated[str, typer.Option(help="Their range.")] = "1-99",
    target: Annotated[str, typer.Option(help="The range of the target.")] = "10-100",
    operators: Annotated[str, typer.Option(help="Those of the solutions.")] = "+-*/",
    seed: Seed = 0,
    split: Part = "train",
    template: Style = "tinyzero",
) -> None:
    """Make a target from given numbers, each used once (reward: countdown)."""
    with plain_errors():
        from onestage.rollout.rewards.countdown import generate

        rows = generate(
            count,
            seed=seed,
            split=split,  # type: ignore[arg-type]
            numbers=_range("--numbers", numbers),
            given=_range("--given", given),
            target=_range("--target", target),
            operators=operators,
            template=template,  # type: ignore[arg-type]
        )
        _write(out, rows)


@problems.command()
def knights_knaves(
    out: Out,
    count: Count = 1000,
    people: Annotated[str, typer.Option(help="How many: 3, or 2-4; at most 8.")] = "2-4",
    claims: Annotated[
        str, typer.Option(help="What is claimed, some of these.")
    ] = "is,not,and,or,if,iff",
    seed: Seed = 0,
    split: Part = "train",
    template: Style = "tinyzero",
) -> None:
    """Who tells the truth and who lies? (reward: knights_knaves)"""
    with plain_errors():
        from onestage.rollout.rewards._puzzles import generate

        rows = generate(
            count,
            seed=seed,
            split=split,  # type: ignore[arg-type]
            people=_range("--people", people),
            kinds=[kind.strip() for kind in claims.split(",")],  # type: ignore[misc]
            template=template,  # type: ignore[arg-type]
        )
        _write(out, rows)


@problems.command()
def gsm8k(
    data: Data,
    out: Out,
    of_split: OfSplit = "train",
    subset: Subset = None,
    calculations: Annotated[
        str, typer.Option(help="remove or keep the notes as in <<16-3=13>>.")
    ] = "remove",
    template: Style = "tinyzero",
) -> None:
    """Rows of GSM8K (question, answer) as problems (reward: gsm8k)."""
    with plain_errors():
        from onestage.rollout.rewards import _worked_steps as steps

        rows = _rows(data, of_split, subset)
        _write(out, steps.gsm8k(rows, template=template, calculations=calculations))  # type: ignore[arg-type]


@problems.command()
def math(
    data: Data,
    out: Out,
    of_split: OfSplit = "train",
    subset: Subset = None,
    template: Style = "tinyzero",
) -> None:
    """Rows of MATH (problem, solution) as problems (reward: math)."""
    with plain_errors():
        from onestage.rollout.rewards import _worked_steps as steps

        rows = _rows(data, of_split, subset)
        _write(out, steps.math(rows, template=template))  # type: ignore[arg-type]


def _range(option: str, text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        return int(low), int(high if dash else low)
    except ValueError as error:
        raise ValueError(f"{option} {text!r}: expected a number, or two as in 3-4") from error


def _rows(data: str, split: str, subset: str | None) -> Iterator[Mapping[str, Any]]:
    from onestage.data.record import Refusal
    from onestage.data.rows import Columns
    from onestage.data.stream import Source, rows

    for row in rows(Source(data, Columns("problems", facts=True), split=split, config=subset)):
        if isinstance(row, Refusal):
            raise ValueError(f"{row.where}: {row.reason}")
        yield row[1]


def _write(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """All rows or no file."""
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"--out {out}: allowed are files .jsonl and .jsonl.gz")
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-")
    count = 0
    try:
        with os.fdopen(handle, "wb") as opened:
            # No name and no time within, so that the same rows give the same file.
            packed = (
                gzip.GzipFile("", "wb", fileobj=opened, mtime=0) if out.suffix == ".gz" else None
            )
            for row in rows:
                (packed or opened).write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                count += 1
            if packed:
                packed.close()
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, out)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    say(f"{out}: {count:,} problems")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
