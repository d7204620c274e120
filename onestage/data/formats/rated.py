"""Ratings of one answer in a list: `prompt`, `completion`, `ratings`, and their `annotators`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data._row_advice import ALIASES
from onestage.data.formats import Format, Row
from onestage.data.formats._speech import asked_in, column_for, listed, rater


@dataclass(frozen=True)
class Rated(Format):
    scaled = False

    def recognises(self, row: Row) -> bool:
        answered = any(name in row for name in ("completion", *ALIASES["completion"]))
        lists = (row.get("ratings"), row.get("annotators"))
        return answered and all(
            isinstance(one, list) or (isinstance(one, str) and one.startswith("[")) for one in lists
        )

    def rows(self, row: Row) -> Iterator[Row]:
        said = {"prompt": asked_in(row), "completion": row[column_for(row, "completion")]}
        both = zip(listed(row["ratings"]), listed(row["annotators"]), strict=True)
        for number, (rating, user) in enumerate(both, 1):
            if rating is not None:
                label = "label" if isinstance(rating, bool) else "score"
                yield {**said, label: rating, "annotator": rater(user, number)}
