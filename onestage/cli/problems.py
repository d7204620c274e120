"""`onestage problems NAME`: rows whose answers the checker NAME can judge, made or converted.

A command is made of the signature of the checker's `rows`: what that takes are the options, with the
types, defaults and help that stand there. So a checker of another package has one too, by name or path.
One that has `converted` as well, which takes `data`, makes problems of a file where one is given.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from onestage.cli._flags import Delimiter, Encoding, Subset
from onestage.cli._inputs import stream_of
from onestage.cli._outputs import Force, free, placed
from onestage.cli._terminal import app, say, then, word
from onestage.runfolder import json_line

HELP = {"help_option_names": ["-h", "--help"]}
Out = Annotated[Path, typer.Option(help="File to write: .jsonl or .jsonl.gz.")]
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A file, folder, glob, address, or hub data set.")
]
Own = Annotated[
    str | None,
    typer.Argument(metavar="[DATA]", help="Rows of your own to make problems of, all of them."),
]
Rows = Callable[..., Iterator[Mapping[str, Any]]]
OfSplit = Annotated[str, typer.Option("--split", help="Of a hub data set.")]
WRITTEN = {"encoding": Encoding, "delimiter": Delimiter, "subset": Subset}
"""How the rows are written, by flag."""


class Makers(typer.core.TyperGroup):
    """The commands of all checkers that make rows."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name.replace("_", "-") for name in _known()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from onestage.rollout.rewards import PLUGINS

        ours = cmd_name.replace("-", "_")
        name = ours if ours in PLUGINS.names() else cmd_name
        rows = getattr(PLUGINS.find(name), "rows", None)
        if rows is None:
            raise ValueError(f"reward {name} makes no problems; {', '.join(_known())} do")
        return _command(cmd_name, name, rows, getattr(PLUGINS.find(name), "converted", None))


problems = typer.Typer(
    cls=Makers,
    help="Make problems whose answers can be checked, with worked solutions, as JSON Lines.",
    no_args_is_help=True,
    context_settings=HELP,
)
app.add_typer(problems, name="problems")


@problems.callback()
def _problems() -> None: ...


def _known() -> list[str]:
    """Names of the checkers that make rows."""
    from onestage.rollout.rewards import PLUGINS

    # Ours are told by their text: importing all of them would import torch, only to list commands.
    found = []
    for name in PLUGINS.built_in():
        spec = importlib.util.find_spec(f"{PLUGINS.package}.{name}")
        if spec and spec.origin and "def rows(" in Path(spec.origin).read_text():
            found.append(name)
    for name in PLUGINS.installed():
        try:
            found += [name] if hasattr(PLUGINS.find(name), "rows") else []
        except ValueError:  # a broken package must not hide the others
            continue
    return found


def _command(called: str, name: str, rows: Rows, converted: Rows | None) -> Any:
    """The command of a checker: `rows` behind options that are read from its signature, and `converted`
    for a file that is given."""
    hints = get_type_hints(rows, include_extras=True)
    read: dict[str, Callable[[Any], Any]] = {}
    options = [_keyword("out", Out), _keyword("force", Force, False)]
    if converted:
        options.append(_keyword("own", Own, None))
    for parameter in inspect.signature(rows).parameters.values():
        if parameter.name == "data":
            options += [_keyword("data", Data), _keyword("of_split", OfSplit, "train")]
            options += [_keyword(name, kind, None) for name, kind in WRITTEN.items()]
            continue
        option, read[parameter.name] = _option(parameter, hints.get(parameter.name, str))
        options.append(option)

    def make(*, out: Path, force: bool, **given: Any) -> None:
        said = {key: given[key] for key in read}
        taken = {key: said[key] if said[key] is None else read[key](said[key]) for key in read}
        if converted and given["own"]:
            own = _rows(given["own"])
            _write(out, converted(own, **_of(rows, converted, taken)), force)
            return
        if "data" in given:
            written = {name: given[name] for name in WRITTEN}
            taken["data"] = _rows(given["data"], split=given["of_split"], **written)
        _write(out, rows(**taken), force)

    make.__doc__ = f"{(inspect.getdoc(rows) or called).splitlines()[0]} (reward: {name})"
    make.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    make.__annotations__ = {option.name: option.annotation for option in options}
    single = typer.Typer(add_completion=False, context_settings=HELP)
    single.command(called)(make)
    return typer.main.get_command(single)


