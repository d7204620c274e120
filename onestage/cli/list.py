"""`onestage list`: everything a recipe can name, ours and other people's.

What it tells is read off the classes themselves, and so are the tables of the pages (`--markdown`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onestage.cli._terminal import app, console
from onestage.cli._told import (
    OF_OBJECTIVES,
    ROOMS,
    docstring,
    facts,
    first_sentence,
    parts_of,
    plugins_of,
)

if TYPE_CHECKING:
    from onestage.config import Plugin, Plugins


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(ROOMS)}. [default: all]")
    ] = None,
    markdown: Annotated[
        bool, typer.Option(help="Ours alone, as the tables of the pages have them.")
    ] = False,
) -> None:
    """Everything a recipe can name: what it is, its paper, and where it comes from."""
    from onestage.config import nearest

    if what is not None and what not in ROOMS:
        raise ValueError(f"unknown sort {what!r}{nearest(what, ROOMS)}")
    for sort in ROOMS if what is None else (what,):
        if markdown:
            typer.echo("\n\n".join(parts_of(sort).values()))
        else:
            console.print(_table(sort, plugins_of(sort)))


def _table(sort: str, plugins: Plugins[Any]) -> Table:
    objectives = sort == "objectives"
    table = Table(title=sort, title_justify="left")
    for column in ("name", *(OF_OBJECTIVES if objectives else ()), "what it is", "from"):
        table.add_column(column, overflow="fold")
    for name in plugins.names():
        try:
            table.add_row(*_row(plugins, name, objectives))
        except ValueError as error:  # a stranger's that does not load must not hide the others
            blank = [""] * len(OF_OBJECTIVES) if objectives else []
            table.add_row(name, *blank, f"[red]{escape(str(error))}[/]", "")
    return table


def _row(plugins: Plugins[Any], name: str, objectives: bool) -> tuple[str, ...]:
    of = plugins.aliases.get(name)
    ours = name in plugins.built_in() and name not in plugins.installed()
    if ours and not objectives:
        says = f"another name of {of}" if of else first_sentence(docstring(plugins, name))
        return name, escape(says), "built in"
    plugin = plugins.locate(name)
    says = f"another name of {of}" if of else first_sentence(_docstring_of(plugin))
    told = facts(plugins.make(name)).values() if objectives else ()
    return name, *told, escape(says), plugin.origin


def _docstring_of(plugin: Plugin[Any]) -> str:
    import inspect
    import sys

    return sys.modules[plugin.found.__module__].__doc__ or inspect.getdoc(plugin.found) or ""
