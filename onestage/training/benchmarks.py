"""Suites answered while a run goes, on a share of its time: numbers, samples, the best model, the end.

How many items fit is found out at the first evaluation, before the first step: one item, two, four, ...
for as long as the run's share has room for five evaluations of that size. Later ones are of the same
items, as often as the measured pace allows; where answers have grown longer, of the first of them. A
change is told with its interval, paired by item with the answers of the model that the run starts from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onestage.data.messages import Turns
from onestage.models.sharding import whole
from onestage.rollout import suites
from onestage.rollout.engines import Decoding
from onestage.rollout.rewards import Failure
from onestage.rollout.suites import Item, Scores, Subject
from onestage.runfolder import EVALUATIONS, json_lines
from onestage.stats import Estimate
from onestage.training.asked import (
    Asked,
    blocks,
    check_best,
    drawn,
    finite,
    key_of,
    made,
    sample,
    texts_of,
    turns,
    worth,
)
from onestage.training.pace import FIRST, Pace
from onestage.training.questions import Evaluate

if TYPE_CHECKING:
    from onestage.training.run import Run

SHOWN = 3
"""Answers of each suite that are kept as samples."""
TRIED = 4
"""Records by which a step's time is guessed."""


class Benchmarks:
    """What a run is asked; made before the first step. Raises `RecipeError` where it cannot be asked."""

    def __init__(
        self, run: Run, section: Evaluate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run, self.section, self.clock = run, section, clock
        self.pace = Pace(section.share, run.steps)
        self.subject = Subject.of(run.policy, run.loaded.tokenizer)
        self.asked = [
            Asked(name, suite, drawn(name, suites.chosen(suite, self.subject.templated)))
            for name, suite in made(section).items()
        ]
        self.next = 0
        """The step of the next evaluation."""
        self.count = self.left_out = 0
        """Evaluations made, and those that were wanted and for which there was no time."""
        self.best: float | None = None
        self.best_step: int | None = None
        self.waited = 0
        """Evaluations since the best one."""
        self.prompts: list[Turns] = texts_of(section.prompts)
        self._samples: list[dict[str, Any]] = []
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
        began = self.clock()
        self.pace.guess = self._agreed(self._seconds_of_a_step())
        self.pace.spent = self._agreed(self.clock() - began)
        budget, began = self.pace.room / min(FIRST, self._wanted()), self.clock()
        found: dict[str, float] = {}
        for number, one in enumerate(self.asked):
            waiting = len(self.asked) - number
            used = self._agreed(self.clock() - began)
            scores = self._ask(one, len(one.items), (budget - used) / waiting, at_least=1)
            one.count, one.start = len(scores), {} if self.run.step else scores
            found |= self._tell(one, scores)
        check_best(self.section.best, found)
        self._show_prompts()
        self.pace.add(self._agreed(self.clock() - began))
        self.count, self.next = 1, self.pace.next(self.run.step, self.section.steps)
        self.run.say(self._plan())
        return found

    def after_step(self) -> bool:
        """A step was done: evaluate where that is due; whether the model is the best so far."""
        self.pace.trained += self.clock() - self._since - self._aside
        self._since, self._aside = self.clock(), 0.0
        self.pace.done += 1
        if not (self.run.done or self.run.step >= self.next):
            return False
        found = self._look()
        better = self.judge(found)
        kept = {} if self.best_step is None else {"evaluate/kept_step": float(self.best_step)}
        self.run.log({"step": self.run.step, **found, "evaluate/share": self.pace.used, **kept})
        if self.run.done:
            self.run.say(self.told())
        return better

    @property
    def keeps(self) -> bool:
        """Whether it says which model is the best."""
        return bool(self.section.best)

    def _look(self) -> dict[str, float]:
        """Ask, if there is time, and settle when next."""
        self._settle_pace()
        found: dict[str, float] = {}
        began = self.clock()
        for number, one in enumerate(self.asked):
            used = self._agreed(self.clock() - began)
            room = (self.pace.room - used) / (len(self.asked) - number)
            scores = self._ask(one, one.count, room)
            found |= self._tell(one, scores)
        if found or not self.asked:
            self._show_prompts()
            self.count += 1
        else:
            self.run.say(f"evaluate: no time of the share is left at step {self.run.step}")
            self.left_out += 1
        took = self._agreed(self.clock() - began)
        self.pace.add(took)
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
        key = key_of(self.section.best, self.asked)
        value = found.get(key) if key else None
        if value is None or math.isnan(value):
            return False
        sign = -1.0 if self._less_is_better(key or "") else 1.0
        better = self.best is None or sign * value > sign * self.best
        if better:
            self.best, self.best_step, self.waited = value, self.run.step, 0
            return True
        self.waited += 1
        if self.section.patience is not None and self.waited >= self.section.patience:
            self.run.say(
                f"evaluate: {self.section.best} was best at step {self.best_step} ({self.best:.4g}) and "
                f"has not been better in {self.waited} evaluations; the run ends here"
            )
            self.run.enough = True
        return False

    def _less_is_better(self, key: str) -> bool:
        if key == "eval/loss":
            return True
        _, name, metric = key.split("/", 2)
        return next(a for a in self.asked if a.name == name).suite.lower_is_better(metric)

    def _ask(self, one: Asked, count: int, seconds: float, at_least: int = 0) -> dict[str, Scores]:
        """Scores by item of the first `count` items, or as many as there is time for."""
        scores: dict[str, Scores] = {}
        began, failed, self._samples = self.clock(), 0, []
        for block in blocks(one.items[:count]):
            used = self._agreed(self.clock() - began)
            known = len(scores) + failed
            each = used / known if known else one.each
            if known >= at_least and not 0 <= used + each * len(block) <= seconds:
                break
            found = self._answered(one, block)
            failed += sum(isinstance(score, Failure) for score in found.values())
            scores |= {i: score for i, score in found.items() if not isinstance(score, Failure)}
        if scores or failed:
            one.each = self._agreed(self.clock() - began) / (len(scores) + failed)
        if failed:
            self.run.say(f"evaluate: {failed} answers to {one.name} could not be judged")
        return scores

    def _answered(self, one: Asked, block: Sequence[Item]) -> dict[str, Scores | Failure]:
        """Ranks share the items, and tell each other."""
        part = list(block)[self.run.accelerator.process_index :: self.run.devices.ranks]
        found: list[Any] = []
        with self._asking():
            answers = one.suite.ask(self.subject, part) if part else []
        scores = one.suite.score(part, answers) if part else []
        for item, answer, score in zip(part, answers, scores, strict=True):
            found.append((item.id, score))
            if len(self._samples) < SHOWN:
                text = one.suite.shown(item, answer).get("completion", "")
                first = [] if isinstance(score, Failure) else worth(score)
                self._samples.append(sample(one.name, item.prompt, text, first))
        told = dict(self.run.devices.gather(found))
        return {item.id: told[item.id] for item in block}

    def _show_prompts(self) -> None:
        if not self.prompts:
            return
        how = Decoding(self.section.max_completion_length, temperature=0)
        asked = [turns(one, self.subject.templated) for one in self.prompts]
        with self._asking():
            written = self.subject.write(asked, how, [str(n) for n in range(len(asked))])
        pairs = zip(self.prompts, written, strict=True)
        lines = [sample("prompts", text, one["completion"], []) for text, one in pairs]
        if self.run.folder is not None:
            self.run.folder.samples(self.run.step, lines)

    def _tell(self, one: Asked, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The numbers of one suite for the metrics, and all of them beside."""
        if not scores:
            return {}
        now = one.suite.summarise(scores)
        before = {i: one.start[i] for i in scores if i in one.start}
        then = one.suite.summarise(before) if before else {}
        found = {f"suite/{one.name}/items": float(len(scores))}
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
            self.run.folder.samples(self.run.step, self._samples)
            told = {"suite": one.name, "headline": one.suite.headline, "metrics": facts}
            self.run.folder.evaluations(
                {
                    "step": self.run.step,
                    **told,
                    "scores": {i: suites.told(s) for i, s in scores.items()},
                }
            )
        return found

    def _asking(self) -> ExitStack:
        stack = ExitStack()
        for context in (
            torch.no_grad(),
            self.run.policy.evaluating(),
            whole(self.run.policy),
            self.run.accelerator.autocast(),
        ):
            stack.enter_context(context)
        return stack

    def _wanted(self) -> int:
        """Evaluations that the recipe asks for."""
        every = self.section.steps
        return FIRST if every is None else 2 + (self.run.steps - 1) // every

    def _settle_pace(self) -> None:
        run = self.run
        if run.options.max_tokens and run.tokens:
            self.pace.steps = min(run.steps, round(run.step * run.options.max_tokens / run.tokens))
        self.pace.trained = self._agreed(self.pace.trained)

    def _agreed(self, seconds: float) -> float:
        """The main process's, on all."""
        return float(self.run.devices.gather([seconds])[0])

    def _seconds_of_a_step(self) -> float:
        """A guess: what it takes to read some records forward and backward; where problems are answered,
        an item of the first suite for each."""
        run, records = self.run, [r for r in self.run.first_records() if not r.is_problem][:TRIED]
        began = self.clock()
        if records:
            rows = run.devices.deal(run.devices.pack(records, run.options.row_budget).rows)
            for place, row in enumerate(rows, 1):
                with run.devices.adding(last=place == len(rows)):
                    run.accelerator.backward(run.devices.look(row, ())["logp"].sum())
            run.masters.gather()
            run.optimizer.zero_grad(set_to_none=True)
        elif self.asked:
            self._answered(self.asked[0], self.asked[0].items[:1])
        each = (self.clock() - began) / max(1, len(records))
        return each * run.options.batch_size

    def _plan(self) -> str:
        sizes = ", ".join(f"{one.name} {one.count} of {len(one.items):,}" for one in self.asked)
        most = f"{self.section.share:.1%} of the run's time"
        plan = (
            f"evaluate: {sizes or 'prompts'}, {self.pace.last:.1f} s at a time; at most {most} (about "
            f"{self.pace.allowed:.0f} s of {self.pace.whole:.0f} s), next at step {self.next}"
        )
        if self.pace.spent > self.pace.allowed:
            plan += "; that is over already: raise evaluate.share, or ask for shorter answers"
        return plan

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the start model's scores lie in `evaluations.jsonl`."""
        told = {"next": self.next, "count": self.count, "left_out": self.left_out}
        best = {"best": self.best, "best_step": self.best_step, "waited": self.waited}
        sizes = {one.name: [one.count, one.each] for one in self.asked}
        return {"pace": self.pace.state(), **told, **best, "sizes": sizes}

    def restore(self, state: Mapping[str, Any], out: Path) -> None:
        """out: the run folder."""
        file = out / EVALUATIONS
        kept = json_lines(file)[0] if file.is_file() else []
        self.pace.restore(state["pace"])
        for name in ("next", "count", "left_out", "best", "best_step", "waited"):
            setattr(self, name, state[name])
        for one in self.asked:
            one.count, one.each = state["sizes"].get(one.name, (1, 0.0))
            for line in kept:
                if line.get("suite") == one.name and line.get("step") == 0:
                    one.start = {i: suites.scores_in(s) for i, s in line["scores"].items()}
