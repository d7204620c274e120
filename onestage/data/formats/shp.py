"""Stanford Human Preferences: a post as `history`, two comments, `labels` 1 where A is preferred.

Ethayarajh et al., ICML 2022. `score_A` and `score_B` are net votes, which say how popular a thread was
as well: they do not become scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import preferred


@dataclass(frozen=True)
class Shp(Format):
    def recognises(self, row: Row) -> bool:
        return has(row, "history", "human_ref_A", "human_ref_B", "labels")

    def rows(self, row: Row) -> Iterator[Row]:
        first = {1: -1, 0: 1}[int(row["labels"])]
        yield preferred(row["history"], row["human_ref_A"], row["human_ref_B"], first)
