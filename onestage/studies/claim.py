"""A claim of a study file: what is asked, which way, and from what size on it matters."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from onestage.config import Section


class Claim(Section):
    """Something a paper says, in terms of this study."""

    claim: str
    source: str = ""
    paper: str = ""
    """The paper's own numbers."""
    metric: str
    more: str | dict[str, Any] | None = None
    """A method, or a table of `method` and values of axes, that has more of the metric than `than`. With
    `after: STAGE` the method is meant as it was after that stage, by which a chain is held against
    itself."""
    than: list[str | dict[str, Any]] = []
    trend: dict[str, Any] | None = None
    """Instead: a table of `method`, `over` (an axis) and other axes' values: the metric rises."""
    direction: Literal["more", "less", "same", "at_least", "at_most"] = "more"
    """`less`: less, or falls. `same`: differs by no more than `margin`. `at_least`: is behind by less
    than `margin`, which may be ahead (`at_most`: the same of a metric that is better lower)."""
    margin: float = Field(default=0.0, ge=0)
    """Differences smaller than this are of no practical size: none."""
    design: str = ""
    """What is compared here, in a line, where it is not what the paper compares."""
    decided: date | None = None
    """The day on which direction and margin were settled: before the runs."""
    overturned_by: str = ""
    """What would change our mind."""
    withdrawn: str = ""
    """Why this says nothing of what the paper claims; its verdict is then not given."""
    asked_again: str = ""
    """The study that asks this once more on seeds of its own, where it is undecided here: the ledger
    counts its verdict there, over the seeds of both, and not twice."""
    asked_before: list[str] = []
    """The studies that left this to this one: p is doubled for each."""
    asked_otherwise: str = ""
    """Why the seeds of studies that asked this before do not count here, as other settings. That it was
    asked does."""

    @field_validator("decided")
    @classmethod
    def _past(cls, day: date | None) -> date | None:
        # Tomorrow, here, may be today where the file was written.
        if day is not None and day > date.today() + timedelta(days=1):
            raise ValueError(f"{day} is still to come; give the day on which it was settled")
        return day

    @model_validator(mode="after")
    def _one(self) -> Claim:
        if (self.more is None) == (self.trend is None) or bool(self.than) != (
            self.more is not None
        ):
            raise ValueError("give either more and than, or trend")
        if self.direction in ("same", "at_least", "at_most") and not self.margin:
            raise ValueError(
                f"direction: {self.direction} needs a margin: the largest difference that is none"
            )
        return self
