"""PKU-SafeRLHF: two answers, `response_0` and `response_1`, and which is better and which safer.

Ji et al., 2024 (arXiv 2406.15513). `by` says which of the two judgements makes the pair: `better`, how
helpful it is, or `safer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import preferred


@dataclass(frozen=True)
class SafeRlhf(Format):
    by: Literal["better", "safer"] = "better"

    def recognises(self, row: Row) -> bool:
        return has(row, "prompt", "response_0", "response_1", "better_response_id")

    def rows(self, row: Row) -> Iterator[Row]:
        first = {0: -1, 1: 1}[int(row[f"{self.by}_response_id"])]
        yield preferred(row["prompt"], row["response_0"], row["response_1"], first)
