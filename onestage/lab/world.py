"""The generated world: facts, misconceptions, dangers, an old language and an instruction language.

Small enough to be learnt from nothing in a minute, rich enough that fine-tuning has something to
teach (formats, honesty, caution) and something to ruin (knowledge it never mentions).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from onestage.lab import documents, exam, feedback
from onestage.lab.almanac import Almanac, almanac
from onestage.lab.contract import Choice, Question, Row, Split
from onestage.records.record import Kind


@dataclass(frozen=True)
class World:
    """All of it is a function of the seed; different seeds share words, but no facts."""

    seed: int = 0

    @cached_property
    def almanac(self) -> Almanac:
        return almanac(self.seed)

    def pretraining_text(self, split: Split = "train") -> Iterator[str]:
        """Documents of about 60 words; `eval` documents say the same things in other company."""
        return documents.documents(self.almanac, self.seed, split)

    def rows(self, kind: Kind, split: Split = "train") -> list[Row]:
        """Feedback of one kind; rows of `train` never name an entity or thing that `eval` asks of."""
        return feedback.rows(self.almanac, self.seed, kind, split)

    def questions(self, split: Split = "eval") -> list[Question]:
        return exam.questions(self.almanac, self.seed, split)

    def choices(self, split: Split = "eval") -> list[Choice]:
        return exam.choices(self.almanac, self.seed, split)
