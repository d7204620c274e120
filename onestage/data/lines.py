"""Lines of text, and rows of JSON that stand in them.

A line ends at a line feed and nowhere else (a text may hold U+2028), a byte order mark is no part of it,
and text is UTF-8 unless another encoding was said. Lines are bounded, so that a file that has none is
named before it fills the memory.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from onestage.config.words import first_line
from onestage.data._row_error import shown
from onestage.data.lists import elements
from onestage.data.raw import DataFile, RawRow
from onestage.data.record import Refusal

BOM = b"\xef\xbb\xbf"

SNIFFED = 64
"""Bytes of a file by which another encoding is known."""

NO_TEXT = "and this holds bytes of zero: it is no file of text"

EXCERPT = 20
"""Characters that are shown on either side of what is no JSON."""

LONGEST = 256 << 20
"""Bytes of a line, or of a text, that is read; longer ones are no rows of anything."""


def json_rows(file: DataFile, encoding: str | None = None) -> Iterator[RawRow | Refusal]:
    """The rows of JSON Lines, or of a `.json` file that is one list."""
    with opened(file.path, encoding) as stream:
        listed = ".json" in file.path.suffixes[-2:] and _starts_list(stream)
        yield from _list_rows(file, stream) if listed else line_rows(file, stream)


def text_rows(file: DataFile, encoding: str | None = None) -> Iterator[RawRow | Refusal]:
    """A file of plain text, which is one text: where another would begin, it does not say."""
    with opened(file.path, encoding) as stream:
        content = stream.read(LONGEST)
        if len(content) == LONGEST:
            raise ValueError(
                f"{file.path}: one text of {_most()} or more: cut it into several files"
            )
        try:
            yield RawRow(file.label, {"text": content.removeprefix(BOM).decode()})
        except UnicodeDecodeError as error:
            raise ValueError(f"{file.path}: {not_utf8(content, error)}") from None


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold something, each with its number, from 1.

    Raises ValueError for text that is not UTF-8.
    """
    with opened(path) as stream:
        for number, line in lines_in(stream):
            if line is None:
                raise ValueError(f"{path.name}:{number}: {too_long()}")
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path.name}:{number}: {not_utf8(line, error)}") from None


def lines_in(stream: IO[bytes], before: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """Lines that hold something, with their numbers; None for one that is longer than a line may be.
    `before`: lines in front of these."""
    number = before
    while line := stream.readline(LONGEST):
        number += 1
        if len(line) == LONGEST and not line.endswith(b"\n"):
            while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        # Not only of the first: files that were put together have one in the middle.
        line = line.removeprefix(BOM)
        if line and not line.isspace():
            yield number, line.rstrip(b"\r\n")


@contextmanager
def opened(path: Path, encoding: str | None = None) -> Iterator[Any]:
    """The bytes of a file, unpacked, in UTF-8 whatever it is written in.

    Raises ValueError for a file in another encoding of Unicode that nobody named, which no line of it
    would make clear, and for one that is not written in the encoding that was named.
    """
    packed = path.suffix.lower() == ".gz"
    with cast(IO[bytes], gzip.open(path)) if packed else path.open("rb") as file:
        stream: Any = file
        if encoding:
            try:
                yield io.BufferedReader(_Recoded(stream, encoding))
            except UnicodeError as error:
                raise ValueError(f"{path}: is not {encoding}: {first_line(error)}") from None
            return
        other = _other_unicode(stream.peek(SNIFFED)[:SNIFFED])
        if other:
            raise ValueError(f"{path}: rows must be UTF-8, {other}")
        yield stream


def _other_unicode(start: bytes) -> str:
    """What is said of a file that begins so, where it is in another encoding of Unicode, or no text."""
    marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    wide = start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE))
    # Without a mark: of the letters of most languages one byte of two is zero.
    even, odd = start[::2].count(0), start[1::2].count(0)
    if not even + odd and not marked:
        return ""
    if wide:
        name = "utf-32"
    elif not marked and 8 * (even + odd) < len(start):
        return NO_TEXT
    elif marked or (odd and not even):
        name = "utf-16" if marked else "utf-16-le"
    elif even and not odd:
        name = "utf-16-be"
    else:
        return NO_TEXT
    return f"this looks like {name[:6].upper()}: save it as UTF-8, or say encoding: {name} (--encoding)"


