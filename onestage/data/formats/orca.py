"""Orca's rows: a `system` text, a `question`, and a `response`, or `chosen` and `rejected`.

Mukherjee et al., arXiv 2306.02707, and the pairs that were made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import asked, judged


@dataclass(frozen=True)
class Orca(Format):
    def recognises(self, row: Row) -> bool:
        system = next((name for name in ("system", "system_prompt") if name in row), None)
        answered = has(row, "response") or has(row, "chosen", "rejected")
        ours = has(row, "prompt") or has(row, "messages")
        return system is not None and has(row, "question") and answered and not ours

    def rows(self, row: Row) -> Iterator[Row]:
        prompt = asked(row["question"], row.get("system") or row.get("system_prompt"))
        if has(row, "chosen"):
            yield {"prompt": prompt, "chosen": row["chosen"], "rejected": row["rejected"]}
        else:
            yield {"prompt": prompt, "completion": row["response"], **judged(row)}
