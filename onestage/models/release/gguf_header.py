"""What a GGUF file says of itself in front of its tensors, and whether that is the tokenizer that it was
made of.

A converter that does not know a tokenizer well writes a file that loads and answers, and reads every
prompt in other tokens than the model was trained on. So the header is read back (ggml's gguf.md has the
format) and compared.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Types of values, as `struct` names them."""
TEXT, ARRAY = 8, 9
NORMAL = 1
"""The type of an ordinary token."""
KEY = "tokenizer.ggml."


def header(file: Path) -> dict[str, Any]:
    """The keys and values of a GGUF file, of version 2 or 3. Raises `ValueError` for any other file."""
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF" or _number(opened, "I") not in (2, 3):
            raise ValueError(f"{file} is no GGUF file of version 2 or 3")
        try:
            _tensors, count = _number(opened, "Q"), _number(opened, "Q")
            return {_text(opened): _value(opened, _number(opened, "I")) for _ in range(count)}
        except (struct.error, KeyError, OverflowError, MemoryError) as error:
            raise ValueError(f"{file} ends within its header, or is damaged") from error


def _number(opened: BinaryIO, kind: str) -> Any:
    (value,) = struct.unpack(f"<{kind}", opened.read(struct.calcsize(f"<{kind}")))
    return value


def _text(opened: BinaryIO) -> str:
    return opened.read(_number(opened, "Q")).decode("utf-8", "replace")


def _value(opened: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _text(opened)
    if kind != ARRAY:
        return _number(opened, NUMBERS[kind])
    inner, count = _number(opened, "I"), _number(opened, "Q")
    if inner in NUMBERS:
        size = struct.calcsize(f"<{NUMBERS[inner]}")
        return list(struct.unpack(f"<{count}{NUMBERS[inner]}", opened.read(size * count)))
    return [_value(opened, inner) for _ in range(count)]


def faults(said: dict[str, Any], tokenizer: Any) -> list[str]:
    """In which ways a header's tokenizer is another than ours, in words."""
    tokens: list[str] = said.get(f"{KEY}tokens", [])
    found = []
    markers = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    wrong = [text for i, text in sorted(markers.items()) if i >= len(tokens) or tokens[i] != text]
    if wrong:
        found.append(f"{len(wrong)} special tokens are others there, {wrong[0]!r} among them")
    end = said.get(f"{KEY}eos_token_id", tokenizer.eos_token_id)
    if end != tokenizer.eos_token_id:
        found.append(f"a text ends at token {end} there, and at {tokenizer.eos_token_id} here")
    template = tokenizer.chat_template
    if isinstance(template, str) and said.get("tokenizer.chat_template") != template:
        found.append("the chat template is missing, or another")
    if _made_up(said):
        found.append(
            "its tokens have no scores, so that texts are cut into others: the model's tokenizer.model "
            "has them, which must lie beside tokenizer.json (in the base's folder, for an adapter)"
        )
    return found


def _made_up(said: dict[str, Any]) -> bool:
    """Whether tokens that are merged by their scores (`llama`) all have one."""
    scores = said.get(f"{KEY}scores", [])
    types = said.get(f"{KEY}token_type", [])
    ordinary = [s for s, t in zip(scores, types, strict=False) if t == NORMAL]
    return said.get(f"{KEY}model") == "llama" and len(ordinary) > 1 and len(set(ordinary)) == 1
