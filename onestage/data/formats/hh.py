"""Anthropic's helpful and harmless comparisons: `chosen` and `rejected`, two whole transcripts.

Bai et al., arXiv 2204.05862. The dialogues are the same but for the last answer; where a pair differs
before, what they share is the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row
from onestage.data.formats._speech import is_transcript, transcript


@dataclass(frozen=True)
class Hh(Format):
    def recognises(self, row: Row) -> bool:
        return is_transcript(row.get("chosen")) and is_transcript(row.get("rejected"))

    def rows(self, row: Row) -> Iterator[Row]:
        yield {"chosen": transcript(row["chosen"]), "rejected": transcript(row["rejected"])}
