"""Tulu's problems with verifiable answers: `messages` that end with the user, and `ground_truth`.

Lambert et al., Tulu 3, arXiv 2411.15124. The constraints of IFEval stand there in words of its own, and
are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data._row_error import RowError
from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import listed


@dataclass(frozen=True)
class Rlvr(Format):
    def recognises(self, row: Row) -> bool:
        if not has(row, "messages", "ground_truth"):
            return False
        last = listed(row["messages"])[-1]
        return last["role"] == "user"

    def rows(self, row: Row) -> Iterator[Row]:
        if row.get("constraint") or row.get("constraint_type"):
            raise RowError(
                "a constraint as Tulu writes them, which no reward here judges: reward `ifeval` needs "
                "`instruction_id_list` and `kwargs`"
            )
        source = {"dataset": row["dataset"]} if has(row, "dataset") else {}
        yield {"prompt": listed(row["messages"]), "answer": row["ground_truth"], **source}
