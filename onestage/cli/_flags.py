"""Flags that commands share, and flags made from a section: said once, in the section's own words."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from onestage.config import Section, checked

ModelName = Annotated[str, typer.Option(help="A model folder, adapter folder, or hub id.")]
Tokenizer = Annotated[str | None, typer.Option(help="Default: the model's own.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Kind = Annotated[str | None, typer.Option(help="The kind of the rows.")]
Column = Annotated[
    list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Rename a column; repeatable.")
]
Encoding = Annotated[
    str | None, typer.Option(help="Of a file of text that is not in UTF-8: cp1252, utf-16, ...")
]
Delimiter = Annotated[
    str | None, typer.Option(help="What separates the cells of a .csv or .tsv: ';', tab, ...")
]
Subset = Annotated[str | None, typer.Option(help="Of a hub data set; a workbook's sheet.")]
ScoreRange = Annotated[tuple[float, float], typer.Option(help="Range of given scores.")]


def flags(
    section: type[Section],
    *,
    arguments: Collection[str] = (),
    without: Collection[str] = (),
    panels: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for every field of a section, and the values as its first argument.

    A field's docstring is the flag's help; where it ends in `Default: ...`, that is shown as the default
    of a field without one. The fields of a section inside are flags too, and are told from their
    defaults by not being given. arguments: fields that have no flag but stand by themselves; without:
    fields that are no flags; panels: headings of the help under which fields stand.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        told = list(_flags_of(section, arguments, without, panels or {}))
        names = {flag.name for flag in told}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            asked = {name: given.pop(name) for name in names}
            command(asked, **given)

        every = sorted([*told, *own], key=lambda flag: flag.default is not inspect.Parameter.empty)
        signature = inspect.Signature(every)
        run.__signature__ = signature  # type: ignore[attr-defined]  # which typer reads
        run.__annotations__ = {flag.name: flag.annotation for flag in every}
        return run

    return decorate


def made(section: type[Section], asked: Mapping[str, Any]) -> Any:
    """The section of some flags' values. Raises `ValueError`, in lines, for what it does not allow."""
    values = {name: value for name, value in asked.items() if name in section.model_fields}
    for name, field in section.model_fields.items():
        inner = _section_in(field)
        if inner is None or name in asked:
            continue
        given = {k: v for k, v in asked.items() if k in inner.model_fields and v is not None}
        if given:
            values[name] = made(inner, given)
    return checked(section, values)


def _flags_of(
    section: type[Section],
    arguments: Collection[str],
    without: Collection[str],
    panels: Mapping[str, str],
) -> Iterator[inspect.Parameter]:
    for name, field in section.model_fields.items():
        inner = _section_in(field)
        if name in without:
            continue
        if inner is None:
            kind = typer.Argument if name in arguments else typer.Option
            default = field.get_default(call_default_factory=True)
            yield _flag(name, field, kind, field.annotation, default, panels.get(name))
            continue
        for part, option in inner.model_fields.items():
            if part not in without:
                optional = option.annotation | None  # type: ignore[operator]
                yield _flag(part, option, typer.Option, optional, None, panels.get(name))


def _flag(
    name: str, field: FieldInfo, kind: Any, annotation: Any, default: Any, panel: str | None
) -> inspect.Parameter:
    text, said, shown = (field.description or "").replace("\n", " ").partition(" Default: ")
    more: dict[str, Any] = {"rich_help_panel": panel}
    if said:
        more["show_default"] = shown.rstrip(".")
    elif default is None and field.default is not None:
        more["show_default"] = f"{field.default:g}"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else default,
        annotation=Annotated[annotation, kind(help=text, **more)],
    )


def _section_in(field: FieldInfo) -> type[Section] | None:
    """The section that a field may hold, if it holds one."""
    whole = field.annotation
    options = get_args(whole) if get_origin(whole) in (Union, UnionType) else (whole,)
    found = (one for one in options if isinstance(one, type) and issubclass(one, Section))
    return next(found, None)
