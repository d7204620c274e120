"""Things that recipes name: ours, a file each, and other people's, found in three ways.

A built-in one is a file of its folder (`dpo` is the one objective that `objectives/dpo.py` defines; a
new file is known at once, and files whose name begins with an underscore are shared helpers). Other
people's are an instance made in Python, an entry point of an installed package (group
`onestage.objectives`), or an import path or file in the recipe (`"mypackage.losses:Hinge"`,
`"./hinge.py:Hinge"`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError

from onestage.config.switches import in_fields
from onestage.config.words import named, nearest, said, unusable

T = TypeVar("T")
FROM_FILE = "onestage_plugin_"
"""How the names of modules begin that were loaded from a file."""
MAY_BE_INFINITE = {"may_be_infinite": True}
"""Metadata of a dataclass field that has a use for infinity. All other options are finite numbers."""


@dataclass(frozen=True)
class Plugin(Generic[T]):
    """A class that answers to a name, and where it comes from."""

    name: str
    """As a recipe writes it."""
    found: type[T]
    origin: str
    """`built in`, an installed package with its version, or a module or file."""
    digest: str | None
    """Of the source file, for what is not built in: a resumed run refuses another one."""


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The classes of one sort: those of one folder of ours, and other people's."""

    what: str
    """What they are called in messages."""
    package: str
    """The folder, as a module name; also the group of entry points."""
    kind: type[T]
    """Their contract."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    hidden: Collection[str] = ()
    """Fields that are no options of a recipe: what the program fills in."""

    @property
    def group(self) -> str:
        """The group of entry points: `onestage.objectives`, `onestage.rewards`, ..."""
        return f"onestage.{self.package.rpartition('.')[2]}"

    def names(self) -> list[str]:
        """Everything that can be named in a recipe, installed packages' included."""
        return sorted({*self.built_in(), *self.installed()})

    def built_in(self) -> list[str]:
        """Our own."""
        return sorted({*_files(self.package), *self.aliases})

    def installed(self) -> dict[str, metadata.EntryPoint]:
        """Those of installed packages, by name."""
        return {point.name: point for point in _entry_points().select(group=self.group)}

    def find(self, name: str) -> type[T]:
        """The class behind a name; `ValueError` with the nearest known name if there is none."""
        return self.locate(name).found

    def locate(self, name: str) -> Plugin[T]:
        """The class behind a name, and where it comes from.

        Raises `ValueError` for a name that nobody answers to, one that a package takes from us (which
        can be had by its import path), and a class that breaks the contract.
        """
        if ":" in name or name.endswith(".py"):
            return self._from_path(name)
        installed = self.installed()
        if name in installed and name in self.built_in():
            raise ValueError(
                f"{self.what} {name!r} is built in, and {_package_of(installed[name])} offers one of "
                f"that name too; to use theirs, name it by its path: {installed[name].value!r}"
            )
        if name in installed:
            return self._from_package(installed[name])
        if name not in self.built_in():
            raise ValueError(f"unknown {self.what} {name!r}{nearest(name, self.names())}")
        module = importlib.import_module(f"{self.package}.{self.aliases.get(name, name)}")
        found = self._classes(module)
        if len(found) != 1:
            raise TypeError(f"{module.__name__} must define exactly one {self.what}, has {found}")
        return Plugin(name, found[0], "built in", None)

    def make(
        self,
        given: str | Mapping[str, Any] | T,
        filled: Mapping[str, Any] | None = None,
    ) -> T:
        """One of them, with its options checked: names, types and ranges.

        `given`: a name, a table `{name: ..., option: ...}`, or one that is made already. `filled`:
        fields that the program fills in, where the class has them and nobody has given them: of one
        that is made already, a copy has them.
        """
        if isinstance(given, self.kind):
            self._require_numbers(type(given).__name__, given)
            return _filled(given, filled or {})
        name, options = named(given, self.what)
        found = self.check(given)
        every = {item.name for item in dataclasses.fields(found) if item.init}
        more = {key: value for key, value in (filled or {}).items() if key in every}
        for place, wrong in in_fields(found, options):
            raise ValueError(f"{self.what} {name}: {place}: {wrong}")
        try:
            one = _adapter(found).validate_python({**more, **options})
        except ValidationError as error:
            told = "; ".join(f"{self.what} {name}: {said(p)}" for p in error.errors())
            raise ValueError(told) from error
        self._require_numbers(name, one)
        return one

    def _require_numbers(self, name: str, one: Any) -> None:
        options = dataclasses.fields(one)
        held = {option.name: getattr(one, option.name, None) for option in options}
        odd = list(in_fields(type(one), held))
        for option in options:
            bounds = option.metadata.get("may_be_infinite", False)
            odd += unusable(held[option.name], option.name, bounds=bounds)
        for place, wrong in odd:
            raise ValueError(f"{self.what} {name}: {place}: {wrong}")

    def check(self, given: Any) -> Any:
        """The class of a name or table, whose options it has; their values are seen when one is made."""
        name, options = named(given, self.what)
        found: Any = self.find(name)
        known = [item.name for item in dataclasses.fields(found) if item.init]
        known = [item for item in known if item not in self.hidden]
        for key in options:
            if key not in known:
                hint = nearest(key, known)
                raise ValueError(f"{self.what} {name}: unknown option {key!r}{hint}")
        return found

    def by_class(self, name: str) -> type[T]:
        """A built-in class by its own name, as in `onestage.objectives.DPO`."""
        files = [one for one in self.built_in() if one not in self.aliases]
        # The likely file first, so that `onestage.objectives.DPO` reads no other.
        files.sort(key=lambda one: one.replace("_", "") != name.lower())
        for file in files if name[:1].isupper() else ():
            if self.find(file).__name__ == name:
                return self.find(file)
        raise AttributeError(f"module {self.package!r} has no attribute {name!r}")

    def _classes(self, module: Any) -> list[type[T]]:
        """The classes of a module that fill the contract and are defined there."""
        return [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, self.kind)
            and value.__module__ == module.__name__
        ]

    def _from_package(self, point: metadata.EntryPoint) -> Plugin[T]:
        try:
            found = point.load()
        except Exception as error:  # whatever a stranger's module raises
            where = f"{point.value} of {_package_of(point)}"
            raise ValueError(f"{self.what} {where} does not load: {_in_a_line(error)}") from error
        return self._strangers(found, point.name, _package_of(point))

    def _from_path(self, path: str) -> Plugin[T]:
        where, _, name = path.rpartition(":") if ":" in path else (path, "", "")
        try:
            module = module_of(where)
        except Exception as error:  # whatever a stranger's module raises
            raise ValueError(f"{self.what} {path!r}: {_in_a_line(error)}") from error
        classes = {one.__name__: one for one in self._classes(module)}
        if name:
            found = getattr(module, name, None)
            if found is None:
                raise ValueError(f"{self.what} {path!r}: {where} has none{nearest(name, classes)}")
        elif len(classes) == 1:
            (found,) = classes.values()
        else:
            shown = ", ".join(f"{where}:{one}" for one in classes) or "no class of that contract"
            raise ValueError(f"{self.what} {path!r}: say which class; there is {shown}")
        return self._strangers(found, path, where)

    def _strangers(self, found: Any, name: str, origin: str) -> Plugin[T]:
        """Raise `ValueError` where a stranger's class cannot be used as one of these."""
        contract = f"{self.package}.{self.kind.__name__}"
        missing = sorted(getattr(found, "__abstractmethods__", ()))
        if not (isinstance(found, type) and issubclass(found, self.kind)):
            why = f"{found!r} is no subclass of {contract}"
        elif missing:
            why = f"{found.__name__} lacks {', '.join(missing)}, which {contract} asks for"
        elif not dataclasses.is_dataclass(found):
            why = f"{found.__name__} must be a dataclass: its fields are its options"
        else:
            theirs: Any = found
            return Plugin(name, theirs, origin, source_digest(theirs))
        raise ValueError(f"{self.what} {name!r}: {why}")


