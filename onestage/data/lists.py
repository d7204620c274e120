"""A list of JSON, read one element after another: a file of one is as long as it likes.

Python's own parser wants all of a text at once, but it can say where an element ends. So it is given
more of the text, twice as much each time, until the element and the sign behind it are there.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

START = 1 << 16
"""Bytes that are read at once, where an element does not need more."""
SPACE = re.compile(r"[ \t\n\r]*")
"""What may stand between the signs of JSON."""


class _Text:
    """A text that is read on, of which the part from `at` on is held."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.held, self.at = "", 0
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
        # Of what is gone: characters, line feeds, and where its last line begins.
        self._before, self._lines, self._line = 0, 0, 0

    def more(self) -> bool:
        """Hold twice as much of the text; False where there is no more."""
        self._drop(self.at)
        content = self._stream.read(max(START, len(self.held)))
        self.held += self._decoder.decode(content, final=not content)
        return bool(content)

    def sign(self) -> str:
        """The next sign that is no space, where `at` is then; "" at the end."""
        while True:
            self.at = behind(self.held, self.at)
            if self.at < len(self.held) or not self.more():
                return self.held[self.at : self.at + 1]

    def wrong(self, what: str, place: int | None = None) -> ValueError:
        """What is wrong at a place of what is held, by default `at`, in the parser's own words."""
        self._drop(self.at if place is None else place)
        column = self._before - self._line + 1
        return ValueError(f"{what}: line {self._lines + 1} column {column} (char {self._before})")

    def _drop(self, count: int) -> None:
        feeds = self.held.count("\n", 0, count)
        if feeds:
            self._lines += feeds
            self._line = self._before + self.held.rindex("\n", 0, count) + 1
        self._before += count
        self.held, self.at = self.held[count:], 0


def behind(text: str, place: int) -> int:
    """The first place from `place` on where no space is."""
    found = SPACE.match(text, place)
    return found.end() if found else place


def elements(
    stream: IO[bytes], pairs: Callable[[list[tuple[str, Any]]], Any], longest: int
) -> Iterator[Any]:
    """The elements of a list in UTF-8, without a byte order mark.

    pairs: makes the objects, as `object_pairs_hook` of `json`; longest: characters that are read in the
    search for an element's end. Raises ValueError, while it is read, for what is no list.
    """
    text, decoder = _Text(stream), json.JSONDecoder(object_pairs_hook=pairs)
    if text.sign() != "[":
        raise text.wrong("Expecting value")
    text.at += 1
    sign = text.sign()
    while sign != "]":
        yield _element(text, decoder, longest)
        sign = text.sign()
        if sign == ",":
            text.at += 1
            text.sign()
    text.at += 1
    if text.sign():
        raise text.wrong("Extra data")


def _element(text: _Text, decoder: json.JSONDecoder, longest: int) -> Any:
    """The element at a text's place, which moves behind it, onto a comma or the list's end."""
    while True:
        try:
            found, end = decoder.raw_decode(text.held, text.at)
            what, place = "Expecting ',' delimiter", behind(text.held, end)
            if place < len(text.held) and text.held[place] in ",]":
                text.at = place
                return found
        except json.JSONDecodeError as error:
            what, place = error.msg, error.pos
        # Cut off, or wrong: only more of the text can tell.
        begin = text.at
        if len(text.held) - begin > longest or not text.more():
            raise text.wrong(what, place - (begin - text.at))
