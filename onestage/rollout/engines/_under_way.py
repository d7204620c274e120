"""Completions under way: a batch whose places are given to the next prompts as completions end.

Prompts wait, the longest first. Some are read ahead, each once for all its completions, and a place is
filled from them as soon as its completion has ended, so that nearly all rows of a forward pass are
wanted ones. When nothing waits any more, rows that have ended leave, so that a long completion does not
make the others run along. What is drawn for a row depends on its own random numbers, whoever is beside.

Legend: B prompts read together, R places (rows of the batch), N some of them, T columns of the cache,
V vocabulary.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.rollout.engines import Completion, Decoding, Request, uniforms
from onestage.rollout.engines._cache import replace_rows
from onestage.rollout.engines._reading import Read, read, read_apart
from onestage.rollout.engines._tokens import draw, warpers

SLACK = 0.25
"""Rows that have ended are taken out when they are this part of a batch for which nothing waits."""
AHEAD = 0.25
"""Completions whose prompts are read ahead, as a part of the batch: the fewer reads, the more memory."""


class Rows:
    """What is said to the model of each row: the cache, which of its columns count, what comes next."""

    def __init__(self, model: Any, prompts: Read, row_R: Tensor, *, alone: bool) -> None:
        """Row after row of some prompts. `alone`: nobody else needs them any more."""
        self.model = model
        self.cache = prompts.cache if alone else copy.deepcopy(prompts.cache)
        # Made for beam search; that it can also repeat and drop rows is what is used here.
        self.cache.reorder_cache(row_R)
        self.mask_RT = prompts.mask_BT[row_R]
        self.position_R = self.mask_RT.sum(-1)
        """Tokens of each row in the cache."""

    def next(self, token_R: Tensor, open_R: Tensor) -> Tensor:
        """Logits (R, V) behind one more token of each row, which the cache takes in."""
        self.mask_RT = torch.cat([self.mask_RT, torch.ones_like(self.mask_RT[:, :1])], 1)
        logits_RV: Tensor = self.model(
            input_ids=token_R[:, None],
            attention_mask=self.mask_RT,
            position_ids=self.position_R[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        # Rows that have ended run along where they are: beyond the end there may be no positions.
        self.position_R = self.position_R + open_R
        return logits_RV

    def replace(self, place_N: Tensor, prompts: Read, row_N: Tensor, open_R: Tensor) -> None:
        """Prompts in the places of rows. `open_R`: which others are still wanted."""
        mask_NT = prompts.mask_BT[row_N]
        self.mask_RT[place_N] = 0
        # They were perhaps read beside a longer one, and are padded to more columns than there are now.
        both = min(mask_NT.shape[1], self.mask_RT.shape[1])
        self.mask_RT[place_N, -both:] = mask_NT[:, -both:]
        self.position_R[place_N] = mask_NT.sum(-1)
        wanted_R = open_R.clone()
        wanted_R[place_N] = True
        leave = self.mask_RT.shape[1] - int((self.position_R * wanted_R).max())
        replace_rows(self.cache, place_N, prompts.cache, row_N, leave)
        self.mask_RT = self.mask_RT[:, leave:]

    def keep(self, place_N: Tensor) -> None:
        """Only these rows, in this order."""
        self.cache.reorder_cache(place_N)
        self.mask_RT, self.position_R = self.mask_RT[place_N], self.position_R[place_N]


class UnderWay:
    """The completions of some requests, by a batch of at most `size` rows."""

    rows: Rows
    prompts: Read

    def __init__(
        self,
        model: Any,
        ends: Sequence[int],
        requests: Sequence[Request],
        how: Decoding,
        size: int,
        *,
        refilled: bool,
        apart: bool = False,
        tokenizer: Any = None,
    ) -> None:
        """`refilled`: whether places are given on (`_refilling`), or all rows of a batch end first.
        `apart`: whether prompts may be read in several passes, which asks the same of a model.
        tokenizer: to look for texts at which completions end, where there are such."""
        self.model, self.requests, self.how, self.size = model, requests, how, size
        self.read = read_apart if apart else read
        self.refilled, self.warp, self.tokenizer = refilled, warpers(how), tokenizer
        # A token of one byte is the shortest there is.
        self.tail = max((len(text.encode()) for text in how.stop), default=0) + 1
        self.ends = torch.tensor(ends, device=model.device)
        # Neighbours of nearly the same length need little padding, and a newcomer is never longer than
        # what is under way.
        order = sorted(range(len(requests)), key=lambda p: -len(requests[p].ids))
        self.waiting = deque((p, number) for p in order for number in range(requests[p].count))
        self.ready: deque[tuple[tuple[int, int], int]] = deque()
        """Completions whose prompt was read, and its row among those."""
        self.found: dict[tuple[int, int], Completion] = {}

    def run(self) -> dict[tuple[int, int], Completion]:
        """Each completion by the place of its request and its number."""
        while self.ready or self.waiting:
            self._begin()
            while self._any_left():
                self._take(slice(None), self.rows.next(self.token_R, self.open_R))
            self._put_away(torch.arange(len(self.names)))
        return self.found

    def _begin(self) -> None:
        """A batch of its own."""
        self.waiting.extendleft(name for name, _ in reversed(self.ready))
        self.ready.clear()
        self._read(self.size)
        names, row_R = self._next(self.size)
        count, device = len(names), self.model.device
        longest = self.how.max_completion_length
        self.rows = Rows(self.model, self.prompts, row_R, alone=not self.ready)
        self.names = names
        self.chance_RL = self._chances(names)
        self.token_R = torch.zeros(count, dtype=torch.int64, device=device)
        self.ids_RL = torch.zeros(count, longest, dtype=torch.int64, device=device)
        self.logp_RL = torch.zeros(count, longest, device=device)
        self.length_R = torch.zeros(count, dtype=torch.int64, device=device)
        self.open_R = torch.ones(count, dtype=torch.bool, device=device)
        self._take(slice(None), self.prompts.logits_BV[row_R])

    def _read(self, count: int) -> None:
        """Read the prompts of the next completions: of so many, and of the others of the last group."""
        taken = list(islice(self.waiting, count))
        last = taken[-1][0]
        taken += [name for name in islice(self.waiting, count, None) if name[0] == last]
        for _ in taken:
            self.waiting.popleft()
        places = list(dict.fromkeys(place for place, _ in taken))
        self.prompts = self.read(self.model, [self.requests[place].ids for place in places])
        row = {place: n for n, place in enumerate(places)}
        self.ready.extend((name, row[name[0]]) for name in taken)

    def _next(self, count: int) -> tuple[list[tuple[int, int]], Tensor]:
        """Completions whose prompts are read, at most so many, and the rows of these prompts."""
        taken = [self.ready.popleft() for _ in range(min(count, len(self.ready)))]
        rows = torch.tensor([row for _, row in taken], device=self.model.device)
        return [name for name, _ in taken], rows

    def _chances(self, names: Sequence[tuple[int, int]]) -> Tensor:
        """The random numbers of each row: its own, whatever else is in the batch."""
        longest = self.how.max_completion_length
        found = [uniforms(self.requests[p].key, number, longest) for p, number in names]
        return torch.from_numpy(np.stack(found)).to(self.model.device)

    def _take(self, place: Any, logits_NV: Tensor) -> None:
        """Draw a token for some places, and keep those of rows that have not ended."""
        open_N, length_N = self.open_R[place], self.length_R[place]
        at_N = length_N.clamp(max=self.how.max_completion_length - 1)
        chance_N = self.chance_RL[place].gather(1, at_N[:, None])[:, 0]
        token_N, logp_N = draw(logits_NV, chance_N, self.how, self.warp)
        self.token_R[place] = token_N
        row_N = torch.arange(len(self.names), device=token_N.device)[place]
        # Rows that have ended keep theirs: picking out the others would wait for its device.
        for kept_RL, new_N in ((self.ids_RL, token_N), (self.logp_RL, logp_N)):
            kept_RL[row_N, at_N] = torch.where(open_N, new_N, kept_RL[row_N, at_N])
        length_N = length_N + open_N
        self.length_R[place] = length_N
        self.open_R[place] = (
            open_N & ~torch.isin(token_N, self.ends) & (length_N < self.how.max_completion_length)
        )
        if self.how.stop:
            self._stop(row_N, open_N)

    def _stop(self, row_N: Tensor, open_N: Tensor) -> None:
        """End those of some rows that went on and whose last tokens hold a text at which to end. The
        device is read once."""
        length_N1 = self.length_R[row_N][:, None]
        at_NE = length_N1 + torch.arange(-self.tail, 0, device=row_N.device)
        end_NE = self.ids_RL[row_N].gather(1, at_NE.clamp(min=0))
        told = torch.cat([open_N[:, None].long(), length_N1, end_NE], 1).tolist()
        holds = [went_on and self._holds(end[-length:]) for went_on, length, *end in told]
        self.open_R[row_N] &= ~torch.tensor(holds, dtype=torch.bool).to(row_N.device)

    def _holds(self, ids: Sequence[int]) -> bool:
        end = self.tokenizer.decode(ids)
        return any(text in end for text in self.how.stop)

    def _any_left(self) -> bool:
        """Whether the batch goes on, its places filled as far as something waits."""
        left = int(self.open_R.sum())
        while self.refilled and (self.ready or self.waiting) and 0 < left < len(self.names):
            self._refill(len(self.names) - left)
            left = int(self.open_R.sum())
        # Not at every end of a row: taking rows out copies the cache.
        if 0 < left <= (1 - SLACK) * len(self.names):
            self._keep(self.open_R.nonzero()[:, 0])
        return left > 0

    def _refill(self, count: int) -> None:
        """The next completions in places whose own have ended; these may end at once again."""
        if not self.ready:
            self._read(max(count, int(AHEAD * self.size)))
        names, row_N = self._next(count)
        place_N = (~self.open_R).nonzero()[: len(names), 0]
        self._put_away(place_N)
        self.rows.replace(place_N, self.prompts, row_N, self.open_R)
        for place, name in zip(place_N.tolist(), names, strict=True):
            self.names[place] = name
        self.chance_RL[place_N] = self._chances(names)
        self.length_R[place_N] = 0
        self.open_R[place_N] = True
        self._take(place_N, self.prompts.logits_BV[row_N])

    def _keep(self, place_N: Tensor) -> None:
        """Only these rows go on."""
        self._put_away((~self.open_R).nonzero()[:, 0])
        self.rows.keep(place_N)
        self.names = [self.names[place] for place in place_N.tolist()]
        for name in ("chance_RL", "token_R", "ids_RL", "logp_RL", "length_R", "open_R"):
            setattr(self, name, getattr(self, name)[place_N])

    def _put_away(self, place_N: Tensor) -> None:
        """Keep what was drawn in some places."""
        ids, logp = self.ids_RL[place_N].cpu(), self.logp_RL[place_N].cpu()
        lengths, ends = self.length_R[place_N].tolist(), set(self.ends.tolist())
        for row, (place, length) in enumerate(zip(place_N.tolist(), lengths, strict=True)):
            drawn = ids[row, :length].to(torch.int32).numpy()
            self.found[self.names[place]] = Completion(
                drawn, int(drawn[-1]) in ends, logp[row, :length].clone().numpy()
            )