@cache
def _files(package: str) -> tuple[str, ...]:
    """The plug-ins of a folder of ours."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return tuple(module.name for module in modules if not module.name.startswith("_"))


@cache
def _adapter(found: Any) -> TypeAdapter[Any]:
    return TypeAdapter(found)


@cache
def _entry_points() -> Any:
    # Reading those of every installed package takes a tenth of a second, and they do not change.
    return metadata.entry_points()


def plain(value: Any) -> Any:
    """A choice as plain content: what was made in Python by its import path and the options it was
    given."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    kind, found = type(value), {}
    for item in dataclasses.fields(value):
        given = getattr(value, item.name)
        if item.init and given != item.default:
            found[item.name] = plain(given)
    return {"name": f"{kind.__module__}:{kind.__qualname__}", **found}


def _no_class(value: Any) -> Any:
    """The value; `ValueError` for a class in it, of which nobody has said with which options it is
    meant."""
    if isinstance(value, type):
        raise ValueError(f"found the class {value.__name__}; give one of it, {value.__name__}()")
    inside = value.values() if isinstance(value, Mapping) else value
    for one in inside if isinstance(value, Mapping | list | tuple) else ():
        _no_class(one)
    return value


Choice = Annotated[Any, BeforeValidator(_no_class), PlainSerializer(plain, when_used="json")]
"""In a section: a name, a table of a name and options, or what was made of them in Python."""


