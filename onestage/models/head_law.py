"""Law 3, measured: how far the chunked head is from full logits, in a model as it is.

Legend: K scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.data.trees import TokenPath
from onestage.models.head import full_logits, shape_of, token_logps


def head_difference(model: Any, path: TokenPath) -> tuple[float, float]:
    """Largest difference of the chunked head from full logits on a path: values, gradients (law 3).

    Gradients are those of the summed log-probability by the hidden states, relative to their
    largest, or to the head's largest weight: they are differences of its rows, so where the model
    is sure of every token what is left of them is the rounding of those.
    """
    hidden_KH, target_K, full_K = _said(model, path)
    head, shape = model.get_output_embeddings(), shape_of(model.config)
    bias_V = getattr(head, "bias", None)
    # As the head is in the run, trained or not, which is not computed in the same way.
    chunked_K = token_logps(hidden_KH, head.weight, target_K, bias_V=bias_V, shape=shape, chunk=16)
    (mine,) = torch.autograd.grad(chunked_K.sum(), hidden_KH)
    theirs = _full_gradient(model, hidden_KH, target_K)
    values = (chunked_K - full_K).abs().max()
    return values.item(), _of_their_size(mine, theirs, model)


def head_rounding(model: Any, path: TokenPath) -> float:
    """How far the gradients of full logits move, as `head_difference` has it, where positions are taken
    one at a time: a product with one row sums over the vocabulary in another order."""
    hidden_KH, target_K, _ = _said(model, path)
    together = _full_gradient(model, hidden_KH, target_K)
    apart = [
        _full_gradient(model, hidden_KH[k : k + 1].detach().requires_grad_(), target_K[k : k + 1])
        for k in range(len(target_K))
    ]
    return _of_their_size(torch.cat(apart), together, model)


def _said(model: Any, path: TokenPath) -> tuple[Tensor, Tensor, Tensor]:
    """Of a path's scored tokens: the states they are predicted from (K, H; a leaf that takes gradients),
    their ids, and their log-probabilities by the model's own logits."""
    at = np.concatenate([np.arange(start, end) for start, end in path.spans])
    at_K = torch.from_numpy(at).to(model.device)
    ids = torch.from_numpy(path.ids.astype(np.int64)).to(model.device)
    target_K = ids[at_K]
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state
        full = model(input_ids=ids[None], use_cache=False).logits[0, at_K - 1].float()
        full_K = torch.log_softmax(full, -1).gather(1, target_K[:, None])[:, 0]
    return hidden[0, at_K - 1].detach().requires_grad_(), target_K, full_K


def _full_gradient(model: Any, hidden_KH: Tensor, target_K: Tensor) -> Tensor:
    head, shape = model.get_output_embeddings(), shape_of(model.config)
    weight_VH, bias_V = head.weight.detach().float(), getattr(head, "bias", None)
    logits = full_logits(hidden_KH.float(), weight_VH, bias_V, shape)
    naive_K = torch.log_softmax(logits, -1).gather(1, target_K[:, None])[:, 0]
    gradient: Tensor = torch.autograd.grad(naive_K.sum(), hidden_KH)[0]
    return gradient


def _of_their_size(mine: Tensor, theirs: Tensor, model: Any) -> float:
    weight, shape = model.get_output_embeddings().weight, shape_of(model.config)
    scale = torch.maximum(theirs.abs().max(), weight.detach().abs().max() * shape.scale)
    return ((mine - theirs).abs().max() / scale).item()
