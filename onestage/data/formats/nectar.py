"""Nectar: a transcript as `prompt`, and seven `answers`, each with its `rank`, 1 the best.

Zhu et al., Starling-7B (2023). A rank says an order and no distance; the scores are even steps from 1
for the first to 0 for the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onestage.data._row_error import RowError
from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import is_transcript, transcript


@dataclass(frozen=True)
class Nectar(Format):
    def recognises(self, row: Row) -> bool:
        answers = row.get("answers")
        first = answers[0] if isinstance(answers, list) and answers else None
        return (
            has(row, "prompt") and isinstance(first, Mapping) and {"answer", "rank"} <= first.keys()
        )

    def rows(self, row: Row) -> Iterator[Row]:
        prompt, answers = row["prompt"], row["answers"]
        ranks = [float(answer["rank"]) for answer in answers]
        worst, best = max(ranks), min(ranks)
        if worst == best:
            raise RowError("all answers have the same rank", tie=True)
        yield {
            "prompt": transcript(prompt) if is_transcript(prompt) else prompt,
            "completions": [answer["answer"] for answer in answers],
            "scores": [(worst - rank) / (worst - best) for rank in ranks],
        }
