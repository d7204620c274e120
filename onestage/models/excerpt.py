"""The first layers of a model in float32: where a wrong mask cannot hide behind rounding.

In bfloat16 a real model moves by tenths of a nat when its batch is padded, and a row in which one token
sees what it should not may move less. Whether rows mean the same as their paths is a question about code
(masks, positions, windows), not about precision, so it is put to a copy of the first layers in float32:
enough of them that each kind of layer is there, with windows so short that a few words overrun them.
Embeddings are looked up in the model itself, so a copy costs a few layers of memory and no head.

Legend: T tokens, S states that are compared, H hidden size.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from onestage.data.packing import Row
from onestage.models.low_rank import as_peft_does
from onestage.models.sharding import copyable, opened
from onestage.models.yardstick import PADDING, largest, own_attention, using
from onestage.stats import at_most

if TYPE_CHECKING:
    from onestage.models.policy import Policy

LARGEST = 1 << 30
"""Numbers in a copy at most: 4 GiB."""
WINDOW = 8
"""Length of a sliding window, and of a chunk of attention, in the copy."""
FLOOR, TIMES, CEILING = 1e-4, 8.0, 1e-2
"""Difference of two states, relative to their length, that is rounding in float32: this, or so many
times that of the copy from itself when a path is padded, up to what products in TF32 may come to."""


class Excerpt:
    """A copy of the first layers of a policy's model, in float32 and with short windows."""

    def __init__(self, policy: Policy, model: Any) -> None:
        self.policy, self.model = policy, model

    @torch.no_grad()
    def apart(self, row: Row, attention: str) -> tuple[bool, float]:
        """Whether hidden states in a forest row are those of its paths alone, in the model's own
        attention, and the largest relative difference. attention: what the row is run with."""
        with in_float32(self.policy.device):
            with using(self.model, attention):
                inputs = self.policy.inputs(row, self.model.config, torch.float32)
                packed_TH = self._states(inputs)
            tree = row.tree
            at_S = np.concatenate([tree.parent_T[tree.node_K], tree.node_K])
            packed_SH = packed_TH[torch.from_numpy(at_S).to(packed_TH.device)]
            alone_SH = self._alone(row)
            return is_rounding(
                self.model,
                relative(packed_SH, alone_SH),
                lambda: relative(self._alone(row, PADDING), alone_SH),
            )

    @torch.no_grad()
    def looks_ahead(self, ids: np.ndarray[Any, Any]) -> float:
        """The largest relative difference that changing the second half of a text makes to the states
        of the first, in the model's own attention; 0 where that is rounding."""
        half = len(ids) // 2
        other = np.concatenate([ids[:half], ids[half:][::-1]])
        with in_float32(self.policy.device), using(self.model, own_attention(self.model)):
            before, after = (self._of(text)[:half] for text in (ids, other))
        found = largest(relative(after, before))
        # The shapes are the same, so there is little to round. And a model whose causal mask depends on
        # whether it is given one differs from itself when it is padded, by more than rounding.
        return 0.0 if at_most(found, FLOOR) else found

    def _alone(self, row: Row, padding: int = 0) -> Tensor:
        """The states (S, H) before scored tokens, then those at them, of paths one by one."""
        before, at = [], []
        with using(self.model, own_attention(self.model)), as_peft_does(self.model):
            for path in row.paths:
                states_TH = self._of(path.ids, padding)
                for start, end in path.spans:
                    before.append(states_TH[start - 1 : end - 1])
                    at.append(states_TH[start:end])
        return torch.cat([*before, *at])

    def _of(self, ids: np.ndarray[Any, Any], padding: int = 0) -> Tensor:
        ids_T = torch.from_numpy(ids.astype(np.int64)).to(self.policy.device)
        return self._states(self.policy.readout.plain_inputs(ids_T, padding))

    def _states(self, inputs: dict[str, Any]) -> Tensor:
        return states_of(self.model(**inputs, use_cache=False))[0]


def excerpt_of(policy: Policy) -> Excerpt | None:
    """The first layers of a policy's model; None where they cannot be copied (`first_layers`)."""
    with opened(policy):
        copied = first_layers(policy.base)
    return None if copied is None else Excerpt(policy, copied)


