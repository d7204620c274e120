"""Dolly 15k: an `instruction`, perhaps a `context` that it is about, and a `response`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import asked, judged


@dataclass(frozen=True)
class Dolly(Format):
    def recognises(self, row: Row) -> bool:
        ours = has(row, "output") or has(row, "completion") or has(row, "messages")
        return has(row, "instruction", "response") and "context" in row and not ours

    def rows(self, row: Row) -> Iterator[Row]:
        context, instruction = row["context"] or "", row["instruction"]
        prompt = f"{instruction}\n\n{context}" if context.strip() else instruction
        prompt = asked(prompt, row.get("system") or row.get("system_prompt"))
        yield {"prompt": prompt, "completion": row["response"], **judged(row)}
