"""Formats in which others write feedback, and what rows of ours are made of them.

One file of this folder is one format, a frozen dataclass of its options: it recognises a row of its own
by its columns and says which rows of ours it is, as `data/rows.py` reads them. `onestage convert` writes
them to a file, `onestage check` names the format. A format that only calls columns otherwise says so in
`stream`, and needs no conversion.

    @dataclass(frozen=True)
    class Votes(Format):
        def recognises(self, row):
            return has(row, "text_a", "text_b", "vote")

        def rows(self, row):
            better, worse = ("text_a", "text_b") if row["vote"] == "a" else ("text_b", "text_a")
            yield {"prompt": row["question"], "chosen": row[better], "rejected": row[worse]}

No row should be recognised by two formats, nor a row of ours that is read rightly as it is: a row that
two claim is left out until `--from` says which is meant. A rater's name goes into `annotator`: what
several say of one answer is made one afterwards (`data/annotators.py`).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onestage.config import Plugins
from onestage.data._row_error import RowError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Format(abc.ABC):
    """The contract."""

    stream: ClassVar[Mapping[str, Any]] = {}
    """Options of a stream by which such rows are read as they are; {} where they must be converted."""
    scaled: ClassVar[bool] = True
    """Whether its scores are in [0, 1]; else as people gave them, in a range that must be said."""

    def stands(self, row: Row) -> bool:
        """Whether a row says the same when it is read by `stream` as it stands."""
        return bool(self.stream)

    @abc.abstractmethod
    def recognises(self, row: Row) -> bool:
        """Whether the columns of a row are this format's, and nobody else's."""

    @abc.abstractmethod
    def rows(self, row: Row) -> Iterable[Row | RowError]:
        """The rows of ours that a row is made into; a RowError for a part that makes none.

        Raises RowError, with one sentence, for a row that says nothing usable (`tie` where it prefers
        neither side). What else a malformed row raises (KeyError, TypeError, ...) counts as a row that
        is not of this format after all, so that its parts need not be checked before they are used.
        """


PLUGINS = Plugins("format", __name__, Format)  # type: ignore[type-abstract]
names, find, make = PLUGINS.names, PLUGINS.find, PLUGINS.make


def has(row: Row, *columns: str) -> bool:
    """Whether all these columns are there and not null."""
    return all(row.get(column) is not None for column in columns)


def __getattr__(name: str) -> Any:
    """`onestage.data.formats.Arena`: the file is read when the class is asked for."""
    return PLUGINS.by_class(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *(find(name).__name__ for name in PLUGINS.built_in())})
