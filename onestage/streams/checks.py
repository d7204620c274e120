"""A checkable problem to token ids: a prompt to sample from, and a worked answer to take hints from.

Prompt and answer are tokenised apart and their ids joined, so that the ids of the prompt are those that
the policy continues and a hint is a beginning of the ids that supervised training sees. A token that
holds characters of two sentences belongs to the later one, so a hint never gives more than it should.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from onestage.forest.trees import Ids, Path
from onestage.records.record import Record, Refusal
from onestage.streams.encoded import Encoded, first_token
from onestage.streams.template import TemplateError, generation_prompt, response_text


@dataclass(frozen=True, slots=True)
class About:
    """What a reward is told about a problem; kept as JSON in the store."""

    prompt: str
    """As the model sees it, chat template applied."""
    turns: tuple[Mapping[str, Any], ...]
    """The prompt as messages, if it is any."""
    facts: Mapping[str, Any]

    def dump(self) -> str:
        content = {"prompt": self.prompt, "turns": list(self.turns), "facts": dict(self.facts)}
        return json.dumps(content, default=str)

    @staticmethod
    def load(text: str) -> About:
        content = json.loads(text)
        return About(content["prompt"], tuple(content["turns"]), content["facts"])


def encode_check(record: Record, tokenizer: Any, max_length: int, room: int) -> Encoded | Refusal:
    """The record as paths (`Encoded`); refused where prompt, worked answer or a completion of `room`
    tokens behind either the prompt or the longest hint would exceed `max_length`."""
    try:
        text, special = generation_prompt(record, tokenizer)
        prompt = prompt_ids(tokenizer, text, special=special)
        paths = [Path(prompt, (), ())]
        if record.completions or record.solution:
            paths.append(_worked(record, prompt, tokenizer))
    except TemplateError as error:
        return Refusal(record.id, str(error))
    hinted = paths[-1].spans[-1][0] if record.solution else len(prompt)
    longest = max(hinted + room, len(paths[-1].ids))
    if longest > max_length:
        behind = f"a completion of {room} tokens behind prompt and longest hint"
        what = "its worked answer" if longest == len(paths[-1].ids) else behind
        reason = f"with {what} it has {longest} tokens, more than max_length {max_length}"
        return Refusal(record.id, reason, overlong=True)
    turns = () if isinstance(record.prompt, str) else record.prompt
    return Encoded(
        kind="check",
        paths=tuple(paths),
        scores=(),
        weight=record.weight,
        source=record.source,
        id=record.id,
        about=About(text, turns, record.facts).dump(),
    )


def prompt_ids(tokenizer: Any, text: str, *, special: bool) -> Ids:
    """Ids to sample from. `special`: whether the tokenizer is to add its own special tokens."""
    ids = np.asarray(tokenizer(text, add_special_tokens=special, verbose=False).input_ids, np.int32)
    if special and len(ids) and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]  # some tokenizers end every text; a prompt is to be continued
    if not len(ids):
        raise TemplateError("the prompt has no token: there is nothing to continue")
    return ids


def _worked(record: Record, prompt: Ids, tokenizer: Any) -> Path:
    """Prompt and worked answer; a span for each sentence, and one for what follows the last."""
    solution = "".join(record.solution)
    text = response_text(record, solution, tokenizer)
    encoding = tokenizer(text, add_special_tokens=False, verbose=False).encodings[0]
    ids = np.asarray(encoding.ids, np.int32)
    at, starts = 0, [0]
    for sentence in record.solution:
        at += len(sentence)
        starts.append(first_token(encoding, encoding.offsets, at, len(text)))
    edges = sorted({*starts, len(ids)})
    spans = tuple((len(prompt) + a, len(prompt) + b) for a, b in pairwise(edges))
    return Path(np.concatenate([prompt, ids]), spans, (0,) * len(spans))
