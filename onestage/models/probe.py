"""How a model is run, found out by trying it.

A few paths of text are packed and compared with the model as transformers loads it (`yardstick`), each
alone: its first layers in float32, where nothing but the last digits may differ, the whole in its own
precision, where what may differ is its own rounding. A model that is exact when packed runs as a forest;
where our attention loses something that the model's own has, with its own; where rows cannot be packed
(recurrent or convolutional layers, an unknown mask), each path alone. One whose head is not a plain
linear map keeps its own logits, and one that sees later tokens is refused. So an unusual model is slow,
never silently wrong.

Legend: K scored entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from onestage.data.packing import Row, pack
from onestage.data.trees import TokenPath
from onestage.models.attention import NAME
from onestage.models.excerpt import Excerpt, excerpt_of
from onestage.models.yardstick import (
    TOLERANCE,
    Rounding,
    largest,
    not_finite,
    own_attention,
    plain,
    spread,
    switches,
    using,
)
from onestage.stats import at_most

if TYPE_CHECKING:
    from onestage.models.policy import Policy

Layout = Literal["forest", "alone"]
TEXT = (
    "The old lighthouse keeper counted 17 ships before dawn, and wrote each name into a blue notebook. "
    "When the storm came, nobody believed him; still, he lit the lamp, rang the bell twice and waited. "
    "In the morning a child asked why he had stayed. He smiled and said: because somebody was out "
    "there, and because light is the only letter that the sea can read."
)
"""What models are tried on: rounding on random tokens is not that on text."""
REFUSALS = (
    NotImplementedError,
    TypeError,
    ValueError,
    RuntimeError,
    KeyError,
    AttributeError,
    IndexError,
    ImportError,
)
"""What models raise that cannot take a forest's masks or positions."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model is run, and why where that is not the fast way."""

    layout: Layout
    chunked_head: bool
    reason: str = ""
    attention: str | None = None
    """transformers' name of the attention; None leaves the model as it is."""


UNTRIED = Fit("alone", True, "it was not tried yet")


def probe(policy: Policy) -> Fit:
    """Decide how to run a model by comparing with its own logits on a few paths of text.

    Raises `ValueError` for a model that is not causal, or does not run at all.
    """
    broken = not_finite(policy.base)
    if broken:  # nothing could be compared; the step-0 laws refuse it by the same words
        return Fit("alone", False, broken)
    with policy.evaluating():
        return _Trial(policy).fit()


