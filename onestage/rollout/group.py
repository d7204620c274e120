"""One problem, the hint it was given, and what was drawn for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from onestage.data.encoded import Encoded, ProblemFacts
from onestage.data.record import ROLES
from onestage.data.tokenize import taught_ids
from onestage.data.trees import Ids, TokenPath
from onestage.randomness import generator
from onestage.rollout.engines import Completion, Request
from onestage.rollout.hints import Hint
from onestage.rollout.hints._chunks import boundaries
from onestage.rollout.rewards import Answer


@dataclass(frozen=True, slots=True)
class HintChosen:
    """A hint: units given, units there are (0 without a worked solution), and tokens given."""

    length: int = 0
    size: int = 0
    tokens: int = 0


def choose_hint(
    rule: Hint, record: Encoded, rollout: int, key: str, state: Mapping[str, float]
) -> HintChosen:
    """What `rule` gives away of a problem; `key` decides the random numbers."""
    if len(record.paths) < 2:
        return HintChosen()
    prompt, worked = len(record.paths[0].ids), record.paths[1]
    if rule.unit == "token":
        ends = list(range(prompt, len(worked.ids)))  # never the end token
    else:
        sentences = len(worked.spans) - 1  # behind the last one stands the answer
        edges = boundaries(sentences, rule.max_chunks)
        ends = [prompt, *(worked.spans[edge - 1][1] for edge in edges[1:])]
    size = len(ends) - 1
    length = rule.length(rollout, size, generator(key), state)
    return HintChosen(length, size, ends[length] - prompt)


def worked_answer(record: Encoded, about: ProblemFacts, tokenizer: Any) -> list[Answer]:
    """The record's worked answer as a reward sees it; none where it has none."""
    if len(record.paths) < 2:
        return []
    worked = record.paths[1].ids[record.paths[1].opening :]
    text = tokenizer.decode(worked, skip_special_tokens=True)
    return [
        Answer(
            about.prompt,
            text,
            about.facts,
            tokens=len(worked),
            turns=about.turns,
            template=about.template,
        )
    ]


@dataclass
class Group:
    """A problem and its completions: requests are made, drawn and judged one after the other."""

    record: Encoded
    hint: HintChosen
    requests: Sequence[Request]
    drawn: Sequence[Sequence[Completion]] = ()
    answers: list[Answer] = field(default_factory=list)
    """Every completion as a reward sees it; last the worked answer, where the objective uses it."""
    hint_text: str = ""
    totals: Sequence[float] = ()
    """Rewards of the answers."""
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Rewards of each kind, unweighted; NaN where none was found."""
    failures: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""
    taught: Ids | None = None
    """The prompt with the solution in it, where a teacher is to read it."""

    @staticmethod
    def of(record: Encoded, hint: HintChosen, rule: Hint, key: str, count: int) -> Group:
        """One group of `count`, all of them hinted, or all but one on their own."""
        prompt = record.paths[0].ids
        if not hint.tokens:
            return Group(record, hint, [Request(prompt, count, key)])
        hinted = record.paths[1].ids[: len(prompt) + hint.tokens]
        if rule.members == "all":
            return Group(record, hint, [Request(hinted, count, key)])
        # Of another key: completions with and without the hint would else share their random numbers.
        alone = [Request(prompt, count - 1, key)] if count > 1 else []
        return Group(record, hint, [*alone, Request(hinted, 1, f"{key}/hinted")])

    @property
    def completions(self) -> list[Completion]:
        return [one for some in self.drawn for one in some]

    @cached_property
    def about(self) -> ProblemFacts:
        return ProblemFacts.load(self.record.about)

    @property
    def hint_ids(self) -> Ids:
        start = len(self.record.paths[0].ids)
        return self.requests[-1].ids[start : start + self.hint.tokens]

    def read(self, tokenizer: Any, *, worked: bool, taught: bool = False) -> None:
        """Make the answers out of what was drawn. `worked`: whether the worked answer joins them;
        `taught`: whether each also stands behind a prompt that holds the solution."""
        about, plain = self.about, len(self.record.paths[0].ids)
        self.hint_text = tokenizer.decode(self.hint_ids, skip_special_tokens=True)
        self.answers = [
            Answer(
                about.prompt,
                tokenizer.decode(one.ids, skip_special_tokens=True),
                about.facts,
                self.hint_text if len(request.ids) > plain else "",
                one.ended,
                len(one.ids),
                about.turns,
                about.template,
            )
            for request, some in zip(self.requests, self.drawn, strict=True)
            for one in some
        ]
        if worked:
            self.answers += worked_answer(self.record, about, tokenizer)
        if taught and len(self.record.paths) > 1:
            self.taught = taught_ids(tokenizer, about, self.record.paths[1])

    def _as_taught(self) -> Iterator[TokenPath]:
        """Each completion, and the hint that it had, behind the prompt that holds the solution."""
        prompt = len(self.record.paths[0].ids)
        for request, some in zip(self.requests, self.drawn, strict=True):
            for one in some if self.taught is not None else ():
                ids = np.concatenate([self.taught, request.ids[prompt:], one.ids])
                yield TokenPath(ids, ((len(ids) - len(one.ids), len(ids)),), (0,))

    def responses(self) -> tuple[list[TokenPath], list[int], list[float]]:
        """Paths, roles and scores: completions in order, the hint on the first hinted path, the worked
        answer behind them, and the completions once more, as the teacher reads them."""
        paths: list[TokenPath] = []
        roles: list[int] = []
        scores: list[float] = []
        rewards, prompt, told = iter(self.totals), len(self.record.paths[0].ids), False
        for request, some in zip(self.requests, self.drawn, strict=True):
            start = len(request.ids)
            for one in some:
                spans, numbers = [(start, start + len(one.ids))], []
                if start > prompt and not told:
                    told = True
                    spans.insert(0, (prompt, start))
                    numbers.append(len(roles))
                    roles.append(ROLES.index("hint"))
                    scores.append(math.nan)
                numbers.append(len(roles))
                roles.append(ROLES.index("response"))
                scores.append(next(rewards))
                ids = np.concatenate([request.ids, one.ids])
                paths.append(TokenPath(ids, tuple(spans), tuple(numbers)))
        for reward in rewards:
            worked = self.record.paths[1]
            paths.append(TokenPath(worked.ids, worked.spans, (len(roles),) * len(worked.spans)))
            roles.append(ROLES.index("worked"))
            scores.append(reward)
        for path in self._as_taught():
            paths.append(path.renumbered(len(roles)))
            roles.append(ROLES.index("taught"))
            scores.append(math.nan)
        return paths, roles, scores
