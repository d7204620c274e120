"""What a model is asked at the end, and while it learns: the benchmarks that people know, and one's own.

A suite is a dataclass of its options, one a file of this package (`Plugins`). It says four things, and
`measure` does the rest: which `items` there are, how a model is `ask`ed them (what it writes, or how
likely it finds what is given), what an answer is worth (`score`, numbers of an item), and what the
numbers of all items come to (`summarise`). Answers are kept line by line (`kept`), scores are not: they
are a function of items and answers, and cost little beside them.

    suite = suites.make({"name": "ifeval", "path": "prompts.jsonl", "limit": 20})
    found = suites.measure(suite, Subject.of(policy))
    found.headline.value, found.headline.stderr
"""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from onestage.config import Plugins
from onestage.data.messages import Turns
from onestage.rollout.rewards import Failure
from onestage.rollout.suites._kept import Kept
from onestage.rollout.suites._subject import Subject
from onestage.runfolder import Say, silent
from onestage.stats import Estimate, Weighted, estimate

BLOCK = 64
"""Items that are asked together; what they answer is kept together."""

Content = Mapping[str, Any]
"""A model's answer to an item: plain content, as JSON holds it."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What an item adds to a number that is no mean over items (a corpus BLEU): its suite knows how."""

    value: Any
    """Content as JSON holds it."""


Scores = Mapping[str, float | Weighted | Whole]
"""Of an item, by metric. A metric that says nothing of an item is left out."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is asked."""

    id: str
    """Unique in its suite, and the same whenever it is asked: models are compared by it."""
    prompt: Turns
    """A text that is continued as it stands, or messages."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What `score` needs to know; under `asked`, what is asked beside the prompt (choices)."""


