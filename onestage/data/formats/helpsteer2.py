"""HelpSteer2: a `prompt`, a `response`, and ratings from 0 to 4 on five scales.

Wang et al., arXiv 2406.08673. The score is that of UNA (arXiv 2408.15339): .65 helpfulness,
.8 correctness, .45 coherence. Prompts of several turns are written with the markers <extra_id_1>User
and <extra_id_1>Assistant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onestage.data.formats import Format, Row, has
from onestage.data.scores import rated_score

RATINGS = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45}
TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


@dataclass(frozen=True)
class HelpSteer2(Format):
    stream = {"columns": {"completion": "response"}, "ratings": RATINGS, "score_range": [0, 4]}

    def recognises(self, row: Row) -> bool:
        return has(row, "prompt", "response", *RATINGS) and not has(row, "completion")

    def stands(self, row: Row) -> bool:
        return TURN.search(row["prompt"]) is None

    def rows(self, row: Row) -> Iterator[Row]:
        score = rated_score(row, RATINGS, (0, 4))
        yield {"prompt": turns_of(row["prompt"]), "completion": row["response"], "score": score}


def turns_of(prompt: str) -> Any:
    """The prompt, as messages where it has several turns."""
    first, *rest = TURN.split(prompt)
    if not rest:
        return prompt
    said = zip(rest[::2], rest[1::2], strict=True)
    turns = [{"role": who.lower(), "content": text.strip()} for who, text in said]
    turns = turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns
    return [{"role": "user", "content": first.strip()}, *turns]
