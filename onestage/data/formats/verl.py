"""verl's problems, as DAPO's and others are written: `prompt` and `reward_model.ground_truth`.

Sheng et al., HybridFlow, arXiv 2409.19256. A ground truth of several named facts (Countdown's `target`
and `numbers`) becomes those columns; any other is the `answer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onestage.data._row_error import RowError
from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import listed


@dataclass(frozen=True)
class Verl(Format):
    def recognises(self, row: Row) -> bool:
        told = listed(row.get("reward_model"))
        return has(row, "prompt") and isinstance(told, Mapping) and "ground_truth" in told

    def rows(self, row: Row) -> Iterator[Row]:
        truth = listed(row["reward_model"])["ground_truth"]
        if truth is None or truth == "":
            raise RowError("`reward_model` has no ground truth: nothing to compare an answer with")
        facts = dict(truth) if isinstance(truth, Mapping) else {"answer": truth}
        source = {"data_source": row["data_source"]} if has(row, "data_source") else {}
        yield {"prompt": row["prompt"], **facts, **source}
