"""Completions from a model, through transformers' own generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. Temperature 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 16


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[str | Sequence[Any]], how: Sampling
) -> list[str]:
    """One completion for each prompt: a string as it is, or messages through the chat template.

    Prompts are padded on the left, in batches of similar length; completions come in the order of
    the prompts, without special tokens.
    """
    encoded = [_encode(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    completions = [""] * len(encoded)
    torch.manual_seed(how.seed)
    for start in range(0, len(order), how.batch_size):
        chosen = order[start : start + how.batch_size]
        for place, text in zip(chosen, _batch(model, tokenizer, encoded, chosen, how), strict=True):
            completions[place] = text
    return completions


def _encode(tokenizer: Any, prompt: str | Sequence[Any]) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer(prompt).input_ids
    text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False).input_ids


def _batch(
    model: Any, tokenizer: Any, encoded: Sequence[list[int]], chosen: Sequence[int], how: Sampling
) -> list[str]:
    longest = max(len(encoded[i]) for i in chosen)
    fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    rows = [[fill] * (longest - len(encoded[i])) + encoded[i] for i in chosen]
    mask = [[0] * (longest - len(encoded[i])) + [1] * len(encoded[i]) for i in chosen]
    drawn = {"temperature": how.temperature, "top_p": how.top_p} if how.temperature > 0 else {}
    with torch.no_grad():
        out = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=how.max_new_tokens,
            do_sample=how.temperature > 0,
            pad_token_id=fill,
            eos_token_id=_ends(model, tokenizer),
            **drawn,
        )
    return tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokenizer's EOS and whatever the model's own generation settings end on."""
    own = model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    known = [tokenizer.eos_token_id, *listed]
    return sorted({i for i in known if i is not None and i < model.config.vocab_size})
