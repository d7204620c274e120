"""LLaMA-Factory: pairs (`chosen`, `rejected`) and thumbs (`kto_tag`), in Alpaca's and ShareGPT's forms.

Alpaca: `instruction` (+ `input`, `system`, `history`) with `chosen` and `rejected`, or an `output` of
two, the better one first. ShareGPT: `conversations` up to the user's turn, and one message on each side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onestage.data.formats import Format, Row, has
from onestage.data.sharegpt import alpaca_turns, sharegpt_messages


@dataclass(frozen=True)
class LlamaFactory(Format):
    def recognises(self, row: Row) -> bool:
        if has(row, "conversations"):
            return has(row, "chosen", "rejected") or has(row, "kto_tag")
        if not has(row, "instruction"):
            return False
        both = isinstance(row.get("output"), list) and len(row["output"]) == 2
        return both or has(row, "chosen", "rejected") or has(row, "output", "kto_tag")

    def rows(self, row: Row) -> Iterator[Row]:
        tools = {"tools": row["tools"]} if row.get("tools") else {}
        if has(row, "conversations"):
            turns = sharegpt_messages(row["conversations"], row.get("system"))
        else:
            turns = _alpaca(row)
        if has(row, "kto_tag"):
            last = turns[-1:] if has(row, "conversations") else row["output"]
            before = turns[:-1] if has(row, "conversations") else turns
            yield {"prompt": before, "completion": last, "label": row["kto_tag"], **tools}
            return
        sides = row["output"] if not has(row, "chosen") else (row["chosen"], row["rejected"])
        chosen, rejected = map(_side, sides)
        yield {"prompt": turns, "chosen": chosen, "rejected": rejected, **tools}


def _alpaca(row: Row) -> Any:
    more = row.get("input") or ""
    asked = f"{row['instruction']}\n\n{more}" if more.strip() else row["instruction"]
    before = alpaca_turns(row.get("system"), row.get("history"))
    return [*before, {"role": "user", "content": asked}] if before else asked


def _side(said: Any) -> Any:
    return said if isinstance(said, str) else sharegpt_messages([said])
