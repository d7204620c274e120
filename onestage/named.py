"""Things that recipes name: the file name is the registry.

`dpo` is the one objective defined in `objectives/dpo.py`, `mix` the one schedule in `schedules/mix.py`.
A new file is known at once; there is no list to keep.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from onestage.nearest import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The classes of one package, a dataclass a file."""

    what: str
    """What they are called in messages."""
    package: ModuleType
    kind: type[T]
    apart: frozenset[str]
    """Files of the package that define none."""
    aliases: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Everything that can be named in a recipe."""
        files = {module.name for module in pkgutil.iter_modules(self.package.__path__)}
        return sorted((files - self.apart) | set(self.aliases))

    def find(self, name: str) -> type[T]:
        """The class behind a name; `ValueError` with the nearest known name if there is none."""
        if name not in self.names():
            raise ValueError(f"unknown {self.what} {name!r}{nearest(name, self.names())}")
        file = self.aliases.get(name, name)
        module = importlib.import_module(f"{self.package.__name__}.{file}")
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, self.kind)
            and value.__module__ == module.__name__
        ]
        if len(found) != 1:
            raise TypeError(f"{module.__name__} must define exactly one {self.what}, has {found}")
        return found[0]

    def make(
        self,
        name: str,
        options: Mapping[str, Any],
        given: Mapping[str, Any] | None = None,
        hidden: Collection[str] = (),
    ) -> T:
        """One of them, with its options checked: names, types and ranges.

        `given`: fields that the program fills in. `hidden`: fields that are no options of a recipe.
        """
        found = self.find(name)
        every = [item.name for item in dataclasses.fields(found)]  # type: ignore[arg-type]
        known = [item for item in every if item not in hidden]
        for key in options:
            if key not in known:
                hint = nearest(key, known)
                raise ValueError(f"{self.what} {name}: unknown option {key!r}{hint}")
        filled = {key: value for key, value in (given or {}).items() if key in every}
        try:
            return TypeAdapter(found).validate_python({**options, **filled})
        except ValidationError as error:
            raise ValueError("; ".join(self._told(name, p) for p in error.errors())) from error

    def _told(self, name: str, problem: Any) -> str:
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        return (
            f"{self.what} {name}: {place}: {message}" if place else f"{self.what} {name}: {message}"
        )
