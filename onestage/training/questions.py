"""Sections of the recipe: what a run is asked while it goes, and what its model must be worth."""

from __future__ import annotations

from pydantic import Field, model_validator

from onestage.config import Choice, Section


class Evaluate(Section):
    """Suites answered while the model is trained, on a share of the run's time. See docs/evaluate.md."""

    suites: list[Choice] = []
    """`ifeval`, or a table of a suite and its options: `{name: ifeval, path: prompts.jsonl}`."""
    prompts: str | list[str] = []
    """Answered greedily at each evaluation, to be looked at: texts, or a file of them."""
    steps: int | None = Field(default=None, ge=1)
    """Not more often than every so many steps; default: as often as the share allows."""
    share: float = Field(default=0.05, gt=0, lt=1)
    """Of the run's time: how many items are asked, and how often, follows from it."""
    best: str = ""
    """Keep the model that is best by a suite (`ifeval`), a metric of it (`ifeval/inst_level_loose_acc`)
    or the held-out `loss`: `model/` is then that one, and `model_last/` the last iterate."""
    patience: int | None = Field(default=None, ge=1)
    """End the run after so many evaluations in which `best` was not better."""
    max_completion_length: int = Field(default=128, ge=1)
    """Of answers to `prompts`."""

    @model_validator(mode="after")
    def _complete(self) -> Evaluate:
        if not self.suites and not self.prompts:
            raise ValueError("evaluate: name suites (ifeval, gsm8k, ...) or prompts")
        if self.patience is not None and not self.best:
            raise ValueError("evaluate.patience waits for a better model: say by what with `best`")
        return self

    def check_beside(self, averaged: bool, bounded: bool) -> None:
        """Raise `ValueError` for what the model that is kept cannot be together with."""
        if self.best and averaged:
            raise ValueError(
                "evaluate.best keeps one iterate and train.average a mean: leave one out"
            )
        if self.best and bounded:
            raise ValueError(
                "evaluate.best keeps one iterate, and keep certifies bounds of the last: leave one out"
            )


class Verdict(Section):
    """What is asked of the trained model, for the words at the end: keep it, or its start model."""

    wanted: float = 0.0
    """By how much measures must have risen, on average: points of 100, or per cent of what they were."""
    allowed: float = Field(default=1.0, ge=0)
    """By how much a measure may fall."""
    by: str = ""
    """The measure that decides between several models; default: the mean of all."""
