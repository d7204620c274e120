"""Whether a server says what the model says: the tokens of a chat, and how likely what it writes is.

A server can hold another model, forget the adapter, use another template or less precision, and answers
all the same. So three prompts are tokenised and continued there, and the tokens are scored here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from onestage.config import nearest
from onestage.data.encoded import Floats
from onestage.data.messages import Turns
from onestage.data.packing import pack
from onestage.data.tokenize import prompt_ids
from onestage.data.trees import Ids, TokenPath
from onestage.models.policy import Policy
from onestage.rollout.engines._vllm_link import AGAIN, PLAIN, Link, RefusedError, ServerError

ASKED = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Which is larger, 9 or 11? Answer with the number.",
)
TOKENS = 24
"""That are written behind each."""
GREEDY = {"temperature": 0, "n": 1, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": 0, **PLAIN}
"""All of it said, or a server samples as the folder's generation settings say."""
NEAR = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Mean distance in nats a token that rounding explains, by the policy's precision (measured with vLLM on
a CPU: 2e-5)."""
NEAR_OTHERS = 0.1
"""Likewise in 16 bits (measured: 0.03 to 0.05)."""


@dataclass(frozen=True)
class Agreement:
    """How far a server's log-probabilities are from the policy's, in nats a token."""

    mean: float
    largest: float
    allowed: float
    """What the mean may be."""
    tokens: int
    templates: list[str] = field(default_factory=list)
    """Prompts of which the server makes other tokens than we do, in words."""
    notes: list[str] = field(default_factory=list)
    without: float | None = None
    """The mean distance from the policy without its adapter: who forgot that is nearer to it."""

    @property
    def holds(self) -> bool:
        forgotten = self.without is not None and self.without < self.mean
        return self.mean <= self.allowed and not self.templates and not forgotten


def check_served(
    policy: Policy, url: str, name: str | None = None, allowed: float | None = None
) -> Agreement:
    """Ask the server at `url` (vLLM, or any that completes token ids with log-probabilities).

    name: of the model there, by default the only one, or the adapter's; allowed: mean distance in nats a
    token. Raises `ValueError` where it does not answer, or cannot be asked so.
    """
    link = Link(url.rstrip("/").removesuffix("/v1"))
    tokenizer = policy.tokenizer
    with _told(url):
        model = _model_at(link, name)
        asked = [_turns(text, tokenizer) for text in ASKED]
        ids = [prompt_ids(tokenizer, one) for one in asked]
        templates, notes = _templates(link, model, asked, [one.tolist() for one in ids])
        written = [_written(link, model, one.tolist()) for one in ids]
    said_T = np.concatenate([logp for _, logp in written])
    texts = [(one, more) for one, (more, _) in zip(ids, written, strict=True)]
    ours_T, without = _logp(policy, texts), None
    if hasattr(policy.model, "disable_adapter"):
        with policy.model.disable_adapter():
            without = float(np.abs(_logp(policy, texts) - said_T).mean())
    distance_T = np.abs(ours_T - said_T)
    limit = NEAR.get(policy.dtype, NEAR_OTHERS) if allowed is None else allowed
    mean, largest = float(distance_T.mean()), float(distance_T.max())
    return Agreement(mean, largest, limit, len(said_T), templates, notes, without)


def _turns(text: str, tokenizer: Any) -> Turns:
    return text if tokenizer.chat_template is None else ({"role": "user", "content": text},)


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        said = str(error).removesuffix(f"; {AGAIN}")
        raise ValueError(
            f"--check {url}: {said}; is the server up, and is this its address?"
        ) from error
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"--check {url}: the answer is none of a server that completes token ids with their "
            "log-probabilities, as vLLM does"
        ) from error


def _model_at(link: Link, name: str | None) -> str:
    served = link.get("/v1/models")["data"]
    names = [one["id"] for one in served]
    if name is None:
        adapters = [one["id"] for one in served if one.get("parent")]
        name = (adapters or names)[-1]
    if name not in names:
        raise ValueError(
            f"--name {name!r}: the server at {link.base_url} has no such model{nearest(name, names)}"
        )
    return str(name)


def _templates(
    link: Link, model: str, asked: list[Turns], ids: list[list[int]]
) -> tuple[list[str], list[str]]:
    """Where the server's tokenizer or chat template makes other tokens of a prompt."""
    wrong = []
    for turns, ours in zip(asked, ids, strict=True):
        text = {"prompt": turns} if isinstance(turns, str) else {"messages": [*turns]}
        try:
            theirs = link.post("/tokenize", {"model": model, **text})["tokens"]
        except RefusedError as error:
            return [], [f"what it makes of a chat was not compared ({error})"]
        if theirs != ours:
            what = turns if isinstance(turns, str) else turns[0]["content"]
            wrong.append(f"{what!r} is {len(theirs)} tokens there and {len(ours)} here")
    return wrong, []


def _written(link: Link, model: str, ids: list[int]) -> tuple[list[int], list[float]]:
    """Some tokens behind a prompt and their log-probabilities, as the server says."""
    asked = {"model": model, "prompt": ids, "max_tokens": TOKENS, "logprobs": 0, **GREEDY}
    (found,) = link.post("/v1/completions", asked | {"return_token_ids": True})["choices"]
    return found["token_ids"], found["logprobs"]["token_logprobs"]


def _logp(policy: Policy, texts: Sequence[tuple[Ids, list[int]]]) -> Floats:
    """Of the tokens (T, of all texts) behind their prompts."""
    found = []
    with policy.evaluating():
        for prompt, more in texts:
            ids, start = np.concatenate([prompt, np.array(more, prompt.dtype)]), len(prompt)
            (row,) = pack([[TokenPath(ids, ((start, len(ids)),), (0,))]], len(ids))
            found.append(policy(row).float().cpu().numpy())
    return np.concatenate(found)