class _Recoded(io.RawIOBase):
    """A file in another encoding, as bytes of UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding, newline="")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # A character is at most four bytes; a lone surrogate is none, and cannot come out of a file.
        content = self._text.read(len(buffer) // 4).encode()
        buffer[: len(content)] = content
        return len(content)


def line_rows(file: DataFile, stream: IO[bytes], before: int = 0) -> Iterator[RawRow | Refusal]:
    """The rows of JSON Lines, or of some of a file's lines that have so many before them."""
    spread = False
    for number, line in lines_in(stream, before):
        if spread:
            raise ValueError(
                f"{file.path}: one object over several lines: rows stand one a line, or in one list; "
                "`jq -c . FILE` writes objects one a line, `jq -c '.KEY[]' FILE` a list within one"
            )
        where = f"{file.label}:{number}"
        # `{`, or `{"rows": [`: what follows stands within it.
        opens = (
            line is not None and line.lstrip()[:1] == b"{" and line.rstrip()[-1:] in (b"{", b"[")
        )
        spread = number == 1 and opens
        row = too_long() if line is None else _parsed(line)
        if number == 1 and line is not None and isinstance(row, str) and line.lstrip()[:1] == b"[":
            raise ValueError(
                f"{file.path}: a line must be a JSON object, and this begins with a list: "
                f"{_of_a_list(line)}"
            )
        yield Refusal(where, row) if isinstance(row, str) else RawRow(where, row)


def _of_a_list(line: bytes) -> str:
    """What to type where a file of lines begins with a list: of rows, or of what is said in one."""
    with contextlib.suppress(ValueError, RecursionError, IndexError):
        first = json.loads(line)[0]
        for column, marks in (
            ("messages", {"role", "content"}),
            ("conversations", {"from", "value"}),
        ):
            if isinstance(first, dict) and marks <= first.keys():
                return (
                    f"each is one conversation, which is called so by: jq -c '{{{column}: .}}' FILE"
                )
    return (
        "name the file .json if it is one list of rows, or write its objects one a line "
        "(`jq -c '.[]' FILE`)"
    )


def _list_rows(file: DataFile, stream: Any) -> Iterator[RawRow | Refusal]:
    if stream.peek(len(BOM)).startswith(BOM):
        stream.read(len(BOM))
    rows = enumerate(elements(stream, _once, LONGEST))
    while True:
        try:
            index, row = next(rows, (-1, None))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file.path}: starts as a JSON list, but is none: {error}") from error
        if index < 0:
            return
        where = f"{file.label}[{index}]"
        if isinstance(row, dict):
            yield RawRow(where, row)
        else:
            yield Refusal(where, f"a row must be a JSON object, found {shown(row)}")


def _parsed(line: bytes) -> dict[str, Any] | str:
    """The row of one line, or what is wrong with the line."""
    try:
        text = line.decode("utf-8")
        row = json.loads(text, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        return not_utf8(line, error)
    except json.JSONDecodeError as error:
        if "\r" in text:
            return (
                "a line must end with a line feed, found a carriage return alone: convert the file"
            )
        excerpt = text[max(0, error.pos - EXCERPT) : error.pos + EXCERPT]
        return (
            f"not JSON: {error.msg} at column {error.colno}, near {excerpt!r}{_whose(text, error)}"
        )
    except (ValueError, RecursionError) as error:
        return f"not readable JSON: {error}"
    if not isinstance(row, dict):
        return f"a line must be a JSON object, found {shown(row)}"
    return row


def _whose(text: str, error: json.JSONDecodeError) -> str:
    """What a line may be that does not even begin as JSON, or goes on behind it."""
    if text[error.pos :].strip() == ",":
        return ": one object a line, without a comma behind it"
    if text.lstrip()[:1] in ("{", "}", "[", "]", '"'):
        return ""
    return ": a table of commas is named .csv, of tabs .tsv, plain text .txt"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a key that stands in it twice would silently lose the first value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    """What is said of text in an encoding that only its writer knows."""
    return (
        f"a line must be UTF-8, found byte 0x{line[error.start]:02x} at byte {error.start + 1}: say "
        "encoding: cp1252 (--encoding; or latin-1, shift_jis, ...) if it is written in that"
    )


def too_long() -> str:
    return f"a line of {_most()} or more is no row: one row a line, each ending with a line feed"


def _most() -> str:
    return f"{LONGEST >> 20:,} MB" if LONGEST >> 20 else f"{LONGEST:,} bytes"


def _starts_list(stream: Any) -> bool:
    return stream.peek(1024).removeprefix(BOM).lstrip().startswith(b"[")
