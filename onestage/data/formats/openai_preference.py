"""OpenAI's preference tuning: `input` (messages, tools), `preferred_output`, `non_preferred_output`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row, has


@dataclass(frozen=True)
class OpenAIPreference(Format):
    def recognises(self, row: Row) -> bool:
        return has(row, "input", "preferred_output", "non_preferred_output")

    def rows(self, row: Row) -> Iterator[Row]:
        given = row["input"]
        found = {
            "prompt": given["messages"],
            "chosen": row["preferred_output"],
            "rejected": row["non_preferred_output"],
        }
        yield {**found, "tools": given["tools"]} if given.get("tools") else found
