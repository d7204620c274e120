"""Options that are given and that nothing reads: known by using a thing and watching what it looks at.

An option often means something beside certain values of the others only. What a class looks at while it
is used says which, so that no list of such cases has to be kept, and other people's classes are held to
the same. An option that is read may still change nothing; one that is not read cannot change anything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar

T = TypeVar("T")


def require_read(
    what: str, one: T, use: Callable[[T], object], filled: Collection[str] = ()
) -> None:
    """Raise `ValueError` for an option that is given and that `one`, a dataclass, has no use for.

    what: its kind and name, for the message; use: does everything with it that a run would; filled:
    fields that nobody gives, since a run fills them in.
    """
    given = [name for name in _given(one) if name not in filled]
    if not given:
        return
    for name in sorted(set(given) & _unread(one, use)):
        others = [other for other in given if other != name]
        why = [other for other in others if name not in _unread(_without(one, other), use)]
        beside = ", ".join(f"{other}: {getattr(one, other)}" for other in why)
        how = f"beside {beside}" if beside else "as the other options are"
        raise ValueError(f"{what}: {name} would change nothing {how}; take it out")


def _given(one: Any) -> Iterator[str]:
    """The options that are not as they are by default."""
    for option in fields(one):
        made = option.default_factory
        default = option.default if made is MISSING else made()
        if option.init and default is not MISSING and getattr(one, option.name) != default:
            yield option.name


def _without(one: Any, name: str) -> Any:
    """The same with one option as it is by default; itself where that is none."""
    option = next(option for option in fields(one) if option.name == name)
    made = option.default_factory
    try:
        return replace(one, **{name: option.default if made is MISSING else made()})
    except Exception:  # whatever a stranger's class raises over its own default
        return one


def _unread(one: Any, use: Callable[[Any], object]) -> set[str]:
    """The options that are not read while it is used; none where that cannot be said."""
    seen = set[str]()
    kind: Any = type(one)
    meta: Any = type(kind)

    def look(mine: Any, name: str) -> Any:
        seen.add(name)
        return kind.__getattribute__(mine, name)

    try:
        watched = copy.copy(one)
        # A class of its own, since Python looks for `__getattribute__` there alone.
        own = meta(kind.__name__, (kind,), {"__getattribute__": look, "__slots__": ()})
        object.__setattr__(watched, "__class__", own)
        use(watched)
    except Exception:  # whatever a stranger's code raises: what is wrong with it others say
        return set()
    every = {option.name for option in fields(one) if option.init}
    return set() if "__dict__" in seen else every - seen
