"""`onestage lab`: a small world to train in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from onestage.cli._outputs import Force, free
from onestage.cli._terminal import app, quiet_libraries, say, then, word

MOVED = ("convex", "tree")
"""Commands of version 0.1.0 that are benches of the repository now."""


class _Lab(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in MOVED:
            ctx.fail(f"`onestage lab {args[0]}` is now `make {args[0]}` in the repository")
        return super().resolve_command(ctx, args)


lab = typer.Typer(
    cls=_Lab,
    help="A small world to train in.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lab, name="lab")


@lab.callback()
def generated() -> None:
    """A small world to train in."""


@lab.command()
def base(
    out: Annotated[
        Path, typer.Option(help="A cache folder: a base that is there is found.")
    ] = Path("runs/lab"),
    seed: Annotated[int, typer.Option(help="Of the generated world.")] = 0,
    size: Annotated[str, typer.Option(help="small (two CPU cores) or large (a GPU).")] = "small",
) -> None:
    """Pretrain the base model of a generated world; prints its folder."""
    from onestage.cli._progress import progress
    from onestage.studies.lab.ground import make_base
    from onestage.studies.lab.presets import size_of
    from onestage.studies.lab.world import LabWorld

    quiet_libraries()
    known = size_of(size)
    world = LabWorld(seed, known)
    folder = make_base(world, out, known, seed=seed, say=say, callbacks=[progress()])
    say(str(folder))


@lab.command()
def rows(
    out: Annotated[Path, typer.Option(help="Where KIND.SPLIT.jsonl are written.")] = Path(
        "runs/lab/rows"
    ),
    seed: Annotated[int, typer.Option(help="Of the generated world.")] = 0,
    size: Annotated[str, typer.Option(help="small or large.")] = "small",
    force: Force = False,
) -> None:
    """Write a generated world's rows of every kind and split."""
    from onestage.studies.lab.ground import texts_of, write_rows
    from onestage.studies.lab.presets import size_of
    from onestage.studies.lab.world import LabWorld

    world = LabWorld(seed, size_of(size))
    for name, text in texts_of(world) if out.is_dir() else ():
        file = out / f"{name}.jsonl"
        if not file.is_file() or file.read_bytes() != text.encode():  # the same is left alone
            free(file, force)
    files = write_rows(world, out)
    say(f"{len(files)} files in {out}")
    then(f"onestage check {word(next(iter(files.values())))}")
