"""A look in minutes: the first questions of five tasks of `lm-eval`, without examples in front.

Facts, common sense, reading a pronoun, common errors, arithmetic: enough to see a model that was broken,
too few to rank two good ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onestage.rollout.suites._harness import Harness, Part

PARTS = (
    Part("arc_easy", "arc_easy", 0, ("acc_norm",)),
    Part("hellaswag", "hellaswag", 0, ("acc_norm",)),
    Part("winogrande", "winogrande", 0, ("acc",)),
    Part("truthfulqa", "truthfulqa_mc2", 0, ("acc",)),
    Part("gsm8k", "gsm8k", 0, ("exact_match,flexible-extract",)),
)


@dataclass(frozen=True)
class Quick(Harness):
    limit: int | None = 100
    """Questions of each task."""

    def parts(self) -> Sequence[Part]:
        return PARTS
