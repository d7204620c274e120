"""What of a row is no plain text: content in parts, lists that were written as text, pictures."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from onestage.data._row_error import RowError, shown

MEDIA = frozenset(("images", "image", "videos", "video", "audios", "audio"))
"""Columns, and kinds of parts, that no text model can read."""

LISTS = frozenset(("messages", "conversations", "completions", "scores", "history"))
"""Columns (by our names) that are lists whatever they hold."""

SPOKEN = frozenset(("prompt", "completion", "chosen", "rejected"))
"""Columns (by our names) that may be text or a list of messages."""


MESSAGE = re.compile(r"\[\{\s*(['\"])(role|content|from|value)\1\s*:")
"""How a list of messages begins, however it was written: numpy prints them without commas."""


def joined(parts: list[Any] | tuple[Any, ...], name: str) -> str:
    """The text of a content in parts, `[{"type": "text", "text": ...}]`, one behind the other."""
    return "".join([_text(part, f"`{name}[{index}]`") for index, part in enumerate(parts)])


def _text(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    sort = part.get("type") if isinstance(part, Mapping) else None
    if sort in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
        return part["text"]
    if isinstance(sort, str) and any(medium in sort for medium in MEDIA):
        raise RowError(f"{where} is a part of type {sort}: onestage trains on text only")
    if isinstance(sort, str) and sort != "text":
        raise RowError(f"{where} is a part of type {sort}: only parts of type text are read")
    raise RowError(f'{where} must be a part {{"type": "text", "text": ...}}, found {shown(part)}')


def refuse_media(row: Mapping[str, Any]) -> None:
    """RowError for a row with pictures, sound or film, of which its text would speak in vain."""
    for column in MEDIA.intersection(row):
        # A number or a yes is something about pictures, not one.
        if isinstance(row[column], (str, bytes, list, tuple, dict)) and len(row[column]):
            raise RowError(f"found `{column}` in the row: onestage trains on text only")


def unfold(found: dict[str, Any]) -> None:
    """Lists that stand as text, as they do in tables, become lists: of JSON, or as Python shows them.

    A prompt or response does only where it is a whole list of messages: other text begins as it likes.
    """
    listed = [name for name, value in found.items() if type(value) is str and value[:1] == "["]
    for name in listed:
        value = found[name]
        if name in LISTS:
            found[name] = _list(value, name)
        elif name in SPOKEN and value[1:2] == "{":
            found[name] = _spoken(value, name)


def _spoken(value: str, name: str) -> Any:
    """The messages that a text lists; the text itself where it lists none. RowError where it does, in a
    way that cannot be read: its brackets and keys would be learned."""
    found = parsed(value)
    turns = found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else []
    if turns and all({"role", "content"} <= one.keys() for one in turns):
        return turns
    others = bool(turns) and all({"from", "value"} <= one.keys() for one in turns)
    if others or (found is None and MESSAGE.match(value)):
        raise RowError(
            f"`{name}` holds messages as text that cannot be read, {value[:60]!r}: write a list of "
            "{role, content}, or its JSON"
        )
    return value


def _list(value: str, name: str) -> list[Any]:
    found = parsed(value)
    if not isinstance(found, list):
        raise RowError(f"`{name}` must be a list or its JSON, found {shown(value)}")
    return found


def parsed(value: str) -> Any:
    """What a text is the JSON of, or what Python would show so; None where it is neither."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
