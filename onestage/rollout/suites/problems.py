"""One's own problems, judged by a reward: what reinforcement is to bring, asked of problems held out.

The rows and the reward are those of a `check` stream, and no hint is given. Plain prompts are asked as
plain text, as such a stream asks them; with `chat: true`, as its `as_messages`, as a user's message.
`reward` is the mean over problems; with `samples`, of so many answers to each, drawn at `temperature`.
`length` is tokens an answer, `ended` the part of the answers that end by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from onestage.data.reading import read
from onestage.data.record import Record, Refusal
from onestage.data.tokenize import prompt_ids
from onestage.rollout import rewards
from onestage.rollout.engines import Decoding
from onestage.rollout.rewards import Answer, Failure, Reward
from onestage.rollout.suites import Content, Item, Scores, Subject, Suite


@dataclass(frozen=True)
class Problems(Suite):
    path: str | None = None
    """Rows of problems, as a `check` stream reads them."""
    reward: Any = None
    """What judges the answers: the name of a reward, or a table of `name` and its options."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of columns, ours to the rows', as of a stream."""
    samples: int = 1
    """Answers to each problem."""
    temperature: float = 0.0
    """At which they are drawn; 0 takes the likeliest token."""
    max_completion_length: int = 256

    headline: ClassVar[str] = "reward"
    judging: ClassVar[frozenset[str]] = frozenset({"reward", "columns"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.samples > 1 and not self.temperature > 0:
            raise ValueError(
                f"samples: {self.samples} at temperature {self.temperature:g} are all alike; set "
                "temperature: 1"
            )
        if self.reward is None:
            raise ValueError(
                f"the suite problems needs a reward; known: {', '.join(rewards.names())}"
            )
        if self.path is None:
            raise ValueError("the suite problems needs its rows: set its option path to a file")

    @cached_property
    def judge(self) -> Reward:
        return rewards.make(self.reward)

    def check(self) -> None:
        _ = self.judge

    def items(self, chat: bool) -> list[Item]:
        found = []
        for number, one in enumerate(read(self.path, kind="check", columns=dict(self.columns))):
            if isinstance(one, Refusal):
                raise ValueError(f"the suite problems: {one.where}: {one.reason}")
            self.judge.check(one.facts)
            # Plain prompts stay plain, as in a `check` stream that does not say otherwise.
            wrapped = self.chat or (chat and self.system is not None)
            record: Record = one.as_messages() if wrapped else one
            facts = {"facts": record.facts, "asked": {"template": dict(record.template)}}
            found.append(Item(str(number), record.prompt, facts))
        return found

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        how = Decoding(self.max_completion_length, temperature=self.temperature)
        asked = [prompt_ids(subject.tokenizer, item.prompt, _template(item)) for item in items]
        drawn = [
            subject.continued(asked, how, [f"{item.id}/{number}" for item in items])
            for number in range(self.samples)
        ]
        shown = [str(subject.tokenizer.decode(ids)) for ids in asked]
        return [
            {
                "asked": text,
                "answers": answers,
                "completion": answers[0]["completion"],
                **_flags(answers),
            }
            for text, *answers in zip(shown, *drawn, strict=True)
        ]

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Scores | Failure]:
        made = [
            Answer(
                answer["asked"],
                one["completion"],
                item.facts["facts"],
                ended=one["ended"],
                tokens=one["tokens"],
                turns=item.prompt if not isinstance(item.prompt, str) else (),
                template=_template(item),
            )
            for item, answer in zip(items, answers, strict=True)
            for one in answer["answers"]
        ]
        worth = iter(self.judge(made))
        return [self._of_item([next(worth) for _ in one["answers"]], one) for one in answers]

    def _of_item(self, worth: Sequence[float | Failure], answer: Content) -> Scores | Failure:
        good = [value for value in worth if not isinstance(value, Failure)]
        if len(good) < len(worth):  # the mean of some would be of another number of answers
            return next(value for value in worth if isinstance(value, Failure))
        told, count = answer["answers"], len(worth)
        return {
            "reward": sum(good) / count,
            "length": sum(one["tokens"] for one in told) / count,
            "ended": sum(one["ended"] for one in told) / count,
        }

    def spent(self) -> dict[str, float]:
        return self.judge.spent()


def _flags(answers: Sequence[Content]) -> Content:
    """What an item says of itself, of all of its answers: whether all ended, what its prompt lost."""
    cut = max(one.get("cut", 0) for one in answers)
    return {"ended": all(one["ended"] for one in answers), **({"cut": cut} if cut else {})}


def _template(item: Item) -> dict[str, Any]:
    return dict(item.facts["asked"]["template"])
