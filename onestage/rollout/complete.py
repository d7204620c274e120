"""Completions of prompts as text: what `onestage sample` and evaluations need of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onestage.data.tokenize import prompt_ids
from onestage.data.trees import Ids
from onestage.rollout.engines import Decoding, Request
from onestage.rollout.engines.transformers import Transformers


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str | Sequence[Any]],
    how: Decoding,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> list[str]:
    """One completion for each prompt: a string as it is, or messages through the chat template.

    They come in the order of the prompts, without special tokens. What is drawn for a prompt depends on
    `seed` and its place.
    """
    requests = [
        Request(_encode(tokenizer, prompt), 1, f"{seed}/{number}")
        for number, prompt in enumerate(prompts)
    ]
    drawn = Transformers(model, tokenizer, batch_size)(requests, how)
    return [tokenizer.decode(one.ids, skip_special_tokens=True) for (one,) in drawn]


def _encode(tokenizer: Any, prompt: str | Sequence[Any]) -> Ids:
    if isinstance(prompt, str):
        return prompt_ids(tokenizer, prompt, special=True)
    text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    return prompt_ids(tokenizer, text, special=False)
