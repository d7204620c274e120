"""Sampling with the policy's own transformers model, many rows at once.

A request's prompt is read once, however many completions are wanted: its keys and values are then
repeated. Prompts of similar length share a batch, padded on the left; rows that have ended leave it, so
that a long completion does not make the others run along. New keys and values are written into room kept
for them: transformers' own dynamic cache copies everything at every token, which takes most of the time
that it takes to sample on a CPU.

Legend: B prompts of a batch, R rows (completions under way), T tokens so far, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from onestage.rollout.engines import Completion, Decoding, Engine, Request, uniforms

SLACK = 0.25
"""Rows that have ended are taken out when they are this part of the batch."""
ROOM = 64
"""Tokens for which a layer's cache makes room at a time."""


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
        plain = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        if "past_key_values" not in inspect.signature(plain.forward).parameters:
            raise ValueError(
                f"{type(plain).__name__} takes no past_key_values: the engine transformers cannot "
                "sample from it"
            )

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], how: Decoding) -> list[list[Completion]]:
        if not all(len(request.ids) for request in requests):
            raise ValueError("a prompt without any token cannot be completed (no BOS token?)")
        found: list[list[Completion]] = [[] for _ in requests]
        training = self.model.training
        self.model.eval()
        try:
            for batch in self._batches(requests):
                rows = [(place, number) for place, numbers in batch for number in numbers]
                drawn = self._draw([(requests[p], numbers) for p, numbers in batch], how)
                for (place, _), completion in zip(rows, drawn, strict=True):
                    found[place].append(completion)
        finally:
            self.model.train(training)
        return found

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, range]]]:
        """Requests of similar length together: (which request, which of its completions)."""
        batch: list[tuple[int, range]] = []
        room = self.batch_size
        # Neighbours of nearly the same length need little padding.
        for place in sorted(range(len(requests)), key=lambda p: -len(requests[p].ids)):
            start = 0
            while start < requests[place].count:
                stop = min(requests[place].count, start + room)
                batch.append((place, range(start, stop)))
                room -= stop - start
                start = stop
                if not room:
                    yield batch
                    batch, room = [], self.batch_size
        if batch:
            yield batch

    def _draw(self, batch: Sequence[tuple[Request, range]], how: Decoding) -> list[Completion]:
        """Completions of the rows of a batch, in order."""
        device = self.model.device
        counts = [len(numbers) for _, numbers in batch]
        logits_RV, cache, mask_RT = self._read([request.ids for request, _ in batch], counts)
        size, longest = sum(counts), how.max_completion_length
        chance = _chances(batch, longest).to(device)
        ids = torch.zeros(size, longest, dtype=torch.int64, device=device)
        logp = torch.zeros(size, longest, device=device)
        length = torch.zeros(size, dtype=torch.int64, device=device)
        ends = torch.tensor(self.ends, device=device)
        warp = warpers(how)
        alive = torch.arange(size, device=device)  # the row behind each place of the batch
        open_R = torch.ones(size, dtype=torch.bool, device=device)  # places that have not ended
        read, position_R = mask_RT.shape[1], mask_RT.sum(-1)
        mask_RT = torch.cat([mask_RT, mask_RT.new_ones(size, longest)], 1)
        for at in range(longest):
            token_R, logp_R = draw(logits_RV, chance[alive, at], how, warp)
            rows = alive[open_R]
            ids[rows, at] = token_R[open_R]
            logp[rows, at] = logp_R[open_R]
            length[rows] = at + 1
            open_R = open_R & ~torch.isin(token_R, ends)
            left = int(open_R.sum())
            if at + 1 == longest or not left:
                break
            # Not at every end of a row: taking rows out copies the cache.
            if left <= (1 - SLACK) * len(alive):
                keep = open_R.nonzero()[:, 0]
                # Made for beam search; that it can also drop rows is what is used here.
                cache.reorder_cache(keep)
                alive, token_R, mask_RT, position_R, open_R = (
                    x[keep] for x in (alive, token_R, mask_RT, position_R, open_R)
                )
            logits_RV = self._next(token_R, mask_RT[:, : read + at + 1], position_R + at, cache)
        ended = torch.isin(ids[torch.arange(size, device=device), length - 1], ends).tolist()
        return [
            Completion(
                ids[row, :stop].to("cpu", torch.int32).numpy(),
                ended[row],
                logp[row, :stop].cpu().numpy(),
            )
            for row, stop in enumerate(length.tolist())
        ]

    def _next(
        self, token_R: Tensor, mask_RT: Tensor, position_R: Tensor, cache: DynamicCache
    ) -> Tensor:
        """Logits (R, V) behind one more token of each row, which the cache takes in."""
        return self.model(
            input_ids=token_R[:, None],
            attention_mask=mask_RT,
            position_ids=position_R[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]

    def _read(
        self, prompts: Sequence[np.ndarray[Any, Any]], counts: Sequence[int]
    ) -> tuple[Tensor, Any, Tensor]:
        """Logits (R, V) behind each row's prompt, the cache and the mask (R, T): a prompt read once."""
        longest, device = max(len(ids) for ids in prompts), self.model.device
        ids = np.zeros((len(prompts), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        mask_BT = torch.from_numpy(mask).to(device)
        cache: Any = roomy_cache(self.model.config)
        logits_BV = self.model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=mask_BT,
            position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        row_R = torch.repeat_interleave(
            torch.arange(len(prompts), device=device), torch.tensor(counts, device=device)
        )
        cache.reorder_cache(row_R)
        return logits_BV[row_R], cache, mask_BT[row_R]


def _chances(batch: Sequence[tuple[Request, range]], longest: int) -> Tensor:
    """The random numbers of each row (R, longest): its own, whatever else is in the batch."""
    found = [uniforms(one.key, number, longest) for one, numbers in batch for number in numbers]
    return torch.from_numpy(np.stack(found))


class RoomyLayer(DynamicLayer):
    """A layer's keys and values (R, heads, T, size), at the front of memory that has room for more."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        at = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.room = 0
        end = at + key_states.shape[-2]
        if end > self.room:
            self.room = end + ROOM
            self._keys, self._values = (
                _with_room(old, new, at, self.room)
                for old, new in ((self.keys, key_states), (self.values, value_states))
            )
        self._keys[:, :, at:end] = key_states
        self._values[:, :, at:end] = value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if at := self.get_seq_length():
            self._keys, self._values = self._keys[beam_idx], self._values[beam_idx]
            self.keys, self.values = self._keys[:, :, :at], self._values[:, :, :at]


def _with_room(old: Tensor | None, new: Tensor, at: int, room: int) -> Tensor:
    made = new.new_empty(*new.shape[:2], room, new.shape[-1])
    if at and old is not None:
        made[:, :, :at] = old
    return made


def roomy_cache(config: Any) -> DynamicCache:
    """transformers' cache of a model, with room in the layers that keep everything."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(x) is DynamicLayer else x for x in cache.layers]
    return cache


def warpers(how: Decoding) -> Any:
    """transformers' own temperature and truncation, in its order."""
    found = LogitsProcessorList()
    if how.temperature not in (0.0, 1.0):
        found.append(TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        found.append(TopKLogitsWarper(how.top_k))
    if how.top_p < 1:
        found.append(TopPLogitsWarper(how.top_p))
    if how.min_p > 0:
        found.append(MinPLogitsWarper(how.min_p))
    return found


def draw(logits_RV: Tensor, chance_R: Tensor, how: Decoding, warp: Any) -> tuple[Tensor, Tensor]:
    """A token (R) for each row and its log-probability (R) at temperature 1, untruncated.

    It is the likeliest, or the one on which `chance` falls in the cumulated probabilities.
    """
    logp_RV = torch.log_softmax(logits_RV.float(), -1)
    if how.temperature == 0:
        token_R1 = logp_RV.argmax(-1, keepdim=True)
    else:
        total_RV = torch.softmax(warp(None, logp_RV), -1).cumsum_(-1)
        whole_R1 = total_RV[:, -1:]
        # below the whole, so that no rounding finds a token behind the last one with any probability
        below_R1 = torch.nextafter(whole_R1, torch.zeros_like(whole_R1))
        found_R1 = torch.minimum(chance_R[:, None] * whole_R1, below_R1)
        token_R1 = torch.searchsorted(total_RV, found_R1, right=True)
    return token_R1[:, 0], logp_RV.gather(1, token_R1)[:, 0]


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokenizer's EOS and what the model's generation settings end on: loading puts the end markers
    of the chat template there."""
    own = model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    known = [tokenizer.eos_token_id, *listed]
    return sorted({i for i in known if i is not None and i < model.config.vocab_size})
