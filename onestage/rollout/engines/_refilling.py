"""Whether places of a model's batch can be given to other completions, found out by trying it exactly.

Whether a newcomer sees its own tokens, all of them, at their own distances, is a question about code
(caches, masks, positions, windows). In bfloat16 the answer would drown in the rounding of a real model,
so it is put to a copy of the first layers in float32 with short windows (`models.excerpt`): some texts
take turns in a batch, a token at a time, and what the copy says of each must be what it says of that
text alone, in one plain pass: no cache, no batch, no padding, the model's own attention.

Legend: R places, S states that are compared, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.models.attention import reach
from onestage.models.excerpt import first_layers, in_float32, is_rounding, relative, states_of
from onestage.models.probe import REFUSALS
from onestage.models.yardstick import PADDING, own_attention, using
from onestage.rollout.engines._cache import fixed_layers, roomy_cache
from onestage.rollout.engines._reading import read
from onestage.rollout.engines._under_way import Rows

PROMPTS = {"A": 13, "B": 9, "C": 9, "D": 5, "E": 3}
"""Tokens of the prompts. Those of B and C are the same."""
MORE = 16
"""Tokens behind each of them at most."""


@torch.no_grad()
def trouble(base: Any) -> str:
    """Why places of a transformers model's batch are not given on; empty where they are."""
    fixed = fixed_layers(roomy_cache(base.config))
    if fixed:
        return f"its cache has layers whose rows cannot be replaced ({', '.join(fixed)})"
    if reach(base.config) is not None:
        return "its positions turn by other angles beside a long text"
    body = first_layers(base)
    if body is None:
        return "its first layers cannot be copied to try it"
    try:
        with in_float32(body.device):
            same, apart = _compared(body)
    except REFUSALS as error:
        return f"replacing a row of its cache fails ({type(error).__name__}: {error})"
    return (
        ""
        if same
        else f"a row that was replaced is {apart:.1e} of its size from the same text alone"
    )


def _compared(body: Any) -> tuple[bool, float]:
    """Whether texts that take turns say what they say alone, and how far they are apart."""
    texts = _texts(body.config.get_text_config().vocab_size)
    in_turns = _in_turns(body, texts)
    said_SH = torch.cat([torch.stack(in_turns[name]) for name in texts])

    def alone(padding: int = 0) -> Tensor:
        """The same states of each text in a pass of its own."""
        with using(body, own_attention(body)):
            whole = {name: _alone(body, ids, padding) for name, ids in texts.items()}
        first = {name: PROMPTS[name] - 1 for name in texts}
        return torch.cat([whole[n][first[n] : first[n] + len(in_turns[n])] for n in texts])

    alone_SH = alone()
    return is_rounding(
        body, relative(said_SH, alone_SH), lambda: relative(alone(PADDING), alone_SH)
    )


def _texts(vocabulary: int) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    found = {
        name: draw.integers(0, vocabulary, size + MORE).astype(np.int32)
        for name, size in PROMPTS.items()
    }
    found["C"][: PROMPTS["C"]] = found["B"][: PROMPTS["B"]]
    return found


def _alone(body: Any, ids: np.ndarray[Any, Any], padding: int) -> Tensor:
    """States (T, H) of a text."""
    padded = np.concatenate([ids, ids[-1:].repeat(padding)]).astype(np.int64)
    ids_T = torch.from_numpy(padded).to(body.device)
    given: dict[str, Any] = {"input_ids": ids_T[None]}
    if padding:
        given["attention_mask"] = (
            (torch.arange(len(padded)) < len(ids)).long().to(body.device)[None]
        )
    return states_of(body(**given, use_cache=False))[0, : len(ids)]


def _in_turns(body: Any, texts: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, list[Tensor]]:
    """States (H) behind the prompt of each text and behind every token after it, as far as it got."""
    turns = _Turns(body, texts)
    turns.begin(["A", "B"], "ABC")
    turns.go_on(2)
    turns.read("DE")
    turns.give("A", "D")
    turns.go_on(3)
    turns.give("B", "E")  # read ahead, in a batch with another
    turns.go_on(2)
    turns.end("C")  # runs along for nobody
    turns.go_on(2)
    turns.keep("DE")
    turns.go_on(4)  # both are longer than a window now
    return turns.said


class _Turns:
    """Texts whose tokens are given, in the places of a batch (`Rows`)."""

    def __init__(self, body: Any, texts: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.model, self.texts = _Stating(body), texts
        self.said: dict[str, list[Tensor]] = {name: [] for name in texts}
        self.ended: set[str] = set()

    def begin(self, prompts: Sequence[str], names: str) -> None:
        self.names = list(names)
        self.read(prompts)
        rows = [0, *[1] * (len(names) - 1)]
        self.rows = Rows(self.model, self.prompts, self._ids(rows), alone=False)
        self._note(self.names, self.prompts.logits_BV[rows])

    def read(self, names: Sequence[str]) -> None:
        self.ready = list(names)
        self.prompts = read(self.model, [self.texts[n][: PROMPTS[n]] for n in names])

    def give(self, ended: str, name: str) -> None:
        """The place of one to another, whose prompt was read."""
        place, row = [self.names.index(ended)], [self.ready.index(name)]
        self.names[place[0]] = name
        self.rows.replace(self._ids(place), self.prompts, self._ids(row), self._open())
        self._note([name], self.prompts.logits_BV[row])

    def end(self, name: str) -> None:
        self.ended.add(name)

    def keep(self, names: str) -> None:
        self.rows.keep(self._ids([self.names.index(name) for name in names]))
        self.names = list(names)

    def go_on(self, tokens: int) -> None:
        for _ in range(tokens):
            at = [PROMPTS[name] + len(self.said[name]) - 1 for name in self.names]
            ids = [int(self.texts[name][n]) for name, n in zip(self.names, at, strict=True)]
            self._note(self.names, self.rows.next(self._ids(ids), self._open()))

    def _note(self, names: Sequence[str], states_RH: Tensor) -> None:
        for name, state_H in zip(names, states_RH, strict=True):
            if name not in self.ended:
                self.said[name].append(state_H)

    def _open(self) -> Tensor:
        return self._ids([name not in self.ended for name in self.names])

    def _ids(self, of: Sequence[int | bool]) -> Tensor:
        return torch.tensor(of, device=self.model.device)


class _Stating:
    """A model without a head, whose states stand where the logits of others do."""

    def __init__(self, body: Any) -> None:
        self.body, self.config, self.device = body, body.config, body.device

    def __call__(self, *, logits_to_keep: int = 0, **inputs: Any) -> Any:
        return SimpleNamespace(logits=states_of(self.body(**inputs)))
