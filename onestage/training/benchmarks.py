"""Suites answered while a run goes, on a share of its time: numbers, samples, the best model, the end.

How many items fit is found out at the first evaluation, before the first step: how long an answer may
be (`rehearsal`), then one item, two, four, ... for as long as the run's share has room for five
evaluations of that size. Later ones are of the same items, as often as the measured pace allows; where
answers have grown longer, of the first of them. A change is told with its interval, paired by item with
the answers of the model that the run starts from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.data.prompts import noted
from onestage.rollout import suites
from onestage.rollout.suites import Scores, Subject
from onestage.runfolder import EVALUATIONS, json_lines
from onestage.stats import Estimate
from onestage.training.asked import (
    FEWEST,
    Asked,
    best_of,
    check_best,
    drawn,
    finite,
    made,
    scores_at,
    texts_of,
)
from onestage.training.asker import Asker, Prompts
from onestage.training.pace import FIRST, Pace
from onestage.training.questions import Evaluate
from onestage.training.rehearsal import seconds_of_a_step

if TYPE_CHECKING:
    from onestage.training.run import Run


class Benchmarks:
    """What a run is asked; made before the first step. Raises `RecipeError` where it cannot be asked."""

    def __init__(
        self, run: Run, section: Evaluate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run, self.section, self.clock = run, section, clock
        self.pace = Pace(section.share, run.steps)
        subject = Subject.of(run.policy, run.loaded.tokenizer)
        self.asker = Asker(run, subject, clock)
        self.asked = [
            Asked(name, suite, drawn(name, suites.chosen(suite, subject.templated)))
            for name, suite in made(section).items()
        ]
        self.next = 0
        """The step of the next evaluation."""
        self.count = self.left_out = 0
        """Evaluations made, and those that were wanted and for which there was no time."""
        self.best = best_of(section.best, self.asked)
        self.latest: dict[str, Mapping[str, Scores]] = {}
        """By suite, what the answers were worth when it was last asked."""
        texts = texts_of(section.prompts, subject.templated)
        for note, count in noted(subject.tokenizer, texts).items():
            run.say(f"evaluate.prompts: of {count} of {len(texts)}: {note}")
        self.prompts = Prompts(self.asker, texts, section.max_completion_length) if texts else None
        self._decides = True  # the number that is to: whether it has always been one
        self._since = self.clock()
        self._aside = 0.0
        """Of the seconds since, those that are counted otherwise."""

    def begin(self) -> dict[str, float]:
        """The run starts, or goes on: what is measured of the model before it is asked at any step."""
        found = {} if self.count else self._first()
        self._since, self._aside = self.clock(), 0.0
        return found

    def _first(self) -> dict[str, float]:
        """Evaluate the start model, and settle how many items are asked from now on. A run that goes on
        and is asked for the first time has no answers of its start model."""
        agreed, began = self.asker.agreed, self.clock()
        self.pace.guess = agreed(seconds_of_a_step(self.run, self._one_answer, self.clock))
        self.pace.spent += agreed(self.clock() - began)
        self.next = self.run.steps
        if self.pace.room < self.pace.spent:
            self.prompts = None
            self.run.say(self._none())
            return {}
        budget, began = self.pace.room / min(FIRST, self._wanted()), self.clock()
        waiting, found = len(self.asked) + bool(self.prompts), dict[str, float]()
        asked: list[Asked] = []

        def used() -> float:
            return agreed(self.clock() - began)

        def share() -> float:
            """Of what is left for this evaluation, for one of those that wait."""
            return (budget - used()) / waiting

        for number, one in enumerate(self.asked):
            if self._has_room(used(), number):
                asked.append(one)
                first = self.asker.rehearse(one, share())
                scores = self.asker.ask(one, len(one.items), share() + first.took, first)
                one.count, one.start = len(scores), {} if self.run.step else scores
                found |= self._tell(one, scores)
            waiting -= 1
        check_best(self.section.best, found)
        if self.prompts:
            self.prompts.rehearse(share())
        self.pace.add(used(), self._again + self._for_prompts)
        self.count, self.next = 1, self.pace.next(self.run.step, self.section.steps)
        self.run.say(self._plan(asked))
        return found

    def _has_room(self, used: float, done: int) -> bool:
        """Whether one more suite can be asked now and in the end, if it takes what those before it took.
        The first one is asked."""
        return not done or self.pace.room - used - self._again >= 2 * used / done

    @property
    def _again(self) -> float:
        """Seconds to ask once more what was asked."""
        return sum(one.each * one.count for one in self.asked)

    def after_step(self) -> bool:
        """A step was done: evaluate where that is due; whether the model is the best so far."""
        self.pace.trained += self.clock() - self._since - self._aside
        self._since, self._aside = self.clock(), 0.0
        self.pace.done += 1
        if not (self.run.done or self.run.step >= self.next):
            return False
        found = self._look()
        better = self.judge(found)
        step = self.best_step
        kept = {} if step is None else {"evaluate/kept_step": float(step)}
        self.run.log({"step": self.run.step, **found, "evaluate/share": self.pace.used, **kept})
        if self.run.done:
            self.run.say(self.told())
        return better

    @property
    def keeps(self) -> bool:
        """Whether it says which model is the best."""
        return self.best is not None

    @property
    def best_step(self) -> int | None:
        """Of the best model so far, where it is looked for."""
        return self.best.step if self.best else None

    def _look(self) -> dict[str, float]:
        """Ask, if there is time, and settle when next."""
        if not (self.prompts or any(one.count for one in self.asked)):
            return {}
        average = self.run.average
        if average is None or not average.mean or self.keeps:
            return self._look_at_it()
        with average.in_place():  # which is what will be saved
            return self._look_at_it()

    def _look_at_it(self) -> dict[str, float]:
        asked = [one for one in self.asked if one.count]
        self._settle_pace()
        found: dict[str, float] = {}
        began = self.clock()
        whole = self.pace.room - (0.0 if self.run.done else self.pace.last)  # which is the end's
        for number, one in enumerate(asked):
            used = self.asker.agreed(self.clock() - began) + self._for_prompts
            room = (whole - used) / (len(asked) - number)
            scores = self.asker.ask(one, one.count, room)
            found |= self._tell(one, scores)
        if found or not asked:
            if self.prompts:
                self.prompts.show()
            self.count += 1
        else:
            self.run.say(f"evaluate: no time of the share is left at step {self.run.step}")
            self.left_out += 1
        took = self.asker.agreed(self.clock() - began)
        self.pace.add(took, None if found or not asked else self.pace.last)
        self._aside += took
        planned, every = self.next, self.section.steps
        self.next = self.pace.next(self.run.step, every)
        if every:
            self.left_out += max(0, math.ceil((self.next - planned) / every) - 1)
        return found

    def told(self) -> str:
        """What it has taken, in a line."""
        left = f", {self.left_out} left out for lack of time" if self.left_out else ""
        return (
            f"evaluate: {self.pace.spent:.1f} s of {self.pace.spent + self.pace.trained:.1f} s "
            f"({self.pace.used:.1%}, allowed {self.section.share:.1%}); evaluations: {self.count}{left}"
        )

    def judge(self, found: Mapping[str, float]) -> bool:
        """Whether the named metric is among some numbers and better than ever; ends the run where it has
        not been for long."""
        best = self.best
        value = found.get(best.key) if best else None
        if best is None or value is None:
            return False
        if math.isnan(value):
            if self._decides:
                self.run.say(
                    f"evaluate.best: {best.key} is no number, and decides nothing while it is"
                )
            self._decides = False
            return False
        if best.judge(self.run.step, value, self.latest.get(best.name, {})):
            return True
        if self.section.patience is not None and best.waited >= self.section.patience:
            self.run.say(
                f"evaluate: {self.section.best} was best at step {best.step} ({best.value:.4g}) and "
                f"has not been better in {best.waited} evaluations; the run ends here"
            )
            self.run.enough = True
        return False

    def _tell(self, one: Asked, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The numbers of one suite for the metrics, and all of them beside."""
        self.latest[one.name] = scores
        if not scores:
            return {}
        now = one.suite.summarise(scores)
        before = {i: one.start[i] for i in scores if i in one.start}
        then = one.suite.summarise(before) if before else {}
        found = {f"suite/{one.name}/items": float(len(scores))}
        if one.stopped:
            found[f"suite/{one.name}/stopped"] = float(one.stopped)
        facts: dict[str, Any] = {}
        for name, value in now.items():
            key = f"suite/{one.name}/{name}"
            found[key] = value.value
            lower = one.suite.lower_is_better(name)
            facts[name] = {"value": value.value, "stderr": finite(value.stderr), "lower": lower}
            if name in then and self.run.step:
                change: Estimate = value - then[name]
                facts[name] |= {"change": change.value, "half": finite(change.half)}
        if self.run.folder is not None:
            self.run.folder.samples(self.run.step, self.asker.samples)
            told = {"suite": one.name, "headline": one.suite.headline, "metrics": facts}
            self.run.folder.evaluations(
                {
                    "step": self.run.step,
                    **told,
                    "scores": {i: suites.told(s) for i, s in scores.items()},
                }
            )
        return found

    def _wanted(self) -> int:
        """Evaluations that the recipe asks for."""
        every = self.section.steps
        return FIRST if every is None else 2 + (self.run.steps - 1) // every

    def _settle_pace(self) -> None:
        run = self.run
        if run.options.max_tokens and run.tokens:
            self.pace.steps = min(run.steps, round(run.step * run.options.max_tokens / run.tokens))
        self.pace.trained = self.asker.agreed(self.pace.trained)

    def _one_answer(self, most: int) -> bool:
        if self.asked:
            return self.asker.more_than(self.asked[0], most)
        return self.prompts is not None and self.prompts.more_than(most)

    @property
    def _for_prompts(self) -> float:
        """Seconds that they take."""
        return self.prompts.took if self.prompts else 0.0

    def _plan(self, asked: Sequence[Asked]) -> str:
        sizes = ", ".join(f"{one.name} {one.count} of {len(one.items):,}" for one in asked)
        plan = (
            f"evaluate: {sizes or 'prompts'}, {self.pace.last:.1f} s at a time; {self._most}, next at "
            f"step {self.next}"
        )
        short = {one.name: one.most for one in asked if one.stopped}
        if self.prompts and self.prompts.shortened:
            short["prompts"] = self.prompts.most
        if short:
            ends = " and ".join(f"to {name} after {most} tokens" for name, most in short.items())
            plan += f"; answers {ends} are ended, for lack of time: a larger share has more"
        if few := [one.name for one in asked if one.count < min(FEWEST, len(one.items))]:
            plan += (
                f"; so few of {', '.join(few)} say nothing of the model: raise evaluate.share, or "
                "measure it in the end (onestage evaluate)"
            )
        if left := [one.name for one in self.asked if one not in asked]:
            decides = self.best is not None and self.best.name in left
            plan += f"; there is no time for {', '.join(left)}: raise evaluate.share"
            plan += ", or evaluate.best decides nothing" if decides else ""
        if self.pace.spent > self.pace.allowed:
            plan += "; that is over already: raise evaluate.share, or ask for shorter answers"
        return plan

    def _none(self) -> str:
        decides = f", and evaluate.best: {self.section.best} decides nothing" if self.best else ""
        return (
            f"evaluate: nothing is asked in so short a run{decides}: {self._most}, of which finding "
            f"that out took {self.pace.spent:.1f} s; raise evaluate.share, or measure the model in the "
            "end (onestage evaluate)"
        )

    @property
    def _most(self) -> str:
        """What all evaluations may take."""
        return (
            f"at most {self.section.share:.1%} of the run's time (about {self.pace.allowed:.1f} s of "
            f"{self.pace.whole:.1f} s)"
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the start model's scores lie in `evaluations.jsonl`."""
        told: dict[str, Any] = {"next": self.next, "count": self.count, "left_out": self.left_out}
        best = self.best.state() if self.best else {}
        sizes = {one.name: [one.count, one.each, one.most] for one in self.asked}
        told["digests"] = {one.name: one.digest for one in self.asked}
        shown = [self.prompts.most, self.prompts.took] if self.prompts else []
        return {"pace": self.pace.state(), **told, **best, "sizes": sizes, "prompts": shown}

    def restore(self, state: Mapping[str, Any], out: Path) -> None:
        """out: the run folder."""
        file = out / EVALUATIONS
        kept = json_lines(file)[0] if file.is_file() else []
        self.pace.restore(state["pace"])
        for name in ("next", "count", "left_out"):
            setattr(self, name, state[name])
        if self.prompts and state.get("prompts"):
            self.prompts.most, self.prompts.took = state["prompts"]
        others = [one.name for one in self.asked if not one.restore(state, kept)]
        for name in others:
            self.run.say(
                f"evaluate: {name} asks other items than before, or otherwise: no change from the start "
                "model is told from now on"
            )
        if self.best and self.best.name not in others:
            self.best.restore(state)
            patience = self.section.patience
            self.run.enough |= patience is not None and self.best.waited >= patience
            if self.best.step is None and state.get("best_step") is not None:
                before = f"{state['best_of']}, by which step {state['best_step']} was"
                self.run.say(
                    f"evaluate.best: {self.best.key} decides from now on, not {before} best"
                )
            if self.best.step is not None:
                self.best.scores = scores_at(self.best.step, self.best.name, kept)