@dataclass(frozen=True)
class Suite(abc.ABC):
    """The base of all suites: a frozen dataclass of options."""

    limit: int | None = None
    """The first so many items; default: all."""
    chat: bool | None = None
    """Ask through the chat template, or raw text. Default: through the template where the tokenizer has
    one, but for tasks of `lm-eval`, whose published numbers are of raw prompts."""
    system: str | None = None
    """A system message in front of all that is asked through the chat template, as a safety prompt that
    training was without (PTST, Lyu et al. 2024, arXiv 2402.18540)."""
    data: Path | None = None
    """A folder in which suites look for their files, under the names that they are known by."""

    headline: ClassVar[str]
    """The metric that stands for the suite."""
    span: ClassVar[float | None] = None
    """By how much an item can count in the headline at most (1 of a share); None: nobody knows."""
    judging: ClassVar[frozenset[str]] = frozenset()
    """Options that change no answer, only what it is worth: with others, kept answers are still good."""
    raw: ClassVar[bool] = False
    """Whether raw text is asked where nobody says otherwise."""
    takes_system: ClassVar[bool] = True
    """Whether what is asked are its items' messages, so that a system message can stand in front."""
    uses_base: ClassVar[bool] = False
    """Whether it compares the model with its base, where it has one, while asking (`Subject.base`)."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")

    def check(self) -> None:  # noqa: B027 - most find out by reading their items
        """Raise `ValueError` for what would fail later: a judge that cannot be reached, a package that
        is not installed. Called before a model is loaded; `items` is called then, too."""

    def begin(self) -> None:  # noqa: B027 - most are ready at once
        """Start what takes a while to be ready (processes that judge), and do not wait for it."""

    @abc.abstractmethod
    def items(self, chat: bool) -> list[Item]:
        """All of them, in order. Raises `ValueError` where they cannot be had: which file is needed, and
        where to put it."""

    @abc.abstractmethod
    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        """The model's answers to some items, in their order. What it answers to one may depend on the
        others by rounding alone."""

    @abc.abstractmethod
    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Scores | Failure]:
        """What each answer is worth; a `Failure` where that cannot be said (a judge that is down)."""

    def summarise(self, scores: Mapping[str, Scores]) -> dict[str, Estimate]:
        """The metrics by name, the headline among them, of the items' scores by id. Default: the mean of
        each score. A function of the scores alone: those of a base may be summarised last."""
        found: dict[str, dict[str, float | Weighted]] = {}
        for i, one in scores.items():
            for name, value in one.items():
                if not isinstance(value, Whole):
                    found.setdefault(name, {})[i] = value
        return {name: estimate(values) for name, values in found.items()}

    def first(self, items: Sequence[Item]) -> list[Item]:
        """Those that are asked, by `limit`."""
        return list(items[: self.limit])

    def lower_is_better(self, metric: str) -> bool:
        """Whether less of a metric is better."""
        return False

    def shown(self, item: Item, answer: Content) -> Mapping[str, Any]:
        """An answer as people look at it, in samples and reports."""
        return {"prompt": item.prompt, **answer}

    def spent(self) -> dict[str, float]:
        """What judging has cost since this process began, by name."""
        return {}


@dataclass(frozen=True)
class Measured:
    """What a suite found of a model."""

    suite: Suite
    items: Sequence[Item]
    answers: Mapping[str, Content]
    """By item."""
    scores: Mapping[str, Scores]
    """By item; those that could be scored."""
    failures: Mapping[str, Failure]
    """By item: not scored, and in no metric."""
    metrics: Mapping[str, Estimate]

    @property
    def headline(self) -> Estimate:
        """The metric that stands for the suite."""
        return self.metrics[self.suite.headline]

    def count(self, flag: str) -> int:
        """Answers that say so of themselves: `cut` (the prompt was too long), ..."""
        return sum(bool(answer.get(flag)) for answer in self.answers.values())

    @property
    def unfinished(self) -> int:
        """Answers that ended at the limit of tokens."""
        return sum(answer.get("ended") is False for answer in self.answers.values())

    def remarks(self) -> list[str]:
        """What was cut, or could not be judged, though all of it has a score."""
        found = []
        if cut := self.count("cut"):
            found.append(f"{cut:,} prompts lost their beginning to fit the model's context")
        if self.unfinished:
            found.append(
                f"{self.unfinished:,} of {len(self.items):,} answers ended at the "
                "limit of tokens and are scored as they are (max_completion_length of the suite, or "
                "the task's own max_gen_toks)"
            )
        if (lost := self.metrics.get("unchecked")) is not None:
            found.append(f"{lost.value:.1%} of answers could not be checked and count as wrong")
        return found


def measure(
    suite: Suite, subject: Subject, kept: Kept | None = None, say: Say = silent
) -> Measured:
    """Ask a model what is not known of it yet, and score it all.

    Items are asked in blocks that do not depend on what is kept, so that an evaluation that was
    interrupted ends with the answers of one that was not. Raises `ValueError` where not one answer can
    be scored.
    """
    items = chosen(suite, subject.templated)
    kept = kept if kept is not None else Kept()
    asked = 0
    for block in blocks(items):
        if not all(item.id in kept for item in block):
            answers = suite.ask(subject, block)
            kept.add([(item.id, a) for item, a in zip(block, answers, strict=True)])
        asked += len(block)
        say(f"{asked} of {len(items)}")
    return scored(suite, items, {item.id: kept[item.id] for item in items})


def scored(suite: Suite, items: Sequence[Item], answers: Mapping[str, Content]) -> Measured:
    """The numbers of some answers, by item."""
    judged = suite.score(items, [answers[item.id] for item in items])
    by_id = {item.id: one for item, one in zip(items, judged, strict=True)}
    failures = {i: one for i, one in by_id.items() if isinstance(one, Failure)}
    scores = {i: one for i, one in by_id.items() if not isinstance(one, Failure)}
    if not scores:
        first = next(iter(failures.values()))
        raise ValueError(f"not one of {len(items)} answers could be scored: {first.reason}")
    return Measured(suite, items, answers, scores, failures, suite.summarise(scores))


def chosen(suite: Suite, templated: bool) -> list[Item]:
    """The items that are asked. Raises `ValueError` where there are none, or two of one id, or where
    they are to go through a chat template that there is not, or behind a system message for which they
    have no place."""
    if suite.chat and not templated:
        raise ValueError(
            f"the suite {name_of(suite)} is to be asked through a chat template (chat: true), and the "
            "tokenizer has none: ask raw text (chat: false), or leave it out"
        )
    items = suite.first(suite.items(through_template(suite, templated)))
    if not items:
        raise ValueError(f"the suite {name_of(suite)} has no items")
    if len({item.id for item in items}) < len(items):
        raise ValueError(f"the suite {name_of(suite)} has two items of one id")
    return items if suite.system is None else [_addressed(suite, item) for item in items]


def _addressed(suite: Suite, item: Item) -> Item:
    """An item with the suite's system message in front."""
    prompt, why = item.prompt, ""
    if not suite.takes_system:
        why = "it asks in lm-eval's own words"
    elif isinstance(prompt, str):
        why = "it asks raw text (set chat: true, with a tokenizer that has a chat template)"
    elif prompt[0]["role"] == "system":
        why = f"item {item.id} has one of its own"
    if why or isinstance(prompt, str):
        raise ValueError(
            f"the suite {name_of(suite)} has no place for a system message, since {why}: leave system "
            "out"
        )
    lead = {"role": "system", "content": suite.system}
    return replace(item, prompt=(lead, *prompt))


