"""`onestage push`: a model and its card to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._terminal import app, say

PEFT_TEMPLATE = "# Model Card for Model ID"
"""The card that PEFT leaves beside every adapter, to be filled in."""


@app.command()
def push(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run that left one.")],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="On the hub.")],
    card_only: Annotated[
        bool, typer.Option("--card-only", help="Write the model card (README.md) and send nothing.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="The base's hub id, where the model names a folder.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of this model, as the hub names it: apache-2.0, ..."),
    ] = None,
    base_licence: Annotated[
        str | None,
        typer.Option("--base-license", help="Of the base. [default: what its own card says]"),
    ] = None,
    data_licence: Annotated[
        list[str] | None,
        typer.Option("--data-license", metavar="STREAM=LICENSE", help="Of data; repeatable."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A new repository is private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Model and card",
) -> None:
    """Write a model card from the run, and send the model folder (nothing else) to the hub."""
    from onestage.models.release import upload
    from onestage.report.card import About, card, model_of, run_of

    upload.check_repository(repository)
    if not card_only:
        upload.check_access()
    folder = model_of(model)
    upload.parcel_of(folder)
    named = upload.base_in(folder)
    public = upload.public_base(folder, base) or _base_of_run(run_of(folder))
    origin = named or public
    about = About(
        repository,
        public,
        named is not None,
        licence,
        # Not what stands in the model's own folder, which is the card of an earlier push.
        base_licence or (upload.licence_in(origin) if origin else None),
        _licences(data_licence or [], run_of(folder)),
    )
    _write_card(folder / "README.md", card(run_of(folder), about))
    parcel = upload.parcel_of(folder)
    size = sum(file.stat().st_size for file in parcel.files)
    if parcel.left:
        say(f"stay here: {', '.join(parcel.left)}")
    if card_only:
        say(f"would be sent: {len(parcel.files)} files, {size / 1e6:,.1f} MB")
        return
    say(f"sending {len(parcel.files)} files, {size / 1e6:,.1f} MB")
    say(upload.push(parcel, repository, public, private=private, message=message))


def _write_card(file: Path, text: str) -> None:
    """Not over one that somebody wrote."""
    from onestage.report.card import MARK
    from onestage.runfolder import write_text

    before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else MARK
    if MARK not in before and PEFT_TEMPLATE not in before:
        say(f"{file}: somebody's own card, left as it is (move it away to have one written)")
        return
    write_text(file, text)
    say(f"{file}: the card")


def _base_of_run(run: Path | None) -> str | None:
    """Of a whole model: what its run's recipe starts from, as the card names it."""
    import yaml

    from onestage.report.card import public_place

    for file in [run / "recipe.yaml", *sorted(run.glob("*/recipe.yaml"))] if run else []:
        if file.is_file():
            told = (yaml.safe_load(file.read_text()) or {}).get("model")
            name = told.get("name") if isinstance(told, dict) else told
            return public_place(str(name)) if name else None
    return None


def _licences(given: list[str], run: Path | None) -> dict[str, str]:
    from onestage.config import nearest
    from onestage.report.card import streams_of

    known, found = streams_of(run), {}
    for item in given:
        stream, equals, licence = item.partition("=")
        if not equals or stream not in known:
            raise ValueError(
                f"--data-license {item!r}: write STREAM=LICENSE, with a stream of the run"
                f"{nearest(stream, known)}"
            )
        found[stream] = licence
    return found