class _Trial:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.paths = trial_paths(policy)
        # Two trees, one of them with a branch: sharing, separation and positions are all tried.
        self.row: Row = pack([self.paths[:2], self.paths[2:]], 1 << 30)[0]
        self.own, self.now = own_attention(policy.base), policy.base.config._attn_implementation
        self.rounding = Rounding(TOLERANCE[policy.dtype], lambda: spread(policy, self.paths))
        self.plain_K = self._plain()
        self.excerpt, self.ahead = self._excerpt()

    def fit(self) -> Fit:
        self._require_causal()
        base = self.policy.base
        with using(base, self.own):
            chunked_head, head_trouble = self._agrees(
                lambda: torch.cat([self.policy.alone(path) for path in self.paths])
            )
        if getattr(base, "_is_stateful", False):
            reason = "its layers carry a recurrent state along the row"
        else:
            troubles: list[str] = []
            for attention in self._attentions():
                packs, trouble = self._packs(attention, chunked_head)
                if packs:
                    lost = f"with {attention} attention: {troubles[0]}" if troubles else ""
                    return Fit("forest", chunked_head, lost or head_trouble, attention)
                troubles.append(trouble)
            reason = f"packed and alone disagree ({troubles[0]})"
        return Fit("alone", chunked_head, reason, self._alone_attention())

    def _attentions(self) -> Sequence[str]:
        """Attentions to pack rows with: the model's present one, its own, and eager."""
        if not switches(self.policy.base):
            return (self.now,)
        return tuple(dict.fromkeys((self.now, self.own, "eager")))

    def _packs(self, attention: str, chunked: bool) -> tuple[bool, str]:
        """Whether rows mean the same as their paths, with this attention."""
        try:
            with using(self.policy.base, attention):
                agrees, trouble = self._agrees(
                    lambda: self.policy.packed(self.row, chunked=chunked)
                )
        except (ValueError, ImportError) as error:
            return False, _said(error)
        if not agrees or self.excerpt is None:
            return agrees, trouble
        try:
            exact, apart = self.excerpt.apart(self.row, attention)
        except REFUSALS:  # the whole model did run: it is the copy that does not
            return agrees, trouble
        return exact, "" if exact else f"states differ by {apart:.1e} of their size in float32"

    def _alone_attention(self) -> str:
        """For one path at a time: the attention that was asked for, where it is exact, else its own."""
        if self.now not in (NAME, "flex_attention") and self._agrees(self._by_its_own_head)[0]:
            return self.now
        return self.own

    def _by_its_own_head(self) -> Tensor:
        return torch.cat([self.policy.alone(path, chunked=False) for path in self.paths])

    def _agrees(self, score: Callable[[], Tensor]) -> tuple[bool, str]:
        try:
            gap_K = score() - self.plain_K
        except REFUSALS as error:
            return False, _said(error)
        agrees = self.rounding.covers(gap_K)
        return agrees, "" if agrees else f"values differ by up to {largest(gap_K):.2g}"

    def _plain(self) -> Tensor:
        try:
            return plain(self.policy, self.paths)
        except REFUSALS as error:
            raise ValueError(
                f"{type(self.policy.base).__name__} cannot be run on token ids alone ({_said(error)}); "
                "give a decoder-only language model"
            ) from error

    def _excerpt(self) -> tuple[Excerpt | None, float]:
        """The model's first layers, where they run by themselves, and how far they look ahead."""
        excerpt = excerpt_of(self.policy)
        try:
            return excerpt, excerpt.looks_ahead(self.paths[0].ids) if excerpt else 0.0
        except REFUSALS:
            return None, 0.0

    def _require_causal(self) -> None:
        """Changing later tokens must change nothing said of earlier ones."""
        path = self.paths[0]
        ((start, end),) = path.spans
        cut = (start + end) // 2
        ids = path.ids.copy()
        ids[cut:] = ids[cut:][::-1]
        moved_K = plain(self.policy, [TokenPath(ids, path.spans, path.responses)])
        moved_K = (moved_K - self.plain_K[: end - start])[: cut - start]
        if self.policy.dtype in (torch.float32, torch.float64):
            # Padding may bring a mask to a model that lacks one, so how it moves then is no measure.
            causal = at_most(largest(moved_K), self.rounding.floor)
        else:
            causal = self.rounding.covers(moved_K)
        if self.ahead or not causal:
            raise ValueError(
                f"{type(self.policy.base).__name__} sees later tokens (changing them moves what it says "
                f"of earlier ones by {max(self.ahead, largest(moved_K)):.1e}), so it gives a text no "
                "probability; give a causal language model"
            )


def trial_paths(policy: Policy) -> list[TokenPath]:
    """A branch, and a conversation of two turns: a few dozen tokens each."""
    ids = _some_tokens(policy)
    second = np.concatenate([ids[:12], ids[40:]])
    return [
        TokenPath(ids[:20], ((8, 20),), (0,)),
        TokenPath(second, ((12, 24),), (1,)),
        TokenPath(ids[20:40], ((3, 7), (11, 19)), (2, 3)),
    ]


def _some_tokens(policy: Policy, size: int = 52) -> np.ndarray[Any, Any]:
    """Token ids of a text; random ones for a policy that has no tokenizer."""
    config = policy.base.config.get_text_config()
    ids = np.empty(0, dtype=np.int32)
    if policy.tokenizer is not None:
        found = policy.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        ids = np.asarray([i for i in found if i < config.vocab_size], dtype=np.int32)[:size]
    more = np.random.default_rng(0).integers(0, config.vocab_size, size=size - len(ids))
    ids = np.concatenate([ids, more.astype(np.int32)])
    padding = getattr(config, "pad_token_id", None)  # classifiers look for it
    ids[ids == padding] = (ids[ids == padding] + 1) % config.vocab_size
    return ids


def _said(error: Exception) -> str:
    first = str(error).splitlines()[0][:120] if str(error) else ""
    return f"{type(error).__name__}: {first}"
