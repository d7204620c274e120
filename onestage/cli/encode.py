"""`onestage encode`: make ahead of time what `train` would encode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from onestage.cli._flags import Column, Kind, ScoreRange
from onestage.cli._inputs import refuse_unused, stream_of
from onestage.cli._terminal import Set, app, loading, quiet_libraries, say


@app.command()
def encode(
    what: Annotated[
        list[str], typer.Argument(metavar="RECIPE_OR_DATA...", help="A recipe, or data files.")
    ],
    set_: Set = None,
    num_proc: Annotated[
        int | None,
        typer.Option(min=1, help="Processes.", show_default="train.dataset_num_proc, or 1"),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="For data files: where to.", show_default="the recipe's, or the user's"),
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="For data files: the model's.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=2, help="For data files: as train.max_length of the recipes.", show_default="1024"
        ),
    ] = None,
    kind: Kind = None,
    column: Column = None,
    score_range: ScoreRange = (0, 1),
) -> None:
    """Encode the data of a recipe, or data files, ahead of time: `train` finds them in the cache.

    Of data files: a recipe finds them by a stream with the file's name, the same options, tokenizer and
    max_length.
    """
    quiet_libraries()
    began = perf_counter()
    told = {"kind": kind, "column": column, "score_range": score_range}
    if what[0].endswith((".yaml", ".yml")):
        more = {"tokenizer": tokenizer, "max_length": max_length, **told}
        refuse_unused(what[0], "a recipe, which says it itself (--set)", more)
        found = _of_recipe(what, [*(set_ or []), *_processes(num_proc)], cache)
    elif tokenizer is None:
        raise ValueError(
            "--tokenizer: data files are encoded for a model; name it or its tokenizer"
        )
    else:
        refuse_unused(what[0], "a data file; it is for a recipe", {"set": set_})
        streams = [stream_of(one, kind, column, score_range) for one in what]
        found = iter([_of_files(streams, tokenizer, max_length or 1024, num_proc or 1, cache)])
    rows, folders = 0, set[Path]()
    for data in found:
        for name, store in data.named():
            if store.folder not in folders:
                folders.add(store.folder)
                rows += store.table.total
                say(f"  {name}: {store.folder}")
    say(f"{rows:,} records in {perf_counter() - began:,.1f} s")


def _processes(number: int | None) -> list[str]:
    return [] if number is None else [f"train.dataset_num_proc={number}"]


def _of_recipe(what: list[str], overrides: list[str], cache: Path | None) -> Iterator[Any]:
    with loading():
        from onestage.training.encode import encode_recipe

    if len(what) > 1:
        raise ValueError(
            f"{what[0]} is a recipe: give it alone, found {' '.join(what[1:])} besides"
        )
    if cache:
        overrides = [*overrides, f"cache_dir={cache}"]
    return encode_recipe(what[0], overrides, say)


def _of_files(
    streams: list[Any], tokenizer: str, max_length: int, processes: int, cache: Path | None
) -> Any:
    from onestage.data.tokenize import Encoder
    from onestage.models import Model, tokenizer_of
    from onestage.runfolder import default_cache
    from onestage.training.encode import encode_streams

    encoder = Encoder(tokenizer_of(Model(name=tokenizer)), max_length, processes=processes)
    return encode_streams(streams, encoder, cache or default_cache(), say)
