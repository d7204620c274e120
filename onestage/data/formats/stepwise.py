"""Stepwise supervision as TRL writes it: a `prompt`, the steps in `completions`, and their `labels`.

Uesato et al., arXiv 2211.14275. Each step is a row of its own, judged right or wrong, whose prompt ends
with the steps before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.data.formats import Format, Row, has


@dataclass(frozen=True)
class Stepwise(Format):
    separator: str = "\n"
    """Between steps."""

    def recognises(self, row: Row) -> bool:
        steps, labels = row.get("completions"), row.get("labels")
        lists = isinstance(steps, list) and isinstance(labels, list)
        return lists and has(row, "prompt") and not has(row, "scores")

    def rows(self, row: Row) -> Iterator[Row]:
        prompt = row["prompt"] + self.separator
        for step, right in zip(row["completions"], row["labels"], strict=True):
            yield {"prompt": prompt, "completion": step, "label": right}
            prompt += step + self.separator
