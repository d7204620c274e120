"""`onestage list`: everything a recipe can name, ours and other people's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onestage.cli._terminal import app, console

if TYPE_CHECKING:
    from onestage.config import Plugin, Plugins

ROOMS = {
    "objectives": "onestage.objectives",
    "schedules": "onestage.schedules",
    "hints": "onestage.rollout.hints",
    "rewards": "onestage.rollout.rewards",
    "engines": "onestage.rollout.engines",
    "worlds": "onestage.studies.worlds",
    "executors": "onestage.studies.executors",
    "callbacks": "onestage.training.callbacks",
}


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(ROOMS)}. [default: all]")
    ] = None,
) -> None:
    """Everything a recipe can name: what it is, its paper, and where it comes from."""
    from onestage.config import nearest

    if what is not None and what not in ROOMS:
        raise ValueError(f"unknown sort {what!r}{nearest(what, ROOMS)}")
    for sort in ROOMS if what is None else (what,):
        console.print(_table(sort, _plugins(sort)))


def _plugins(sort: str) -> Plugins[Any]:
    import importlib

    return importlib.import_module(ROOMS[sort]).PLUGINS


def _table(sort: str, plugins: Plugins[Any]) -> Table:
    objectives = sort == "objectives"
    table = Table(title=sort, title_justify="left")
    for column in ("name", *(("kinds", "needs") if objectives else ()), "what it is", "from"):
        table.add_column(column, overflow="fold")
    for name in plugins.names():
        try:
            table.add_row(*_row(plugins, name, objectives))
        except ValueError as error:  # a stranger's that does not load must not hide the others
            blank = ("", "") if objectives else ()
            table.add_row(name, *blank, f"[red]{escape(str(error))}[/]", "")
    return table


def _row(plugins: Plugins[Any], name: str, objectives: bool) -> tuple[str, ...]:
    plugin = plugins.locate(name)
    of = plugins.aliases.get(name)
    says = f"another name of {of}" if of else escape(_first_sentence(plugin))
    if not objectives:
        return name, says, plugin.origin
    made = plugins.make(name)
    kinds, needs = (", ".join(sorted(some)) for some in (made.kinds, made.needs))
    return name, kinds, needs, says, plugin.origin


def _first_sentence(plugin: Plugin[Any]) -> str:
    """Of its file's docstring, which says what it is and where it was published."""
    import inspect
    import sys

    text = sys.modules[plugin.found.__module__].__doc__ or inspect.getdoc(plugin.found) or ""
    return " ".join(text.strip().split("\n\n")[0].split())
