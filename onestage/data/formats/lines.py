"""A text file with one text a line: a corpus of sentences, or of documents without line breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row


@dataclass(frozen=True)
class Lines(Format):
    def recognises(self, row: Row) -> bool:
        return False  # a text of many lines may as well be one text

    def rows(self, row: Row) -> Iterator[Row]:
        for line in row["text"].split("\n"):
            if line.strip():
                yield {"text": line.rstrip("\r")}