def _of(rows: Rows, converted: Rows, taken: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a conversion has; ValueError for others that somebody has given."""
    made, known = inspect.signature(rows).parameters, inspect.signature(converted).parameters
    for name, value in taken.items():
        if name not in known and value != made[name].default:
            raise ValueError(
                f"--{name.replace('_', '-')}: is for problems that are made, not for rows"
            )
    return {name: value for name, value in taken.items() if name in known}


def _keyword(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _option(
    parameter: inspect.Parameter, hint: Any
) -> tuple[inspect.Parameter, Callable[[Any], Any]]:
    """The option of a parameter of `rows`, and what reads the words it is given.

    Two whole numbers are written 3 or 3-4, a sequence of words or numbers a,b,c, anything else as it is.
    """
    kind, *said = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kind = _given(kind)
    flag, default = f"--{parameter.name.replace('_', '-')}", parameter.default
    given = default is not inspect.Parameter.empty
    read: Callable[[Any], Any]
    if kind == tuple[int, int]:
        default = "-".join(map(str, default)) if given else default
        kind, read = str, partial(_range, flag)
    elif isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Sequence):
        default = ",".join(map(str, default)) if given and default is not None else default
        kind, read = str, partial(_words, flag, next(iter(get_args(kind)), str))
    else:
        # Some words of which one is meant (Literal) are a text here: `rows` says which are allowed.
        kind = read = kind if kind in (int, float, bool) else str
    option = typer.Option(
        flag,
        min=1 if parameter.name == "count" else None,
        help=next((one for one in said if isinstance(one, str)), None),
    )
    return _keyword(parameter.name, Annotated[kind, option], default), read


def _given(kind: Any) -> Any:
    """The type of what is given, where nothing need be."""
    others = [one for one in get_args(kind) if one is not type(None)]
    optional = get_origin(kind) in (Union, UnionType) and len(others) == 1
    return others[0] if optional else kind


def _words(option: str, kind: Any, text: str) -> list[Any]:
    make = kind if kind in (int, float) else str
    try:
        return [make(word.strip()) for word in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{option} {text!r}: expected numbers, as in 3,4") from error


def _range(option: str, text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        return int(low), int(high if dash else low)
    except ValueError as error:
        raise ValueError(f"{option} {text!r}: expected a number, or two as in 3-4") from error


def _rows(data: str, **written: Any) -> Iterator[Mapping[str, Any]]:
    """Rows as they stand; `written`: as a stream says it."""
    from onestage.data.reading import raw_rows
    from onestage.data.record import Refusal

    for row in raw_rows(stream_of(data, "check", None, (0, 1), **written)):
        if isinstance(row, Refusal):
            raise ValueError(f"{row.where}: {row.reason}")
        yield row.columns


def _write(out: Path, rows: Iterable[Mapping[str, Any]], force: bool) -> None:
    """All rows or no file."""
    from onestage.data.writing import rows_file

    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"--out {out}: allowed are files .jsonl and .jsonl.gz")
    free(out, force)
    count = 0
    with rows_file(placed(out)) as opened:
        for row in rows:
            opened.write(json_line(row).encode("utf-8", "backslashreplace"))
            count += 1
        if not count:
            raise ValueError(f"{out} is not written: there is not one row to make a problem of")
    say(f"{out}: {count:,} problems")
    then(f"onestage check {word(out)} --kind check")
