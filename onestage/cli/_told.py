"""What plug-ins say of themselves, as the tables of the pages have it: read off their files and classes.

A page marks where a table stands, and which: `<!-- begin: onestage list schedules --markdown -->`,
the table, `<!-- end -->`; in brackets behind the call, one of several (`parts_of`). `filled` makes what
stands between anew. So a new plug-in needs no line of any page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage.config import Plugins
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

MARKED = re.compile(
    r"(<!-- begin: onestage list (\w+) --markdown(?: \((\w+)\))? -->\n)(.*?)(\n?<!-- end -->)",
    re.DOTALL,
)
"""A table of a page: what it begins with, its sort, its part, what stands there, what it ends with."""


def filled(page: str) -> str:
    """The text of a page, with its tables as plug-ins have them now."""
    return MARKED.sub(lambda m: f"{m[1]}{parts_of(m[2])[m[3] or '']}\n<!-- end -->", page)


def parts_of(sort: str) -> dict[str, str]:
    """The tables of a sort by name, other people's left out: theirs differ from here to there. Most have
    one, without a name; objectives also have `data`, `rewards` and `sampled` (losses) and `opinions`."""
    plugins = plugins_of(sort)
    names = [name for name in plugins.built_in() if name not in plugins.aliases]
    if sort == "objectives":
        return _of_objectives(plugins, [plugins.make(name) for name in names], names)
    rows = []
    for name in names:
        says = docstring(plugins, name)
        more = [_fact(what, plugins, name, says) for what in OF_RULES.get(sort, ())]
        rows.append([f"`{name}`", first_sentence(says), *more])
    return {"": _table(("name", "what it is", *OF_RULES.get(sort, ())), rows)}


def _of_objectives(
    plugins: Plugins[Any], made: Sequence[Objective], names: Sequence[str]
) -> dict[str, str]:
    also = {of: f" = `{alias}`" for alias, of in plugins.aliases.items()}
    losses: dict[str, list[tuple[int, list[str]]]] = {"data": [], "rewards": [], "sampled": []}
    known, agreed = [], []
    for name, one in zip(names, made, strict=True):
        said = [f"`{name}`{also.get(name, '')}", _joined(one.kinds), one.unit, one.equation]
        part = (
            "rewards" if "reward" in one.needs else "sampled" if one.kinds == {"check"} else "data"
        )
        row = [said[0], said[3]] if part == "sampled" else [*said, one.at_start]
        losses[part].append((0 if "text" in one.kinds else 1 if one.unit == "pair" else 2, row))
        options = _options(one, _own(one))
        known.append([f"`{name}`", *facts(one).values(), options, _linked(one.paper)])
        agreed.append(
            [f"`{name}`", one.second_opinion or "hand arithmetic and limiting cases alone"]
        )
    head = ("name", "kinds", "unit", "loss of a unit", "at step 0")
    heads = {
        "data": head,
        "rewards": (*head[:4], "at r = 0"),
        "sampled": ("name", "loss of a unit"),
    }
    tables = {
        part: _table(heads[part], [row for _, row in sorted(rows)]) for part, rows in losses.items()
    }
    return {
        **tables,
        "": _table(("name", *OF_OBJECTIVES, "options", "paper"), known),
        "opinions": _table(("name", "loss and gradient agree with"), agreed),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        head,
        ["---"] * len(head),
        *([cell.replace("|", "\\|") for cell in row] for row in rows),
    ]
    return "\n".join(re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(line)} |") for line in lines)


def facts(made: Objective) -> Mapping[str, str]:
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


def plugins_of(sort: str) -> Plugins[Any]:
    import importlib

    return importlib.import_module(ROOMS[sort]).PLUGINS


def first_sentence(docstring: str) -> str:
    """Of a file, which says what it is and where it was published."""
    return " ".join(docstring.strip().split("\n\n")[0].split())


def docstring(plugins: Plugins[Any], name: str) -> str:
    """That of a built-in one's file, which is read and not imported: some bring a whole library."""
    import ast
    import importlib.util
    from pathlib import Path

    spec: Any = importlib.util.find_spec(f"{plugins.package}.{name}")
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or ""
