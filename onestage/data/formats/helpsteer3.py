"""HelpSteer3 and the preferences of HelpSteer2: two responses, and which is better, from -3 to 3.

Wang et al., arXiv 2505.11475 and 2410.01257. Below 0 the first is better; 0 is a tie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import preferred
from onestage.data.formats.helpsteer2 import turns_of


@dataclass(frozen=True)
class HelpSteer3(Format):
    def recognises(self, row: Row) -> bool:
        return has(row, "context", "response1", "response2", "overall_preference") or has(
            row, "prompt", "response_1", "response_2", "preference_strength"
        )

    def rows(self, row: Row) -> Iterator[Row]:
        if has(row, "context"):
            first, second, strength = row["response1"], row["response2"], row["overall_preference"]
            yield preferred(row["context"], first, second, float(strength))
            return
        first, second, strength = row["response_1"], row["response_2"], row["preference_strength"]
        yield preferred(turns_of(row["prompt"]), first, second, float(strength))
