"""The terminal: the application, how lines are printed, and how errors are told."""

from __future__ import annotations

import gc
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from onestage.cli._errors import told
from onestage.runfolder.secrets import hidden

# Without emoji: what stands between two colons in a path, an address or a user's text is no picture.
console = Console(stderr=False, soft_wrap=False, emoji=False)
complaints = Console(stderr=True, emoji=False)
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable."),
]


class Commands(typer.core.TyperGroup):
    """All commands: what escapes one is told by `plain_errors`."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        ours = words[: words.index("--")] if "--" in words else words
        if "--debug" in ours:
            # It is of no command, and people write it last.
            words.remove("--debug")
            words.insert(0, "--debug")
        words[: len(ours)] = _two_words(words[: len(ours)])
        return super().main(words, *rest, **more)

    def invoke(self, ctx: Any) -> Any:
        with plain_errors():
            return super().invoke(ctx)


def _two_words(words: Sequence[str]) -> list[str]:
    """`--score-range 1,5`, and with `=`, as the two words that it is an option of."""
    found: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if name == RANGE and equals:
            found += [RANGE, *value.split(",")]
        elif found[-1:] == [RANGE] and "," in word:
            found += [part.strip() for part in word.split(",")]
        else:
            found.append(word)
    return found


@contextmanager
def plain_errors() -> Iterator[None]:
    """Whatever escapes becomes a line and exit code 1; a traceback with --debug."""
    try:
        yield
    except Exception as error:
        # What ends a command on purpose (usage errors, typer.Exit) has an exit code.
        ends = isinstance(error, typer.Abort) or hasattr(error, "exit_code")
        if ends or os.environ.get(DEBUG):
            raise
        for line in hidden(told(error)).split("\n"):
            said = f"[bold red]error:[/] {escape(line)}"
            complaints.print(said, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


RANGE = "--score-range"

DEBUG = "ONESTAGE_DEBUG"
"""In the environment, so that the processes of a study have it, too."""

app = typer.Typer(
    cls=Commands,
    help="Fine-tune a language model in one stage on any mixture of feedback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ[DEBUG] = "1"


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
    debug: Annotated[
        bool,
        typer.Option("--debug", callback=_debug, help="Show tracebacks. Anywhere in a command."),
    ] = False,
) -> None:
    """Fine-tune a language model in one stage on any mixture of feedback."""


@cache
def _freeze() -> None:
    """Once in a process: later, garbage of an earlier command would be kept as well."""
    gc.freeze()


@contextmanager
def loading() -> Iterator[None]:
    """Around the imports of a command that needs libraries of a million objects.

    Python would look all of them through for garbage again and again while they are made, a fifth of
    the time that a start takes; they stay to the end, so it need not look at them later, either.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _freeze()
        if collecting:
            gc.enable()


def quiet_libraries() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Said by transformers of a name that PEFT asks it for: nothing that whoever types a command can do.
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.* is deprecated", FutureWarning)


def say(line: str) -> None:
    console.print(escape(hidden(line)), highlight=False, soft_wrap=True)


def word(path: object) -> str:
    """A path as it must be typed: in quotes where it holds a space."""
    return shlex.quote(str(path))


def then(command: str) -> None:
    """The last line of a command: what to type next, on one line whatever the terminal's width."""
    say(f"next: {command}")
