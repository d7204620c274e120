"""PRM800K: solutions of MATH problems whose steps people rated -1, 0 or 1.

Lightman et al., arXiv 2305.20050. Each rated step is a row of its own: its prompt is the problem and the
steps before it, its score 0, 1/2 or 1. The solution goes on with the step that was chosen, or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.data.formats import Format, Row


@dataclass(frozen=True)
class Prm800k(Format):
    def recognises(self, row: Row) -> bool:
        question, label = row.get("question"), row.get("label")
        return (
            isinstance(question, Mapping)
            and "problem" in question
            and isinstance(label, Mapping)
            and "steps" in label
        )

    def rows(self, row: Row) -> Iterator[Row]:
        prompt = row["question"]["problem"].strip() + "\n\n"
        for step in row["label"]["steps"]:
            for said in step["completions"] or ():
                if said["rating"] is not None:
                    yield {
                        "prompt": prompt,
                        "completion": said["text"],
                        "score": (said["rating"] + 1) / 2,
                    }
            gone_on = _chosen(step)
            if gone_on is None:
                return
            prompt += gone_on + "\n"


def _chosen(step: Mapping[str, Any]) -> str | None:
    if step.get("human_completion"):
        return step["human_completion"]["text"]
    chosen = step.get("chosen_completion")
    return None if chosen is None else step["completions"][chosen]["text"]
