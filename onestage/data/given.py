"""Rows that are given in Python: a list of dicts, or a `datasets.Dataset` that is already loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from onestage.data._row_error import shown
from onestage.data.files import BATCH_ROWS
from onestage.data.hub import rows_of_dataset, whole_hub_name
from onestage.data.raw import RawRow
from onestage.data.record import Refusal

MARK = "rows given in Python, digest "


class GivenRows:
    """Rows that stand in no file. Those of the same content are equal, and cached once."""

    def __init__(self, rows: Any) -> None:
        self.rows = tuple(rows) if isinstance(rows, list | tuple) else rows

    @cached_property
    def digest(self) -> str | None:
        """Of the content; None of a data set that can only be read through (an `IterableDataset`)."""
        if not isinstance(self.rows, tuple):
            return (
                getattr(self.rows, "_fingerprint", None) if hasattr(self.rows, "__len__") else None
            )
        digest = hashlib.blake2b(digest_size=16)
        for row in self.rows:
            digest.update(_content(row).encode() + b"\n")
        return digest.hexdigest()

    def __str__(self) -> str:
        """What a recipe on disk says in their place: readable, and refused as a path."""
        count = f"{len(self.rows):,} " if hasattr(self.rows, "__len__") else ""
        return f"<{count}{MARK}{self.digest or 'unknown'}>"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GivenRows):
            return NotImplemented
        return self.rows is other.rows or (self.digest is not None and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def read(
        self, label: str, wanted: frozenset[str], block: int = BATCH_ROWS
    ) -> Iterator[RawRow | Refusal]:
        """Every row; `label` stands for the file. Of a data set only `wanted` columns are decoded, so
        many rows together."""
        if not isinstance(self.rows, tuple):
            yield from rows_of_dataset(self.rows, label, wanted, block)
            return
        for number, row in enumerate(self.rows):
            where = f"{label}[{number}]"
            if isinstance(row, Mapping):
                yield RawRow(where, row)
            else:
                yield Refusal(where, f"a row must be a dict, found {shown(row)}")


def place_of(value: object) -> str | GivenRows:
    """Where rows are, as a stream keeps it: a path or name as text, or the rows themselves.

    Raises ValueError for anything else.
    """
    if isinstance(value, GivenRows):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(
                "an empty text is no path; give a file, a folder, a pattern or a hub name"
            )
        return whole_hub_name(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        if value and all(isinstance(one, str | Path) for one in value):
            raise ValueError(
                f"found a list of {len(value)} paths: give each a stream of its own, or all of them as "
                "one pattern (data/*.jsonl)"
            )
        return GivenRows(list(value))
    if hasattr(value, "select_columns") and hasattr(value, "iter"):
        return GivenRows(value)
    raise ValueError(
        f"rows come from a path or a hub name, a list of dicts or a datasets.Dataset, "
        f"found {shown(value)}{_instead(value)}"
    )


def has_splits(value: object) -> bool:
    """Whether it is a `DatasetDict`, whose splits are not all for training."""
    return isinstance(value, dict) and hasattr(value, "cast_column")


def _instead(value: object) -> str:
    if isinstance(value, dict) and has_splits(value):
        return f"; choose one of its splits, {', '.join(map(str, value))}, as in data['train']"
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return "; give datasets.Dataset.from_pandas(...) of a table"
    return "; give list(...) of what can be gone through once" if hasattr(value, "__next__") else ""


def refuse_remembered(place: str | GivenRows) -> None:
    """ValueError for the text that a run folder keeps in the place of rows given in Python."""
    if isinstance(place, str) and place.startswith("<") and MARK in place:
        raise ValueError(f"{place} are on no disk: give the same rows again, in Python")


def _content(row: Any) -> str:
    try:
        return json.dumps(row, default=_plain)
    except (TypeError, ValueError, RecursionError):  # such a row will be refused when it is read
        return repr(row)


def _plain(value: Any) -> Any:
    """What JSON does not know: arrays by their numbers, anything else as it is shown."""
    return value.tolist() if hasattr(value, "tolist") else repr(value)


Place = Annotated[str | GivenRows, PlainValidator(place_of), PlainSerializer(str, when_used="json")]
"""Of a stream: a path, a glob pattern, a hub name, or rows given in Python."""
