"""What must reach neither a run folder nor a log: keys, and the addresses that hold one.

A recipe is written into every run's folder, which people share. So a key in it is refused, by its place
and without being repeated, and what is printed or written of the command line has it covered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

KEY = re.compile(
    r"\b(?:sk|pk|rk)[-_][\w-]{16,}|\bhf_[A-Za-z0-9]{16,}|\b(?:gsk|xai|nvapi|r8|glpat)[-_][\w-]{16,}"
    r"|\bAIza[\w-]{30,}|\bgh[a-z]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bAKIA[0-9A-Z]{12,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"
)
"""Of the services that people train with: they begin in a way of their own."""
USER = re.compile(r"(?<=://)(?:[^/\s@?#:]*:[^/\s@?#]*|[^/\s@?#:]{16,})(?=@)")
"""In an address: a password, or a name so long that it is a token."""
PARAMETER = re.compile(
    r"(?i)(?<=[?&])((?:[\w-]*[_-])?(?:api[_-]?key|key|token|secret|password|signature|sig)=)([^&\s'\"]+)"
)
"""Of an address."""
NAMED = re.compile(r"(?i)(?:.*[_-])?(api_?key|secret|password|access_?token|auth_?token|hf_?token)")
"""Options that hold one."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RANDOM = re.compile(r"(?=[^_]*[A-Za-z])(?=[^_]*\d)[A-Za-z0-9]{16,}")
"""A part of a name that nobody would choose."""
ASSIGNED = re.compile(r"(?i)((?:^|[.\s])[\w-]*(?:api_?key|secret|password|_token)=)(\S+)")
"""An option that holds one, as `--set` is told it."""
INSTEAD = (
    "put it into an environment variable, and give that variable's name where one is asked for"
)


def is_variable(name: str) -> bool:
    """Whether a text can be the name of an environment variable and does not look like a key itself."""
    parts = name.split("_")
    return bool(VARIABLE.fullmatch(name)) and not (
        KEY.search(name) or any(RANDOM.fullmatch(part) for part in parts)
    )


def hidden(text: str) -> str:
    """The text with every key covered."""
    return _covered(ASSIGNED.sub(r"\1***", text))


def _covered(text: str) -> str:
    text = PARAMETER.sub(r"\1***", USER.sub("***", text))
    return KEY.sub("***", text)


def secrets(content: Any, place: str = "") -> Iterator[str]:
    """Where plain content holds a key, in sentences that do not repeat it."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            where = f"{place}.{key}".lstrip(".")
            if isinstance(value, str) and value and NAMED.fullmatch(str(key)):
                yield f"{where}: a key must not stand in a file that is copied and kept; {INSTEAD}"
            elif str(key).endswith("api_key_env") and isinstance(value, str):
                yield from _no_variable(value, where)
            else:
                yield from secrets(value, where)
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from secrets(value, f"{place}.{number}".lstrip("."))
    elif isinstance(content, str) and _covered(content) != content:
        yield f"{place}: holds a key, user or password, which would be written to disk; {INSTEAD}"


def _no_variable(name: str, where: str) -> Iterator[str]:
    if not is_variable(name):
        yield (
            f"{where}: expected the name of an environment variable, such as JUDGE_KEY, and what is "
            f"given looks like a key itself ({len(name)} characters, not repeated here)"
        )
