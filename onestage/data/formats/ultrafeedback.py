"""UltraFeedback: an `instruction` and the `completions` of four models, each rated by aspect.

Cui et al., arXiv 2310.01377. The score of a completion is the mean of its aspects' ratings (1 to 5),
mapped to [0, 1]; its `overall_score` is known to be wrong for some. Completions without any rating are
no part of the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.data._row_error import RowError
from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import number


@dataclass(frozen=True)
class UltraFeedback(Format):
    def recognises(self, row: Row) -> bool:
        given = row.get("completions")
        first = given[0] if isinstance(given, list) and given else None
        return has(row, "instruction") and isinstance(first, Mapping) and "annotations" in first

    def rows(self, row: Row) -> Iterator[Row]:
        rated = [(one["response"], _score(one["annotations"])) for one in row["completions"]]
        said = [(response, score) for response, score in rated if score is not None]
        if len(said) < 2:
            raise RowError(
                f"a group needs two rated completions, found {len(said)}", unlabelled=True
            )
        yield {
            "prompt": row["instruction"],
            "completions": [response for response, _ in said],
            "scores": [score for _, score in said],
        }


def _score(annotations: Mapping[str, Any]) -> float | None:
    rated = [number((aspect or {}).get("Rating")) for aspect in annotations.values()]
    found = [rating for rating in rated if rating is not None]
    return (sum(found) / len(found) - 1) / 4 if found else None
