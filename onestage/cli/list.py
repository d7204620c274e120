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
    """A line or two for each, which can be read in any width."""
    table = Table(title=f"[bold]{sort}[/]", title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name in plugins.names():
        try:
            table.add_row(name, "\n".join(_lines(plugins, name, sort == "objectives")))
        except ValueError as error:  # a stranger's that does not load must not hide the others
            table.add_row(name, f"[red]{escape(str(error))}[/]")
    return table


def _lines(plugins: Plugins[Any], name: str, objectives: bool) -> list[str]:
    """What it is; of an objective what it takes; and where it comes from, if it is not ours."""
    of = plugins.aliases.get(name)
    ours = name in plugins.built_in() and name not in plugins.installed()
    plugin = None if ours else plugins.locate(name)
    told: list[str] = []
    if objectives:
        kinds, unit, needs, forwards = facts(plugins.make(name)).values()
        told = [kinds, f"counted by {unit}", f"needs {needs}", f"forward passes: {forwards}"]
    if plugin is not None:
        told.append(f"from {plugin.origin}")
    if of:
        says = f"another name of {of}"
    else:
        text = docstring(plugins, name) if plugin is None else _docstring_of(plugin)
        says = first_sentence(text)
    lines = [escape(says)]
    return [*lines, f"[dim]{escape('; '.join(told))}[/]"] if told else lines


def _docstring_of(plugin: Plugin[Any]) -> str:
    import inspect
    import sys

    return sys.modules[plugin.found.__module__].__doc__ or inspect.getdoc(plugin.found) or ""
