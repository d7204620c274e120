"""A record as token ids, and what is added to it when its responses are sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onestage.data.kinds import FEEDBACK, Kind
from onestage.data.messages import Turns
from onestage.data.trees import TokenPath

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What is known of responses because they were sampled in this run."""

    roles: tuple[int, ...]
    """Of each response: its place in `record.ROLES`."""
    kept: Mapping[str, tuple[Floats, ...]] = field(default_factory=dict)
    """Numbers from before the first update on them, by name: of each path's scored tokens."""


@dataclass(frozen=True, slots=True)
class ProblemFacts:
    """What a reward is told about a problem; kept as JSON in the store."""

    prompt: str
    """As the model sees it, chat template applied; whole, also where its tokens are cut to fit."""
    turns: tuple[Mapping[str, Any], ...]
    """The prompt as messages, if it is any."""
    facts: Mapping[str, Any]
    template: Mapping[str, Any] = field(default_factory=dict)
    """Extra arguments of the chat template."""

    def dump(self) -> str:
        content = {"prompt": self.prompt, "turns": list(self.turns), "facts": dict(self.facts)}
        if self.template:
            content["template"] = dict(self.template)
        return json.dumps(content, default=str)

    @staticmethod
    def load(text: str) -> ProblemFacts:
        content = json.loads(text)
        told = content.get("template", {})
        return ProblemFacts(content["prompt"], tuple(content["turns"]), content["facts"], told)

    def with_solution(self, solution: str) -> Turns:
        """The prompt with its solution in it: an empty line, and the text."""
        if not self.turns:
            return f"{self.prompt}\n\n{solution}"
        *before, last = self.turns
        if last["role"] != "user" or not isinstance(last["content"], str):
            return (*self.turns, {"role": "user", "content": solution})
        return (*before, {**last, "content": f"{last['content']}\n\n{solution}"})


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record as token paths. Responses are numbered from 0; `scores` has one of each, NaN if none.

    kind, weight, source, id: as in `Record`. Paths stand in the order of their responses: a pair's are
    (chosen, rejected). A response has several where the chat template renders its turns in different
    contexts. `cut` is the number of prompt tokens that were left out to fit.

    A problem as it is read has no responses (no scores): its first path is the prompt, and a second one,
    if there is a worked answer, is prompt and answer, scored sentence by sentence. What the policy
    answered to it comes out as another record of the same kind, with `sampled`.
    """

    kind: Kind
    paths: tuple[TokenPath, ...]
    scores: tuple[float, ...]
    weight: float
    source: str
    id: str
    cut: int = 0
    about: str = ""
    """Of a problem: its `ProblemFacts` as JSON."""
    visit: int = 0
    """Of a problem that was drawn: how many records its stream had given before."""
    sampled: Sampled | None = None
    weights: tuple[float, ...] = ()
    """Of the responses, beside the record's own; none where all are 1."""
    notes: tuple[str, ...] = ()
    """What the row says and the tokens do not, or what looks like a mistake; counted."""

    @property
    def is_problem(self) -> bool:
        """Whether it has no responses yet: the policy has to answer it."""
        return FEEDBACK[self.kind].asked and self.sampled is None

    @property
    def tokens(self) -> int:
        """Tokens of all paths, shared ones counted as often as they stand."""
        return sum(len(path.ids) for path in self.paths)

    @property
    def scored(self) -> int:
        """Scored tokens of all responses."""
        return sum(path.scored for path in self.paths)