def first_layers(base: Any) -> Any | None:
    """A copy of the first layers of a transformers model, in float32 and with short windows; None where
    they cannot be copied (quantised weights, layers that are too large, a model that does not run with
    fewer layers). Weights that lie in parts must be together (`sharding`)."""
    if getattr(base, "hf_quantizer", None) is not None:
        return None
    try:
        return _copied(base.base_model)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):
        return (
            None  # what models say that keep their embeddings elsewhere, and hooks to being copied
        )


def states_of(out: Any) -> Tensor:
    """The last states that a copy gave; one without a body of its own gives logits, which are states of
    another size."""
    states: Tensor = out.last_hidden_state if "last_hidden_state" in out else out.logits
    return states.float()


def in_float32(device: torch.device) -> Any:
    """What a copy is run in, whatever the policy is."""
    return torch.autocast(device.type, enabled=False)


def relative(left_SH: Tensor, right_SH: Tensor) -> Tensor:
    """Differences (S) of states (S, H), relative to the length of those on the right."""
    return (left_SH - right_SH).norm(dim=-1) / right_SH.norm(dim=-1).clamp_min(1e-6)


def is_rounding(model: Any, gap_S: Tensor, noise: Callable[[], Tensor]) -> tuple[bool, float]:
    """Whether relative differences of a copy's states are rounding, and the largest of them.

    noise: how its states differ when a text is merely padded; asked for where it matters.
    """
    routed = any("experts" in name for name, _ in model.named_modules())
    found = _most(gap_S, routed)
    if at_most(found, FLOOR):
        return True, found
    return at_most(found, min(TIMES * _most(noise(), routed), CEILING)), found


def _most(gap_S: Tensor, routed: bool) -> float:
    """The largest; of a mixture of experts all but 1 in 100: the last digit of a score may send a token
    to another expert."""
    if not routed or not gap_S.isfinite().all():
        return largest(gap_S)
    return largest(gap_S.sort().values[: len(gap_S) - len(gap_S) // 100])


def _copied(inner: Any) -> Any:
    embedding = inner.get_input_embeddings()
    with _fewer_layers(inner):
        own = {id(p): p.numel() for p in inner.parameters()}
        shared = sum(own.pop(id(p), 0) for p in embedding.parameters())
        if sum(own.values()) > LARGEST or not shared:
            return None
        with copyable(inner):
            copied = copy.deepcopy(inner, {id(embedding): _InFloat32(embedding)})
    _shorten_windows(copied.float().eval().requires_grad_(False))
    return copied


class _InFloat32(nn.Module):
    """An embedding of the model, not copied: its vectors in float32."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self._of = [embedding]  # in a list, so that it is not one of the copy's own modules

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self._of[0].weight
        return weight

    def forward(self, ids: Tensor, *more: Any, **options: Any) -> Tensor:
        vectors: Tensor = self._of[0](ids, *more, **options)
        return vectors.float()


@contextlib.contextmanager
def _fewer_layers(model: Any) -> Iterator[None]:
    """The model with as many of its first layers as it takes to have each kind, two at least."""
    found = _layers(model)
    if found is None:
        yield
        return
    parent, name, layers = found
    kinds = [_kind(layer, number, model.config) for number, layer in enumerate(layers)]
    count = max(2, *(kinds.index(kind) + 1 for kind in set(kinds)))
    setattr(parent, name, nn.ModuleList(list(layers)[:count]))
    try:
        yield
    finally:
        setattr(parent, name, layers)


def _layers(model: Any) -> tuple[Any, str, nn.ModuleList] | None:
    """Where a model keeps its layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and 2 < len(child) == count:
                return module, name, child
    return None


def _kind(layer: nn.Module, number: int, config: Any) -> tuple[Any, ...]:
    """What distinguishes layers: the config's word for them, their modules, and how these are set."""
    types: Sequence[str] = getattr(config, "layer_types", None) or ()
    settings = tuple(
        (name, value)
        for module in layer.modules()
        for name, value in sorted(vars(module).items())
        if isinstance(value, bool | str) or (value is None or "window" in name)
    )
    made_of = tuple(type(module).__name__ for module in layer.modules())
    return types[number] if number < len(types) else "", made_of, repr(settings)


def _shorten_windows(model: Any) -> None:
    for owner in (model.config, *model.modules()):
        for name in ("sliding_window", "attention_chunk_size"):
            if isinstance(getattr(owner, name, None), int):
                setattr(owner, name, WINDOW)