def through_template(suite: Suite, templated: bool) -> bool:
    """Whether a suite's prompts go through the chat template, of a tokenizer that has one or none."""
    return templated and not suite.raw if suite.chat is None else suite.chat


def blocks(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items, those of similar length together, the longest first: what takes too much memory or time
    is known at once."""
    order = sorted(items, key=lambda item: -len(json.dumps(item.prompt)))
    for start in range(0, len(order), BLOCK):
        yield order[start : start + BLOCK]


def told(scores: Scores) -> dict[str, Any]:
    """An item's scores as JSON holds them; `scores_in` reads them again."""
    return {n: {"whole": v.value} if isinstance(v, Whole) else v for n, v in scores.items()}


def scores_in(content: Mapping[str, Any]) -> Scores:
    """An item's scores, as `told` has written them."""
    found: dict[str, float | Weighted | Whole] = {}
    for name, one in content.items():
        if isinstance(one, list):
            found[name] = Weighted(*one)
        else:
            found[name] = Whole(one["whole"]) if isinstance(one, dict) else one
    return found


def digest(suite: Suite, items: Sequence[Item]) -> str:
    """By what and how is asked: answers of one digest (and one model) are the same."""
    asked = [[item.id, item.prompt, item.facts.get("asked")] for item in items]
    # Items say what these have come to.
    apart = {"limit", "chat", "system", "data", "path", *suite.judging}
    how = {one.name: getattr(suite, one.name) for one in fields(suite) if one.name not in apart}
    whole = json.dumps([name_of(suite), how, asked], sort_keys=True, default=str)
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()


def name_of(suite: Suite) -> str:
    return type(suite).__module__.rpartition(".")[2]


def of_benchmark(suite: Suite, items: Sequence[Item]) -> int | None:
    """How many items are of the published benchmark that a suite is named after; None where that is not
    known of the suite."""
    from onestage.rollout.suites import _benchmark_items

    return _benchmark_items.count(name_of(suite), items)


PLUGINS = Plugins("suite", __name__, Suite)  # type: ignore[type-abstract]
names, find, make = PLUGINS.names, PLUGINS.find, PLUGINS.make


def __getattr__(name: str) -> Any:
    """`onestage.suites.IFEval`: the file is read when the class is asked for."""
    return PLUGINS.by_class(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *(find(name).__name__ for name in PLUGINS.built_in())})
