"""`onestage check`: what will be trained on and what is wrong with it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from onestage.cli._flags import Delimiter, Encoding, Subset
from onestage.cli._inputs import refuse_unused, stream_of
from onestage.cli._raters import show_raters
from onestage.cli._terminal import Set, app, console, loading, quiet_libraries, say, then, word

SHOWN_REASONS = 20
MAX_LENGTH = 2048
GPUS_PER_NODE = 8


@app.command()
def check(
    what: Annotated[str, typer.Argument(metavar="RECIPE_OR_DATA", help="A recipe or a data file.")],
    set_: Set = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder it would be trained in.", show_default="runs/RECIPE"),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="For a data file: count and mark tokens with this one.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="For a data file: the kind of its rows.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="For a data file: rename a column; repeatable."),
    ] = None,
    score_range: Annotated[
        tuple[float, float], typer.Option(help="For a data file: range of its scores.")
    ] = (0.0, 1.0),
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    subset: Subset = None,
    max_length: Annotated[
        int, typer.Option(min=2, help="For a data file, with --tokenizer: longest path.")
    ] = MAX_LENGTH,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Estimate memory and time on so many GPUs.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Of this sort: h100-80, a100-40, l4-24, rtx4090-24, ...")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = GPUS_PER_NODE,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a GPU for an hour; shows the cost.")
    ] = None,
) -> None:
    """Show what will be trained on and what is wrong with it, before any weights are loaded."""
    machines = _machines(gpus, gpu, gpus_per_node, price)
    written = {"encoding": encoding, "delimiter": delimiter, "subset": subset}
    told = {"kind": kind, "column": column, "score_range": score_range}
    if what.endswith((".yaml", ".yml")):
        longest = None if max_length == MAX_LENGTH else max_length
        more = {"tokenizer": tokenizer, "max_length": longest, **told, **written}
        refuse_unused(what, "a recipe, which says it itself (--set)", more)
        good = _recipe(Path(what), set_ or [], out or Path("runs") / Path(what).stem, machines)
    elif machines:
        raise ValueError(f"--gpus: {what} is a data file; give the recipe that trains on it")
    else:
        refuse_unused(what, "a data file; it is for a recipe", {"set": set_, "out": out})
        if not tokenizer and max_length != MAX_LENGTH:
            raise ValueError("--max-length: is in tokens; say whose with --tokenizer")
        stream = stream_of(what, kind, column, score_range, **written)
        good = _data(stream, tokenizer, max_length) if tokenizer else _rows(stream)
    if not good:
        raise typer.Exit(1)


def _machines(gpus: int | None, gpu: str | None, node: int, price: float | None) -> Any:
    if gpus is None and gpu is None:
        if price is not None:
            raise ValueError("--price: is of GPUs; say which: --gpus 8 --gpu h100-80")
        if node != GPUS_PER_NODE:
            raise ValueError("--gpus-per-node: say of which GPUs: --gpus 8 --gpu h100-80")
        return None
    from onestage.training import scale

    if gpus is None or gpu is None:
        raise ValueError(
            "--gpus and --gpu go together, as in --gpus 8 --gpu h100-80; there are "
            + ", ".join(scale.gpus())
        )
    return scale.Machines(scale.gpu(gpu), gpus, node, price)


def _recipe(file: Path, overrides: list[str], out: Path, machines: Any) -> bool:
    with loading():
        from onestage.cli._findings import show
        from onestage.cli._scale import show_scale
        from onestage.training.check import check_recipe

    quiet_libraries()
    good = True
    for checked in check_recipe(file, out, overrides, say, machines):
        if checked.stage:
            console.rule(f"stage {checked.stage}")
        if checked.scaled:
            show_scale(console, checked.scaled)
        show(console, checked.findings, checked.tokenizer, checked.cost)
        good &= checked.good
    if good:
        then(f"onestage train {word(file)}")
    return good


def _data(stream: Any, tokenizer: str, max_length: int) -> bool:
    with loading():
        from onestage.cli._findings import show
        from onestage.data.recognise import advice
        from onestage.models import Model, tokenizer_of
        from onestage.training.check import check_data

    quiet_libraries()
    checked = check_data(stream, tokenizer_of(Model(name=tokenizer)), max_length)
    show(console, checked.findings, checked.tokenizer, None)
    if not checked.good:
        for line in advice(stream):
            console.print(line, markup=False, soft_wrap=True)
    if checked.good:
        then(f"onestage train {word(stream.path)} --model {word(tokenizer)}{_again(stream)}")
    return checked.good


def _rows(stream: Any) -> bool:
    """Kinds and refused rows, counted in characters."""
    from onestage.data.inspect import beside, count_rows
    from onestage.data.recognise import advice

    found = count_rows(stream)
    for kind, sizes in found.kinds.items():
        console.print(
            f"{len(sizes):,} {kind} records, {sum(sizes):,} characters, longest {max(sizes):,}"
        )
    left_out = f"{found.table.ties:,} ties and {found.table.unlabelled:,} unlabelled left out"
    console.print(f"{len(found.refused):,} rows refused, {left_out}")
    _reasons(found.refused)
    told = advice(stream)
    # Of another tool's rows no column alone is meant for one of ours.
    foreign = bool(told) and "data:" not in told
    warnings, notes = beside(replace(found.table, unused={}) if foreign else found.table)
    seen = found.table.notes.items()
    warnings += [f"{stream.name}: {count} records: {note}" for note, count in seen]
    for line in [*(f"warning: {one}" for one in warnings), *notes]:
        console.print(line, markup=False, soft_wrap=True)
    if found.raters.ratings:
        show_raters(console, found.raters)
    for line in told:
        console.print(line, markup=False, soft_wrap=True)
    console.print("give --tokenizer to see tokens, marked examples and duplicates", style="dim")
    good = bool(found.kinds) and not found.refused
    if good and not told:
        then(f"onestage {_next(stream, found.raters)}")
    return good


def _next(stream: Any, raters: Any) -> str:
    """What to type for a file that can be read."""
    if raters.ratings > len(raters):
        rows = word(f"{stream.name}.rows.jsonl")
        why = "(one row of all ratings of an answer)"
        return f"convert {word(stream.path)} {rows}{_again(stream)} {why}"
    return f"train {word(stream.path)} --model MODEL{_again(stream)}"


def _again(stream: Any) -> str:
    """The flags that say of a file what was said of it here."""
    from onestage.data.recognise import flags

    return "".join(f" {shlex.quote(word)}" for word in flags(stream))


def _reasons(refused: list[Any]) -> None:
    """Why rows are refused: each reason once, with how often and where first."""
    reasons: dict[str, list[str]] = {}
    for row in refused:
        reasons.setdefault(row.reason, []).append(row.where)
    most = sorted(reasons.items(), key=lambda one: -len(one[1]))
    for reason, places in most[:SHOWN_REASONS]:
        often = f" ({len(places):,} rows, this the first)" if len(places) > 1 else ""
        console.print(f"  {places[0]}{often}: {reason}", markup=False, soft_wrap=True)
    if len(most) > SHOWN_REASONS:
        console.print(f"  and {len(most) - SHOWN_REASONS:,} other reasons")
