"""What a model weighs and does, read off its configuration: nothing is loaded, no memory is taken.

The model is built on the meta device, with the run's own adapters, and a row of tokens is sent through
it there. So parameters are counted, and what the backward pass would keep is added up, by the code that
will run, whatever the architecture; only attention is stood in for, by what fused kernels keep.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    PretrainedConfig,
)

from onestage.models.adapters import adapted
from onestage.models.estimate import held_in
from onestage.models.loading import reading
from onestage.models.model import Lora, Model, Precision
from onestage.models.reward_model import auto_class

NAME = "onestage_footprint"
TOKENS = 128
"""Of the row that is sent through: enough for what does not depend on tokens to hardly count."""
FOUR_BITS = 0.55
"""Bytes of a weight in 4 bits, with the scales of its blocks."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Counts of parameters, bytes and products of one model. Of bytes of activations, a token."""

    parameters: int
    """All of the model's own, tied ones once; adapters are not among them."""
    trained: int
    adapters: bool
    """Whether adapters are trained, or all weights."""
    multiplied: int
    """Parameters in layers that each token is multiplied with."""
    head: int
    """Likewise of the output head."""
    layer: int
    """Of the largest layer."""
    layers: int
    weight_bytes: float
    """Of one of the model's own weights, as it is held."""
    master_bytes: int
    """Of the float32 copy of one trained weight; 0 where it is float32 itself."""
    kept: float
    """What the backward pass keeps of a token."""
    entering: float
    """What enters a layer, of a token: all that is kept of it with activation checkpointing."""
    attended: int
    """Products a token makes in all layers with each token that it attends to."""
    cached: int
    """Keys and values of a token, in 16 bits, while answers are sampled."""

    @property
    def gradient_bytes(self) -> int:
        """Of one trained weight: float32, and where it has a master its own beside that."""
        return 4 + (2 if self.master_bytes else 0)


def footprint(
    config: PretrainedConfig,
    *,
    lora: Lora | None = None,
    dtype: Precision = "auto",
    four_bits: bool = False,
    computed_in: torch.dtype | None = None,
) -> Footprint:
    """The footprint of a model to be trained. `computed_in`: of autocast, where that is on."""
    held = held_in(config, dtype)
    model = _on_meta(config, computed_in or held)
    own = {id(p): p.numel() for p in model.parameters()}
    blocks = _blocks(model)
    multiplied, head = _multiplied(blocks), _head(model)
    layer = max(sum(p.numel() for p in block.parameters()) for block in blocks)
    whole = adapted(lora, model) if lora else model
    if lora:  # adapters are float32, whatever they lie on
        for parameter in whole.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    trained = sum(p.numel() for p in whole.parameters() if p.requires_grad)
    text = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    return Footprint(
        parameters=sum(own.values()),
        trained=trained,
        adapters=lora is not None,
        multiplied=multiplied,
        head=head,
        layer=layer,
        layers=len(blocks),
        weight_bytes=FOUR_BITS if four_bits else held.itemsize,
        master_bytes=0 if lora or held.itemsize >= 4 else 4,
        kept=_kept(whole, model) / TOKENS,
        entering=text.hidden_size * (computed_in or held).itemsize,
        attended=2 * len(blocks) * heads * width,
        cached=2 * len(blocks) * shared * width * 2,
    )


def _on_meta(config: PretrainedConfig, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=NAME)
    return model.train()


def _blocks(model: Any) -> nn.ModuleList:
    """The layers: the longest list of modules."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=lambda part: sum(p.numel() for p in part.parameters()))


def _multiplied(blocks: nn.ModuleList) -> int:
    """Parameters of matrices in layers. Of experts, those that a token meets are not told apart: all."""
    return sum(p.numel() for p in blocks.parameters() if p.dim() > 1)


def _head(model: Any) -> int:
    weight = model.get_output_embeddings().weight
    return int(weight.numel())


def _kept(whole: nn.Module, model: Any) -> int:
    """Bytes that autograd saves for the backward pass of a row, parameters not counted."""
    mine = {_storage(p) for p in whole.parameters()}
    seen: dict[int, Any] = {}

    def keep(saved: Tensor) -> Tensor:
        if _storage(saved) not in mine:
            seen[_storage(saved)] = (
                saved.untyped_storage()
            )  # held, so that no other gets its number
        return saved

    ids = torch.zeros((1, TOKENS), dtype=torch.long, device="meta")
    # A mask that is there already is taken as it is; who attends to whom makes no difference here.
    mask: Any = torch.ones((1, 1, TOKENS, TOKENS), dtype=torch.bool, device="meta")
    kinds = set(getattr(model.config, "layer_types", None) or ())
    mask = {kind: mask for kind in kinds} if len(kinds) > 1 else mask
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        # Of frozen weights under adapters, gradients flow from the first adapter on.
        hidden = model.base_model(ids, attention_mask=mask, use_cache=False).last_hidden_state
    del hidden
    return sum(storage.nbytes() for storage in seen.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _Attended(torch.autograd.Function):
    """What a fused kernel keeps: queries, keys, values, the result, and a number a query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made = query.new_empty((*query.shape[:-1], value.shape[-1]))
        scale = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, made, scale)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(saved) for saved in ctx.saved_tensors[:3])


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, None]:
    apply: Callable[..., Tensor] = _Attended.apply
    return apply(query, key, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, lambda *given, **options: None)


def check_shape(source: Model, config: PretrainedConfig) -> None:
    """Raise `ValueError` where no model can be made of the configuration, or it has no layers such as
    `lora` names; makes no weights."""
    with torch.device("meta"):
        with reading(f"the configuration of {source.name or 'model.config'}"):
            shape = auto_class(source.task).from_config(
                copy.deepcopy(config), trust_remote_code=source.trust_remote_code
            )
        if source.lora is not None:
            adapted(source.lora, shape, source.task)
