"""Questions put to the model of a run while it goes: items of a suite until a time is over, prompts to
be looked at. Ranks share the items, tell each other what they found, and go by the main one's clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from onestage.data.prompts import Prompt
from onestage.data.tokenize import prompt_ids
from onestage.models.sharding import whole
from onestage.rollout.engines import Decoding
from onestage.rollout.rewards import Failure
from onestage.rollout.suites import Content, Item, Scores, Subject
from onestage.training.asked import LARGEST, Asked, blocks, sample, worth
from onestage.training.rehearsal import longest_answer

if TYPE_CHECKING:
    from onestage.training.run import Run

SHOWN = 3
"""Answers of each suite that are kept as samples."""


@dataclass
class First:
    """What is known of an item before it is asked: nothing, or its answer and what that took."""

    answers: list[Content] | None = None
    stopped: int = 0
    """Of them, those that were ended for their length."""
    took: float = 0.0


@dataclass
class Asker:
    """Asks the model of a run."""

    run: Run
    subject: Subject
    clock: Callable[[], float]
    samples: list[dict[str, Any]] = field(default_factory=list)
    """A few answers to what was asked last."""
    scoring: float = 0.0
    """Seconds that it took to judge them."""

    def agreed(self, seconds: float) -> float:
        """The main process's, on all."""
        return float(self.run.devices.gather([seconds])[0])

    def rehearse(self, one: Asked, seconds: float) -> First:
        """Settle how long an answer may be to take no more than that. Returns the first item's answer
        where it is as long as it may be, or where nothing is written."""
        first, ended, tried = First(), False, 0

        def ask(most: int) -> tuple[float, bool]:
            nonlocal first, ended, tried
            began, tried = self.clock(), most
            answers, stopped = self.answers(one, one.items[:1], most)
            first = First(answers, stopped, self.agreed(self.clock() - began))
            ended = self.agreed(stopped) > 0
            return first.took, ended

        one.most = longest_answer(ask, seconds / 2)  # and the other half for more items
        return First() if ended and one.most != tried else first

    def more_than(self, one: Asked, most: int) -> bool:
        """Have the first item answered in at most so many tokens; whether it was ended for that."""
        _, stopped = self.answers(one, one.items[:1], most)
        return self.agreed(stopped) > 0

    def ask(
        self, one: Asked, count: int, seconds: float, first: First | None = None
    ) -> dict[str, Scores]:
        """Scores by item of the first `count` items, or as many as there is time for. first: where one
        item is asked whatever it takes, and what is known of it."""
        scores: dict[str, Scores] = {}
        failed, self.samples, one.stopped = 0, [], 0
        began, cold = self.clock() - (first.took if first else 0.0), 0.0
        for block in blocks(one.items[:count], 1 if math.isfinite(seconds) else LARGEST):
            used = self.agreed(self.clock() - began)
            known = len(scores) + failed
            each = (used - cold) / known if known else one.each
            if (known or not first) and not 0 <= used + each * len(block) <= seconds:
                break
            found = self.answered(one, block, first if not known else None)
            # The first time, checkers are started.
            cold = cold or (self.agreed(self.scoring) if first else 0.0)
            failed += sum(isinstance(score, Failure) for score in found.values())
            scores |= {i: score for i, score in found.items() if not isinstance(score, Failure)}
        if scores or failed:
            one.each = (self.agreed(self.clock() - began) - cold) / (len(scores) + failed)
        if failed:
            self.run.say(f"evaluate: {failed} answers to {one.name} could not be judged")
        return scores

    def answered(
        self, one: Asked, block: Sequence[Item], first: First | None = None
    ) -> dict[str, Scores | Failure]:
        """What some items are worth. first: what this rank has of their answers already."""
        part, found = self._own(block), list[Any]()
        if first is not None and first.answers is not None:
            answers, stopped = first.answers, first.stopped
        else:
            answers, stopped = self.answers(one, block, one.most)
        one.stopped += sum(self.run.devices.gather([stopped]))
        began = self.clock()
        scores = one.suite.score(part, answers) if part else []
        self.scoring = self.clock() - began
        for item, answer, score in zip(part, answers, scores, strict=True):
            found.append((item.id, score))
            if len(self.samples) < SHOWN:
                text = one.suite.shown(item, answer).get("completion", "")
                told = [] if isinstance(score, Failure) else worth(score)
                self.samples.append(sample(one.name, item.prompt, text, told))
        every = dict(self.run.devices.gather(found))
        return {item.id: every[item.id] for item in block}

    def answers(
        self, one: Asked, block: Sequence[Item], most: int | None
    ) -> tuple[list[Content], int]:
        """This rank's answers to its part of some items, of at most so many tokens, and how many of them
        were ended for that."""
        part = self._own(block)
        subject = replace(self.subject, most=most, stopped=[])
        with self.asking():
            answers = one.suite.ask(subject, part) if part else []
        return answers, len(subject.stopped)

    def _own(self, block: Sequence[Item]) -> list[Item]:
        return list(block)[self.run.accelerator.process_index :: self.run.devices.ranks]

    def asking(self) -> ExitStack:
        stack = ExitStack()
        for context in (
            torch.no_grad(),
            self.run.policy.evaluating(),
            whole(self.run.policy),
            self.run.accelerator.autocast(),
        ):
            stack.enter_context(context)
        return stack


@dataclass
class Prompts:
    """Texts that are answered to be looked at."""

    asker: Asker
    texts: list[Prompt]
    allowed: int
    """Tokens of an answer, by the section."""
    most: int | None = None
    """Tokens of an answer that fits the share; None: as many as are allowed."""
    took: float = 0.0
    """Seconds of all answers."""
    _written: list[dict[str, Any]] = field(default_factory=list)

    def rehearse(self, seconds: float) -> None:
        """Settle how long answers may be to take no more than that, and show what is written."""
        tried: list[int] = []

        def ask(most: int) -> tuple[float, bool]:
            tried.append(most)
            return self._answer(most)

        self.most = longest_answer(ask, seconds)
        if self.most is not None and self.most != tried[-1]:
            self._answer(self.most)
        self._show()

    def more_than(self, most: int) -> bool:
        """Have the first answered in at most so many tokens; whether that was ended for it."""
        return self._answer(most, 1)[1]

    def show(self) -> None:
        """Answer them, and keep the answers as samples."""
        self._answer(self.most)
        self._show()

    def _show(self) -> None:
        pairs = zip(self.texts, self._written, strict=True)
        lines = [sample("prompts", text.turns, one["completion"], []) for text, one in pairs]
        run = self.asker.run
        if run.folder is not None:
            run.folder.samples(run.step, lines)

    @property
    def shortened(self) -> bool:
        """Whether answers are ended sooner than the section has it."""
        return self.most is not None and self.most < self.allowed

    def _answer(self, most: int | None, number: int | None = None) -> tuple[float, bool]:
        """Answer them, or the first few; the seconds, and whether one was ended for its length."""
        began, how = self.asker.clock(), Decoding(self.allowed, temperature=0)
        subject = replace(self.asker.subject, most=most, stopped=[])
        asked = [
            prompt_ids(subject.tokenizer, one.turns, one.template) for one in self.texts[:number]
        ]
        with self.asker.asking():
            self._written = subject.continued(asked, how, [str(n) for n in range(len(asked))])
        self.took = self.asker.agreed(self.asker.clock() - began)
        return self.took, self.asker.agreed(len(subject.stopped)) > 0
