"""Completions of prompts as text: what `onestage sample` and evaluations need of an engine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from onestage.data.messages import Message
from onestage.data.prompts import Prompt
from onestage.data.tokenize import prompt_ids
from onestage.models import Policy, positions_of
from onestage.rollout.engines import Decoding, Request
from onestage.rollout.engines.transformers import Transformers
from onestage.rollout.suites import Kept

SAMPLED = Decoding()

Asked = str | Sequence[Message] | Mapping[str, Any] | Prompt
"""A prompt, as `complete` takes it."""


class Drawn(NamedTuple):
    """A completion as text."""

    text: str
    ended: bool
    """Whether it ended by itself; else it was cut at the limit."""
    tokens: int | None = None
    """As drawn, its end token among them; None of what an older version kept."""


def complete(
    policy: Policy,
    prompts: Sequence[Asked],
    how: Decoding = SAMPLED,
    tokenizer: Any = None,
    seed: int = 0,
    *,
    batch_size: int = 64,
) -> list[str]:
    """One completion for each prompt, in their order, without special tokens.

        complete(onestage.load("runs/first/model"), ["What is 2 + 2?"], Decoding(temperature=0))

    prompts: each a text, which is continued as it stands, a list of messages (`role`, `content`), which
    go through the chat template, or a row as training has them (`prompt` or `messages`, with `tools` and
    `chat_template_kwargs`), read and rendered as there. how: temperature 0 is greedy. tokenizer: the
    policy's own where none is given. seed: what is drawn for a prompt depends on it and on the prompt's
    place, not on what else is asked. batch_size: completions under way at once.

    Warns where the model makes sampling slower than it would be, and says why. Raises `ValueError` for a
    policy without a tokenizer, for a text where a list of prompts should be, and for an empty prompt
    where the tokenizer has no token to begin with.
    """
    found = drawn(policy, prompts, how, tokenizer, seed, batch_size)
    return [one.text for one in found]


def drawn(
    policy: Policy,
    prompts: Sequence[Asked],
    how: Decoding,
    tokenizer: Any = None,
    seed: int = 0,
    batch_size: int = 64,
    kept: Kept | None = None,
) -> list[Drawn]:
    """As `complete`, with which were cut: as demonstrations those would teach to stop there.

    kept: what is known already, by the place of its prompt, and is not drawn again; what is drawn is
    added to it, four batches at a time.
    """
    tokenizer = tokenizer if tokenizer is not None else policy.tokenizer
    if tokenizer is None:
        raise ValueError("the policy has no tokenizer of its own: give one")
    if isinstance(prompts, str):
        raise ValueError(f"prompts must be a list of prompts, got one text: {prompts[:60]!r}")
    requests = [
        Request(prompt_ids(tokenizer, one.turns, one.template), 1, f"{seed}/{number}")
        for number, one in enumerate(map(Prompt.given, prompts))
    ]
    told = _beyond(policy.model.config, requests, how)
    engine = Transformers(policy.model, tokenizer, batch_size)
    kept = Kept() if kept is None else kept
    missing = [place for place in range(len(requests)) if str(place) not in kept]
    at_once = 4 * batch_size if kept.file is not None else max(1, len(missing))
    for start in range(0, len(missing), at_once):
        block = missing[start : start + at_once]
        texts = [
            Drawn(tokenizer.decode(one.ids, skip_special_tokens=True), one.ended, len(one.ids))
            for (one,) in engine([requests[place] for place in block], how)
        ]
        kept.add((str(n), one._asdict()) for n, one in zip(block, texts, strict=True))
    for remark in (*told, *engine.remarks):
        warnings.warn(remark, stacklevel=3)  # where `complete` was called, and not a line of it
    return [Drawn(**kept[str(place)]) for place in range(len(requests))]


def _beyond(config: Any, requests: Sequence[Request], how: Decoding) -> list[str]:
    """What is to be said of prompts that have no room for their completions in the positions that the
    model was made for. Raises `ValueError` where its positions end there."""
    limit, ends = positions_of(config)
    new = how.max_completion_length
    over = sum(len(one.ids) + new > limit for one in requests) if limit is not None else 0
    if limit is None or not over:
        return []
    told = (
        f"{over:,} of {len(requests):,} prompts have no room for {new:,} more tokens in the {limit:,} "
        "positions that the model was made for"
    )
    if ends:
        raise ValueError(f"{told}, and it has no other: give shorter ones, or allow fewer tokens")
    return [told]
