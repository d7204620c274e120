"""The terminal: the application, how lines are printed, and how errors are told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(
    help="Fine-tune a language model in one stage on any mixture of feedback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"onestage {version('onestage')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Fine-tune a language model in one stage on any mixture of feedback."""


console = Console(stderr=False, soft_wrap=False)
complaints = Console(stderr=True)
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable."),
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """One clear line for what the user can mend; a traceback only with ONESTAGE_DEBUG=1."""
    try:
        yield
    except (ValueError, OSError, ImportError, RuntimeError, NotImplementedError) as error:
        if os.environ.get("ONESTAGE_DEBUG"):
            raise
        message = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.errno == 28:
            message = f"the disk is full ({message}); what was saved before is whole"
        complaints.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def quiet_libraries() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def say(line: str) -> None:
    console.print(escape(line), highlight=False, soft_wrap=True)
