"""What a run is asked while it goes: its suites, with their items in an order of their own.

Everything that can be refused (a suite that is unknown, its data) is refused here, before any weights
are loaded; a metric that its suite does not take, before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from onestage.config import RecipeError, nearest
from onestage.data.dialect import TemplateError
from onestage.data.messages import Turns
from onestage.data.prompts import Prompt, noted, prompts_of
from onestage.randomness import generator
from onestage.rollout import suites
from onestage.rollout.evaluation import make_suites
from onestage.rollout.suites import Item, Scores, Suite, Whole
from onestage.stats import Weighted
from onestage.training.best import Best
from onestage.training.questions import Evaluate

LARGEST = 16
"""Items that are asked at once."""
FEWEST = 7
"""Items from which anything follows, as many as the first three blocks have (`blocks`)."""
LOSS = "loss"
"""As `evaluate.best`: the held-out loss."""


@dataclass
class Asked:
    """One suite of a run."""

    name: str
    suite: Suite
    items: list[Item]
    """In an order drawn once, so that the first few are a sample."""
    count: int = 0
    """How many are asked."""
    each: float = 0.0
    """Seconds that an item took when they were last asked."""
    most: int | None = None
    """Tokens of an answer at most, so that one fits the share; None: as many as the suite allows."""
    stopped: int = 0
    """Answers that were ended for that when they were last asked."""
    start: dict[str, Scores] = field(default_factory=dict)
    """What the answers of the start model are worth, by item."""

    @cached_property
    def digest(self) -> str:
        """Of what is asked, and how. Every checkpoint tells it."""
        return suites.digest(self.suite, self.items)

    def restore(self, state: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> bool:
        """Go on from what a checkpoint says and `evaluations.jsonl` holds; whether it asks the same.
        What its start model answered to other items is not compared with."""
        self.count, self.each, *most = state["sizes"].get(self.name, (1, 0.0))
        self.most = most[0] if most else None
        # A checkpoint of an earlier version does not say what it asked.
        same = state.get("digests", {}).get(self.name, self.digest) == self.digest
        self.start = scores_at(0, self.name, lines) if same else {}
        return bool(same)


def made(section: Evaluate) -> dict[str, Suite]:
    """The suites by name. Raises `RecipeError` for what is unknown or cannot be had."""
    try:
        found = make_suites(section.suites)
        for suite in found.values():
            suite.check()
    except ValueError as error:
        raise RecipeError(f"evaluate.suites: {error}") from error
    return found


def begin(section: Evaluate | None) -> None:
    """Have what judges answers made ready beside what the run does until then."""
    for suite in made(section).values() if section else ():
        suite.begin()


def check(section: Evaluate | None, tokenizer: Any, task: str) -> None:
    """Raise `RecipeError` for what cannot be asked, before any weights are loaded."""
    if section is None:
        return
    if task == "reward":
        raise RecipeError(
            "evaluate: a reward model (model.task) writes nothing; leave evaluate out"
        )
    asked, templated = made(section), tokenizer.chat_template is not None
    try:
        noted(tokenizer, texts_of(section.prompts, templated))
    except TemplateError as error:
        raise RecipeError(f"evaluate.prompts: {error}") from error
    for suite in asked.values():
        try:
            suites.chosen(suite, templated)
        except ValueError as error:
            raise RecipeError(f"evaluate.suites: {error}") from error
    name = section.best.partition("/")[0]
    if name and name not in (*asked, LOSS):
        raise RecipeError(f"evaluate.best: nothing asks {name!r}{nearest(name, [*asked, LOSS])}")


def best_of(best: str, asked: Sequence[Asked]) -> Best | None:
    """What keeps the best model, by what `evaluate.best` names; None where it names nothing."""
    name, _, metric = best.partition("/")
    if name in ("", LOSS):
        return Best(LOSS) if name else None
    suite = next(one.suite for one in asked if one.name == name)
    return Best(name, suite, metric or suite.headline)


def scores_at(step: int, suite: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Scores]:
    """What a suite's answers were worth at a step, by item, from lines of `evaluations.jsonl`."""
    told = [one for one in lines if one.get("suite") == suite and one.get("step") == step]
    return {i: suites.scores_in(s) for i, s in told[-1]["scores"].items()} if told else {}


def check_best(best: str, found: Mapping[str, float]) -> None:
    """Raise `RecipeError` for a metric that is not among what the first answers came to."""
    name, _, metric = best.partition("/")
    place = f"suite/{name}/"
    known = {key.removeprefix(place) for key in found if key.startswith(place)} - {"items"}
    if metric and known and metric not in known:
        raise RecipeError(f"evaluate.best: {name} has no metric {metric!r}{nearest(metric, known)}")


def drawn(name: str, items: Sequence[Item]) -> list[Item]:
    order = generator(f"evaluate {name}").permutation(len(items))
    return [items[number] for number in order]


def blocks(items: Sequence[Item], size: int = 1) -> Iterator[Sequence[Item]]:
    """Of `size` items, twice as many, and so on, so that what they take is known soon."""
    start = 0
    while start < len(items):
        yield items[start : start + size]
        start, size = start + size, min(2 * size, LARGEST)


def texts_of(given: str | Sequence[str], templated: bool) -> list[Prompt]:
    """Of a file, or as they are given; plain ones as a user's message where there is a template."""
    if isinstance(given, str):
        return prompts_of(given, as_messages=templated)
    return [Prompt(({"role": "user", "content": one},) if templated else one) for one in given]


def sample(suite: str, prompt: Turns, completion: Any, worth: list[float]) -> dict[str, Any]:
    text = prompt if isinstance(prompt, str) else "\n".join(str(m["content"]) for m in prompt)
    return {"suite": suite, "prompt": text, "completions": [str(completion)], "rewards": worth}


def worth(scores: Scores) -> list[float]:
    """The first number of an item's, to be shown beside its answer; nothing where it has none."""
    numbers = [one for one in scores.values() if not isinstance(one, Whole)][:1]
    return [float(one.value if isinstance(one, Weighted) else one) for one in numbers]


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
