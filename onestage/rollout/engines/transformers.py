"""Sampling with the policy's own transformers model, many rows at once.

A request's prompt is read once, however many completions are wanted: its keys and values are then
repeated. A place of the batch goes to the next prompt as soon as its completion has ended
(`_under_way`), in a cache whose rows can be replaced (`_cache`). Whether a model takes that is found out
by trying it (`_refilling`), the first time that more is wanted than fits a batch; of a model that does
not, each batch ends before the next begins, and a remark says why.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from onestage.models.yardstick import own_attention, using
from onestage.rollout.engines import Completion, Decoding, Engine, Request
from onestage.rollout.engines._reading import worth_several
from onestage.rollout.engines._refilling import trouble
from onestage.rollout.engines._under_way import UnderWay

PADDING_IS_READ = frozenset({"recurrent_gemma"})
"""Models whose recurrence goes over padding as over text, whatever the mask says: prompts of different
lengths are no batch. (Of 20 greedy completions 10 were others than alone.)"""


@dataclass
class Transformers(Engine):
    model: Any
    tokenizer: Any
    batch_size: int = 64
    """Completions under way at once."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        self.ends = end_ids(self.model, self.tokenizer)
        if "past_key_values" not in inspect.signature(self._base.forward).parameters:
            raise ValueError(
                f"{type(self._base).__name__} takes no past_key_values: the engine transformers cannot "
                "sample from it"
            )

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], how: Decoding) -> list[list[Completion]]:
        if not all(len(request.ids) for request in requests):
            raise ValueError("a prompt without any token cannot be completed (no BOS token?)")
        training = self.model.training
        self.model.eval()
        try:
            with self._attention():
                drawn = self._sampled(requests, how)
        finally:
            self.model.train(training)
        return [
            [drawn[place, number] for number in range(request.count)]
            for place, request in enumerate(requests)
        ]

    def _sampled(
        self, requests: Sequence[Request], how: Decoding
    ) -> dict[tuple[int, int], Completion]:
        lengths = [len(one.ids) for one in requests]
        if self._base.config.model_type not in PADDING_IS_READ or len(set(lengths)) < 2:
            return self._together(requests, how)
        drawn: dict[tuple[int, int], Completion] = {}
        for length in sorted(set(lengths)):
            places = [place for place, own in enumerate(lengths) if own == length]
            found = self._together([requests[place] for place in places], how)
            drawn |= {(places[place], number): one for (place, number), one in found.items()}
        return drawn

    def _together(
        self, requests: Sequence[Request], how: Decoding
    ) -> dict[tuple[int, int], Completion]:
        longest = sorted((len(one.ids) for one in requests), reverse=True)
        under_way = UnderWay(
            self.model,
            self.ends,
            requests,
            how,
            self.batch_size,
            # Whether places can be given on is not asked where nothing waits for them.
            refilled=sum(one.count for one in requests) > self.batch_size and self._refills,
            apart=worth_several(longest[: self.batch_size]) and self._refills,
            tokenizer=self.tokenizer,
        )
        return under_way.run()

    @property
    def _base(self) -> Any:
        """The transformers model, inside its adapters."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def _attention(self) -> AbstractContextManager[None]:
        """FlexAttention is for packed rows: a token at a time it would make a block mask, of another
        length, for every token. The model's own attention is meant for that."""
        now = self._base.config._attn_implementation
        if now != "flex_attention":
            return nullcontext()
        return using(self._base, own_attention(self._base))

    @cached_property
    def _refills(self) -> bool:
        """Whether places are given to the next completions as theirs end. The model is tried."""
        why = trouble(self._base)
        if why:
            self.remarks = [
                f"sampling: all completions of a batch end before the next begins, since {why}"
            ]
        return not why


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokenizer's EOS and what the model's generation settings end on: loading puts the end markers
    of the chat template there."""
    own = model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    known = [tokenizer.eos_token_id, *listed]
    return sorted({i for i in known if i is not None and i < model.config.vocab_size})
