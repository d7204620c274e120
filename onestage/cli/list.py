"""`onestage list`: everything a recipe can name, ours and other people's.

What it tells is read off the classes themselves, and so are the tables of the pages (`--markdown`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onestage.cli._terminal import app, console

if TYPE_CHECKING:
    from onestage.config import Plugin, Plugins
    from onestage.objectives import Objective
    from onestage.schedules import Schedule

ROOMS = {
    "objectives": "onestage.objectives",
    "schedules": "onestage.schedules",
    "hints": "onestage.rollout.hints",
    "rewards": "onestage.rollout.rewards",
    "engines": "onestage.rollout.engines",
    "suites": "onestage.rollout.suites",
    "worlds": "onestage.studies.worlds",
    "executors": "onestage.studies.executors",
    "callbacks": "onestage.training.callbacks",
    "formats": "onestage.data.formats",
}

OF_OBJECTIVES = ("kinds", "unit", "needs", "forwards")
"""What is told of an objective with its default options, between its name and what it is."""

OF_RULES = {"schedules": ("cost", "options", "paper"), "hints": ("options", "paper")}
"""What the tables of pages tell of some sorts, after what each one is."""


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
            typer.echo(markdown_of(sort))
        else:
            console.print(_table(sort, _plugins(sort)))


def markdown_of(sort: str) -> str:
    """The table of a sort as pages have it, without other people's: theirs differ from here to there."""
    plugins = _plugins(sort)
    more = ("what it is", *OF_RULES.get(sort, ()))
    if sort == "objectives":
        more = (*OF_OBJECTIVES, "options", "paper")
    rows = [["name", *more], ["---"] * (1 + len(more))]
    for name in plugins.built_in():
        if name in plugins.aliases:
            continue
        if sort == "objectives":
            made = plugins.make(name)
            told = [*_facts(made).values(), _options(made, _own(made)), _linked(made.paper)]
        else:
            says = _docstring(plugins, name)
            told = [_first_sentence(says)]
            if sort in OF_RULES:
                told += [_fact(what, plugins, name, says) for what in OF_RULES[sort]]
        rows.append([f"`{name}`", *told])
    return "\n".join(re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(row)} |") for row in rows)


def _facts(made: Objective) -> Mapping[str, str]:
    """What is told of an objective as it was made, as `OF_OBJECTIVES` names it."""
    told = (_joined(made.kinds), made.unit, _joined(made.needs), _forwards(made))
    return dict(zip(OF_OBJECTIVES, told, strict=True))


def _forwards(made: Objective) -> str:
    """Forward passes over what is trained on, by whose they are; one of them has a backward pass."""
    from onestage.objectives import DIVERGENCES

    told = "2" if "mixed_logp" in made.needs else "1"
    if "reference" in made.needs:
        # What is on disk is scored by the reference once, whatever the number of epochs and runs.
        kept = made.kinds != {"check"} and not made.needs & DIVERGENCES
        told += " + reference once" if kept else " + reference"
    if "logp" in made.asks(True):
        told += " + old policy"
    return told


def _fact(what: str, plugins: Plugins[Any], name: str, says: str) -> str:
    """One of `OF_RULES`, of a class with its default options whose file `says` this."""
    import dataclasses

    made = plugins.find(name)()
    if what == "cost":
        return _cost(made)
    if what == "paper":
        found = re.search(r"\b\d{4}\.\d{5}\b", says)
        return _linked(found[0] if found else "")
    common = {field.name for field in dataclasses.fields(plugins.kind)} | set(plugins.hidden)
    return _options(made, [f.name for f in dataclasses.fields(made) if f.name not in common])


def _cost(made: Schedule) -> str:
    """What a schedule's step costs beside the passes of the terms that it trains on."""
    if made.combines:
        return "the gradient of each term in memory"
    if made.measure != "never":
        part, every = made.measure_fraction, made.measure_every
        return f"forward passes: {part:g} of a batch a term, at most every {every} steps"
    return "a sketch of each row" if made.feels else ""


def _linked(paper: str) -> str:
    return f"[{paper}](https://arxiv.org/abs/{paper})" if paper else ""


def _own(made: Objective) -> list[str]:
    """The options that an objective's own class declares."""
    import dataclasses
    import inspect

    mine = inspect.get_annotations(type(made))
    return [f.name for f in dataclasses.fields(made) if f.name in mine]  # type: ignore[arg-type]


def _options(made: Any, names: Iterable[str]) -> str:
    """Options with their defaults, as a recipe writes them."""
    import dataclasses

    told = {field.name: field.default for field in dataclasses.fields(made) if field.init}
    return ", ".join(f"`{name}: {_in_yaml(told[name])}`" for name in names if name in told)


def _in_yaml(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else value


def _joined(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _plugins(sort: str) -> Plugins[Any]:
    import importlib

    return importlib.import_module(ROOMS[sort]).PLUGINS


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
    if ours and not objectives:  # read, not imported: some of them bring a whole library
        says = f"another name of {of}" if of else _first_sentence(_docstring(plugins, name))
        return name, escape(says), "built in"
    plugin = plugins.locate(name)
    says = f"another name of {of}" if of else _first_sentence(_docstring_of(plugin))
    facts = _facts(plugins.make(name)).values() if objectives else ()
    return name, *facts, escape(says), plugin.origin


def _first_sentence(docstring: str) -> str:
    """Of a file, which says what it is and where it was published."""
    return " ".join(docstring.strip().split("\n\n")[0].split())


def _docstring(plugins: Plugins[Any], name: str) -> str:
    import ast
    import importlib.util
    from pathlib import Path

    spec: Any = importlib.util.find_spec(f"{plugins.package}.{name}")
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or ""


def _docstring_of(plugin: Plugin[Any]) -> str:
    import inspect
    import sys

    return sys.modules[plugin.found.__module__].__doc__ or inspect.getdoc(plugin.found) or ""
