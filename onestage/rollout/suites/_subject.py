"""A model under evaluation: what it writes behind a prompt, and how likely it finds a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onestage.data.messages import Turns
from onestage.data.packing import pack
from onestage.data.tokenize import prompt_ids
from onestage.data.trees import Ids, TokenPath
from onestage.rollout.engines import Decoding, Engine, Request

if TYPE_CHECKING:  # suites are named, and their options checked, where no model is
    from onestage.models.policy import Policy

TOKENS_PER_ROW = 2048
LONGEST = 1 << 20
"""Tokens of a text where a model says nothing of its context."""


@dataclass(frozen=True)
class Subject:
    """A policy, its tokenizer, and the engine that samples it."""

    policy: Policy
    tokenizer: Any
    engine: Engine
    base: Policy | None = None
    """What it is compared with while it is asked, by the suites that do so."""
    source: str | None = None
    """The folder or hub id that it was loaded from, for who would load it again in another way."""
    most: int | None = None
    """Tokens of an answer at most, whatever a suite allows."""
    stopped: list[str] = field(default_factory=list, compare=False)
    """The keys of answers that were ended for that, and that the suite would have let go on."""

    @classmethod
    def of(cls, policy: Policy, tokenizer: Any = None, base: Policy | None = None) -> Subject:
        """With the policy's own tokenizer and model. Raises `ValueError` where it has no tokenizer."""
        from onestage.rollout.engines.transformers import Transformers

        tokenizer = tokenizer if tokenizer is not None else policy.tokenizer
        if tokenizer is None:
            raise ValueError("the policy has no tokenizer of its own: give one")
        return cls(policy, tokenizer, Transformers(policy.model, tokenizer), base)

    @property
    def templated(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return getattr(self.tokenizer, "chat_template", None) is not None

    @property
    def context(self) -> int:
        """Tokens that the model can read."""
        config = self.policy.base.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or LONGEST)

    def write(
        self,
        prompts: Sequence[Turns],
        how: Decoding,
        keys: Sequence[str],
        until: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """`completion` behind each prompt (without special tokens), its `tokens`, whether it `ended` by
        itself; `cut`: how many tokens of the prompt's beginning were left out to fit the context.

        keys: what is drawn depends on these; until: texts at which a completion ends, without them.
        """
        whole = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        return self.continued(whole, how, keys, until)

    def continued(
        self,
        whole: Sequence[Ids],
        how: Decoding,
        keys: Sequence[str],
        until: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """As `write`, behind token ids. Raises `ValueError` where answers leave no room for a prompt."""
        allowed = how.max_completion_length
        room = self.context - allowed
        if room < 1:
            raise ValueError(
                f"answers of up to {allowed:,} tokens leave no room for a prompt in "
                f"the model's context of {self.context:,}; set max_completion_length lower"
            )
        requests = [
            Request(_fitting(ids, room), 1, key) for ids, key in zip(whole, keys, strict=True)
        ]
        found = []
        longest = allowed if self.most is None else min(allowed, self.most)
        how = replace(how, stop=tuple(until), max_completion_length=longest)
        for ids, key, (one,) in zip(whole, keys, self.engine(requests, how), strict=True):
            text = self.tokenizer.decode(one.ids, skip_special_tokens=True)
            short, stopped = _before(text, until)
            if not stopped:  # at a special token, which is no part of the text
                _, stopped = _before(self.tokenizer.decode(one.ids), until)
            told: dict[str, Any] = {"completion": short, "tokens": len(one.ids)}
            told["ended"] = bool(one.ended or stopped)
            if not told["ended"] and len(one.ids) == longest < allowed:
                self.stopped.append(key)
            if len(ids) > room:
                told["cut"] = len(ids) - room
            found.append(told)
        return found

    def likelihoods(self, paths: Sequence[TokenPath]) -> list[tuple[float, bool]]:
        """Of each path, the log-probability (nats) of its scored tokens, and whether each of them is the
        likeliest one. What paths share at their beginning is computed once."""
        longest = max((len(path.ids) for path in paths), default=0)
        numbered = [[path.renumbered(number)] for number, path in enumerate(paths)]
        sums, likeliest = np.zeros(len(paths)), np.ones(len(paths), bool)
        with self.policy.evaluating():
            for row in pack(numbered, max(longest, TOKENS_PER_ROW)):
                said = self.policy.look(row, ("likeliest",))
                logp_K, likeliest_K = (said[name].cpu().double().numpy() for name in said)
                np.add.at(sums, row.tree.response_K, logp_K)
                np.logical_and.at(likeliest, row.tree.response_K, likeliest_K > 0)
        return list(zip(sums.tolist(), likeliest.tolist(), strict=True))


def _fitting(ids: Ids, room: int) -> Ids:
    """The end of a prompt that is too long, behind its first token, which may be a BOS that every text
    needs."""
    return ids if len(ids) <= room else np.concatenate([ids[:1], ids[len(ids) - room + 1 :]])


def _before(text: str, until: Sequence[str]) -> tuple[str, bool]:
    """What stands before the first of some texts, and whether there is one."""
    places = [place for mark in until if (place := text.find(mark)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