def plugins_of(kinds: Iterable[type]) -> dict[str, dict[str, str | None]]:
    """Of the classes that are not ours: where each is from, and a digest of its file."""
    strange = {kind for kind in kinds if not kind.__module__.startswith("onestage.")}
    return {
        kind.__qualname__: {"from": kind.__module__, "digest": source_digest(kind)}
        for kind in sorted(strange, key=lambda kind: kind.__qualname__)
    }


def source_digest(found: type) -> str | None:
    """A digest of the file that defines a class; None where it has none (made in a notebook)."""
    file = Path(getattr(sys.modules.get(found.__module__), "__file__", None) or "")
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest() if file.is_file() else None


def _package_of(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _in_a_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def source_of(found: type) -> str:
    """Where the class is defined, as `module_of` finds it, in another process too."""
    module = found.__module__
    from_file = module.startswith(FROM_FILE)
    return str(sys.modules[module].__file__) if from_file else module


def module_of(where: str) -> Any:
    """A module by its import path (packages beside the working folder included), or a Python file.

    Raises whatever its code raises, and `FileNotFoundError`.
    """
    if not where.endswith(".py"):
        with _importing_from(Path.cwd()):
            return importlib.import_module(where)
    file = Path(where).expanduser().resolve()
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    # A name of its own for each file, so that two files of one name are two modules, and the same file
    # asked for twice is one module (classes must be the same object to be compared).
    name = f"{FROM_FILE}{file.stem}_{hashlib.blake2b(bytes(file), digest_size=4).hexdigest()}"
    if name not in sys.modules:
        spec: Any = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up while it is executed
        try:
            with _importing_from(file.parent):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """`onestage` is a script: unlike `python file.py` it does not look where the user stands."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _filled(given: Any, filled: Mapping[str, Any]) -> Any:
    """A copy with the fields that are as they were by default replaced, where they are in `filled`."""
    more = {}
    for item in dataclasses.fields(given):
        made = item.default_factory
        default = item.default if made is dataclasses.MISSING else made()
        if item.init and item.name in filled and getattr(given, item.name) == default:
            more[item.name] = filled[item.name]
    return dataclasses.replace(given, **more) if more else given
