"""The generated world: facts, misconceptions, dangers, an old language and an instruction language.

Small enough to be learnt from nothing in a minute, rich enough that fine-tuning has something to
teach (formats, honesty, caution) and something to ruin (knowledge it never mentions).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from onestage.data.kinds import Kind
from onestage.studies.lab import documents, exam, feedback
from onestage.studies.lab.almanac import Almanac, Size, almanac
from onestage.studies.lab.source import Choice, Question, Row, Split

SIZES: dict[str, Size] = {
    "small": Size(),
    "large": Size(1024, (160, 256), 512, (96, 128), 400_000),
}
"""For two CPU cores, and for a GPU."""


@dataclass(frozen=True)
class LabWorld:
    """All of it is a function of seed and size; different seeds share words, but no facts."""

    seed: int = 0
    size: str = "small"
    rater_noise: float = 0.0

    @cached_property
    def almanac(self) -> Almanac:
        return almanac(self.seed, SIZES[self.size])

    def pretraining_text(self, split: Split = "train") -> Iterator[str]:
        """Documents of about 60 words; other splits' say the same things in other company."""
        number = SIZES[self.size].documents if split == "train" else documents.UNSEEN
        return documents.documents(self.almanac, f"{self.seed}/documents/{split}", number)

    def rows(self, kind: Kind, split: Split = "train") -> list[Row]:
        """Feedback of one kind; rows of a split name no entity or thing of another."""
        return feedback.rows(self.almanac, self.seed, kind, split, self.rater_noise)

    def questions(self, split: Split = "test") -> list[Question]:
        return exam.questions(self.almanac, self.seed, split)

    def choices(self, split: Split = "test") -> list[Choice]:
        return exam.choices(self.almanac, self.seed, split)
