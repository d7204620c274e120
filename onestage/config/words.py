"""Sections of options and `--set`, and what is said where they are wrong."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from onestage.config import plain_yaml
from onestage.config.plain_yaml import RecipeError
from onestage.config.switches import switches

S = TypeVar("S", bound=BaseModel)
BITS = 63
"""Of a whole number, beside its sign."""
SHOWN = 200
"""Characters of a wrong value that are repeated."""


class Section(BaseModel):
    """A table of options: unknown keys are refused, numbers are finite, and nothing changes once it is
    made."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    LOOKED_AT_ELSEWHERE: ClassVar[frozenset[str]] = frozenset()
    """Fields whose numbers are no options (rows of data), or have a check that says more."""

    CALLED: ClassVar[Mapping[str, str]] = {}
    """What is said of unknown keys that people bring from other tools."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name:
            for place, wrong in switches(value, cls.model_fields[info.field_name].annotation):
                raise ValueError(f"{place}: {wrong}" if place else wrong)
        return value

    @field_validator("*")
    @classmethod
    def _finite(cls, value: Any, info: ValidationInfo) -> Any:
        # Nothing is above a threshold of NaN, and a step of infinite length leads nowhere: an option
        # that is no number would be obeyed by never doing what it is there for.
        if info.field_name not in cls.LOOKED_AT_ELSEWHERE:
            for place, wrong in unusable(value):
                raise ValueError(f"{place}: {wrong}" if place else wrong)
        return value


def unusable(value: Any, place: str = "", *, bounds: bool = False) -> Iterator[tuple[str, str]]:
    """Where in plain content a number stands that is not finite or that 64 bits do not hold, or a text
    that no file can hold (half of a character), and what is wrong with it.

    bounds: infinity may be (of a choice, which says itself whether it has a use for that: `Plugins`).
    """
    if isinstance(value, float) and not math.isfinite(value):
        if not bounds or math.isnan(value):
            yield place, f"must be a finite number, found {value}"
    elif isinstance(value, int) and value.bit_length() > BITS:
        # Arithmetic with it overflows somewhere in a library, after a page of digits was printed.
        found = f"one of {value.bit_length()} bits, where {BITS} are allowed"
        yield place, f"must be a finite number, found {found}"
    elif isinstance(value, str) and any("\ud800" <= mark <= "\udfff" for mark in value):
        yield place, "must be valid Unicode"
    elif isinstance(value, Mapping):
        bounds = bounds or isinstance(value.get("name"), str)
        for key, one in value.items():
            yield from unusable(one, f"{place}.{key}".lstrip("."), bounds=bounds)
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from unusable(one, f"{place}.{number}".lstrip("."), bounds=bounds)


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest known word if one is near, and all that are known."""
    words = sorted(known)
    close = difflib.get_close_matches(given, words, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(words) or 'none'})"


def first_line(error: BaseException) -> str:
    """What an error says, or its name where it says nothing: never an empty line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def named(given: Any, what: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a choice: given as a name, or as a table with a `name`."""
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, dict) or not isinstance(options.get("name"), str):
        raise RecipeError(f"{what}: expected a name or {{name: ..., options}}, got {given!r}")
    return options["name"], {key: value for key, value in options.items() if key != "name"}


def override(content: dict[str, Any], given: str) -> None:
    """Apply one `section.key=value` to plain data."""
    key, equals, value = given.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {given!r}: expected section.key=value")
    *sections, last = key.split(".")
    target: Any = content
    for section in sections:
        if isinstance(target, list):
            target = target[_place(target, section, given)]
            continue
        # `--set objective.beta=0.2` where the recipe says `objective: dpo`.
        if isinstance(target.get(section), str) and section in ("objective", "schedule"):
            target[section] = {"name": target[section]}
        target = target.setdefault(section, {})
        if not isinstance(target, dict | list):
            raise RecipeError(f"--set {given!r}: {section} is a value, not a section")
    parsed = number(plain_yaml.parsed(value, f"--set {given!r}"))
    if isinstance(target, list):
        target[_place(target, last, given)] = parsed
    else:
        target[last] = parsed


def _place(streams: list[Any], name: str, given: str) -> int:
    """A stream or stage by its name or number."""
    for number, stream in enumerate(streams):
        if name == str(number) or (isinstance(stream, dict) and stream.get("name") == name):
            return number
    known = [stream.get("name") for stream in streams if isinstance(stream, dict)]
    what = "stage" if given.startswith("stages.") else "stream"
    raise RecipeError(f"--set {given!r}: no {what} {name!r}; there are {known}")


def number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def as_numbers(content: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; in lists of values and in recipes people mean a number."""
    if isinstance(content, dict):
        return {key: as_numbers(value) for key, value in content.items()}
    if isinstance(content, list):
        return [as_numbers(value) for value in content]
    if isinstance(content, str) and content[:1] in "0123456789.+-":  # nan and inf may be names
        return number(content)
    return content


def checked(section: type[S], content: Any, error: type[ValueError] = ValueError) -> S:
    """A section of plain content. Raises `error` with a line for each thing that is wrong."""
    try:
        return section.model_validate(content)
    except ValidationError as found:
        raise error("\n".join(explain(problem, section) for problem in found.errors())) from found


def explain(problem: Any, whole: type[BaseModel]) -> str:
    """What pydantic found wrong in a section file (`whole`), in a line."""
    if problem["type"] == "extra_forbidden":
        *place, key = map(str, problem["loc"])
        known = _known_keys(whole, problem["loc"][:-1])
        return f"{'.'.join([*place, key])}: unknown key{_meant(whole, key) or nearest(key, known)}"
    given = problem.get("input")
    plain = not problem["loc"] or isinstance(given, dict | list | BaseModel)
    told = said(problem)
    return told + ("" if plain or "found " in told else _got(given))


def _got(given: Any) -> str:
    if isinstance(given, int) and given.bit_length() > BITS:
        return ""  # pages of digits, and Python itself writes no more than 4,300
    text = repr(given).replace("\n", " ")
    return f", got {text}" if len(text) <= SHOWN else f", got {text[:SHOWN]}..."


def said(problem: Any) -> str:
    """Where something is wrong, and what."""
    place = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _meant(whole: type[BaseModel], key: str) -> str:
    """Of a key that is ours in another section, or another tool's for one of ours: where ours is."""
    called = whole.CALLED.get(key) if issubclass(whole, Section) else None
    if called:
        return f"; {called}"
    sections = (
        (name, section)
        for name, field in whole.model_fields.items()
        for section in (field.annotation, *get_args(field.annotation))
        if isinstance(section, type) and issubclass(section, BaseModel)
    )
    places = {f"{name}.{key}" for name, section in sections if key in section.model_fields}
    return f"; it is {places.pop()}" if len(places) == 1 else ""


def _known_keys(whole: type[BaseModel], place: Sequence[Any]) -> list[str]:
    section: Any = whole
    for part in place:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)
