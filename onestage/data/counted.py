"""What was read of a source and what was not: its row of a run's data table."""

from __future__ import annotations

from dataclasses import dataclass, field

from onestage.data.encoded import Encoded
from onestage.data.kinds import ASKED
from onestage.data.reading import Reading, skipped
from onestage.data.record import Refusal
from onestage.data.stream import Stream

SHOWN_REFUSALS, SHOWN_ROWS, SHOWN_FILES = 100, 20, 20

ADDED = ("responses", "tokens", "scored_tokens", "refused", "overlong", "ties", "unlabelled", "cut")


@dataclass
class Table:
    """What was read and what was not: the row of one source in a run's data table."""

    source: str
    records: dict[str, int] = field(default_factory=dict)
    """Records to train on, by kind."""
    responses: int = 0
    tokens: int = 0
    scored_tokens: int = 0
    longest: int = 0
    refused: int = 0
    overlong: int = 0
    """Of the refused: longer than max_length."""
    ties: int = 0
    """Pairs that prefer neither side; never trained on."""
    unlabelled: int = 0
    """Responses whose feedback is null; never trained on."""
    unlabelled_rows: list[str] = field(default_factory=list)
    """Where the first of them stand."""
    cut: int = 0
    """Records whose prompt was shortened to fit."""
    unused: dict[str, str] = field(default_factory=dict)
    """Columns that no record was made of, each with the column of ours it may be meant for, or ""."""
    absent: dict[str, str] = field(default_factory=dict)
    """What the stream's `columns` renames (our name -> the source's) and no row has."""
    skipped: int = 0
    """Files of a folder that hold no rows."""
    skipped_files: list[str] = field(default_factory=list)
    """The first of them."""
    reasons: list[str] = field(default_factory=list)
    """`where: reason` of the first refused rows."""
    notes: dict[str, int] = field(default_factory=dict)
    """What rows say and their tokens do not, or what looks like a mistake: of how many records."""

    @property
    def total(self) -> int:
        return sum(self.records.values())

    @property
    def has_problems(self) -> bool:
        """Whether there are records that the policy has to answer."""
        return any(kind in self.records for kind in ASKED)

    def add(self, item: Encoded | Refusal) -> None:
        if isinstance(item, Refusal):
            self.refused += not (item.tie or item.unlabelled)
            self.overlong += item.overlong
            self.ties += item.tie
            self.unlabelled += item.unlabelled
            if item.unlabelled:
                self.unlabelled_rows = [*self.unlabelled_rows, item.where][:SHOWN_ROWS]
            elif len(self.reasons) < SHOWN_REFUSALS:
                self.reasons.append(f"{item.where}: {item.reason}")
            return
        self.records[item.kind] = self.records.get(item.kind, 0) + 1
        self.responses += len(item.scores)
        self.tokens += item.tokens
        self.scored_tokens += item.scored
        self.longest = max(self.longest, *(len(path.ids) for path in item.paths))
        self.cut += item.cut > 0
        for note in item.notes:
            self.notes[note] = self.notes.get(note, 0) + 1

    def merge(self, later: Table) -> None:
        """Add what was read of the rows behind these."""
        for kind, count in later.records.items():
            self.records[kind] = self.records.get(kind, 0) + count
        for note, count in later.notes.items():
            self.notes[note] = self.notes.get(note, 0) + count
        for name in ADDED:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.longest = max(self.longest, later.longest)
        self.reasons = [*self.reasons, *later.reasons][:SHOWN_REFUSALS]
        self.unlabelled_rows = [*self.unlabelled_rows, *later.unlabelled_rows][:SHOWN_ROWS]

    def close(self, reading: Reading) -> None:
        """Take in what stood beside the records, when all are read."""
        self.unused, self.absent = reading.unused(), reading.absent()
        self.notes |= reading.notes()

    def beside(self, stream: Stream) -> None:
        """Take in which files stand beside those of rows; not kept with rows, which may be elsewhere."""
        files = skipped(stream)
        self.skipped, self.skipped_files = len(files), files[:SHOWN_FILES]
