"""Law 3, measured: how far the chunked head is from full logits, in a model as it is.

Legend: K scored positions, H hidden size, V vocabulary, R rows of the head that are looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.data.trees import TokenPath
from onestage.models.head import Shape, shape_of, shaped
from onestage.models.head_ways import OURS, logps_by
from onestage.models.yardstick import wide

SOME = 64
"""Rows of the head, beside those of the targets, whose gradients are compared."""
POSITIONS, ROWS = 128, 1 << 14
"""Positions, and rows of the head, that are in float64 at once."""


def head_difference(
    model: Any, path: TokenPath, way: str = OURS, weights: bool = True
) -> tuple[float, float]:
    """Largest difference of the head from full logits on a path: values, gradients (law 3).

    Gradients are those of a sum of log-probabilities with a factor each, so that a head that is right
    for equal factors alone is found out: by the hidden states, and by rows of the weight where the head
    is trained (`weights` false: by the states alone). They are relative to their largest, or to the
    head's largest weight (the states' largest number): they are differences of its rows, so where the
    model is sure of every token what is left of them is the rounding of those.

    What they are compared with is summed in float64: over the 262,144 tokens of Gemma 3 the naive sum in
    float32 is itself off by 1e-5 to 2e-4 on a CPU (2026-11-28), and this head by 1e-6.
    """
    hidden_KH, target_K, full_K = said(model, path)
    head, shape = model.get_output_embeddings(), shape_of(model.config)
    factor_K = factors(len(target_K), target_K.device)
    # As the head is in the run, trained or not, which is not computed in the same way.
    bias_V = getattr(head, "bias", None)
    given = (way, hidden_KH, head.weight, target_K)
    logp_K = logps_by(*given, bias_V=bias_V, shape=shape, chunk=16)
    leaves = [hidden_KH, *([head.weight] if weights and head.weight.requires_grad else [])]
    mine = torch.autograd.grad((logp_K * factor_K).sum(), leaves)
    pulled_KV, theirs_KH = _exactly(model, hidden_KH, target_K, factor_K)
    gap = _of_their_size(mine[0], theirs_KH, model)
    if len(leaves) > 1:
        gap = max(gap, _rows_apart(mine[1], pulled_KV, hidden_KH, target_K, shape.scale))
    return (logp_K - full_K).abs().max().item(), gap


def head_rounding(model: Any, path: TokenPath) -> float:
    """How far the gradients of full logits move, as `head_difference` has it, where positions are taken
    one at a time: a product with one row sums over the vocabulary in another order."""
    hidden_KH, target_K, _ = said(model, path)
    factor_K = factors(len(target_K), target_K.device)
    together = _by_states(model, _pulled(model, hidden_KH, target_K, factor_K))
    apart = []
    for k in range(len(target_K)):
        one = slice(k, k + 1)
        apart.append(
            _by_states(model, _pulled(model, hidden_KH[one], target_K[one], factor_K[one]))
        )
    return _of_their_size(torch.cat(apart), together, model)


def factors(size: int, device: torch.device) -> Tensor:
    """By what log-probabilities (K) are multiplied, as a loss might: of either sign, none near 0."""
    generator = torch.Generator().manual_seed(0)
    factor_K = torch.rand(size, generator=generator) + 0.5
    factor_K *= torch.randint(2, (size,), generator=generator) * 2.0 - 1
    return factor_K.to(device)


def said(model: Any, path: TokenPath) -> tuple[Tensor, Tensor, Tensor]:
    """Of a path's scored tokens: the states they are predicted from (K, H; a leaf that takes gradients),
    their ids, and their log-probabilities by the model's own logits."""
    at = np.concatenate([np.arange(start, end) for start, end in path.spans])
    at_K = torch.from_numpy(at).to(model.device)
    ids = torch.from_numpy(path.ids.astype(np.int64)).to(model.device)
    target_K = ids[at_K]
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state
        full = model(input_ids=ids[None], use_cache=False).logits[0, at_K - 1].float()
        full_K = full.gather(1, target_K[:, None])[:, 0] - torch.logsumexp(full, -1)
    return hidden[0, at_K - 1].detach().requires_grad_(), target_K, full_K


def _pulled(model: Any, hidden_KH: Tensor, target_K: Tensor, factor_K: Tensor) -> Tensor:
    """Gradient (K, V) of the weighted sum by the head's product, from full logits in float32."""
    head = model.get_output_embeddings()
    weight_VH, bias_V = head.weight.detach().float(), getattr(head, "bias", None)
    bias_V = None if bias_V is None else bias_V.detach().float()
    product_KV = torch.nn.functional.linear(hidden_KH.detach().float(), weight_VH, bias_V)
    return _pulled_by(product_KV, target_K, factor_K, shape_of(model.config))


def _pulled_by(product_KV: Tensor, target_K: Tensor, factor_K: Tensor, shape: Shape) -> Tensor:
    """Gradient (K, V) of the weighted sum by a product, in its precision."""
    logits = shaped(product_KV.requires_grad_(), shape)
    naive_K = torch.log_softmax(logits, -1).gather(1, target_K[:, None])[:, 0]
    pulled: Tensor = torch.autograd.grad((naive_K * factor_K).sum(), product_KV)[0]
    return pulled


def _exactly(
    model: Any, hidden_KH: Tensor, target_K: Tensor, factor_K: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_pulled` (K, V, kept in float32) and `_by_states` (K, H), with sums in float64."""
    head, shape = model.get_output_embeddings(), shape_of(model.config)
    rows, bias_V = head.weight.detach().split(ROWS), getattr(head, "bias", None)
    exact = wide(hidden_KH.device)
    pulled, by_states = [], []
    parts = (one.split(POSITIONS) for one in (hidden_KH.detach(), target_K, factor_K))
    for states_kH, target_k, factor_k in zip(*parts, strict=True):
        product_kV = torch.cat([states_kH.to(exact) @ row.to(exact).t() for row in rows], 1)
        if bias_V is not None:
            product_kV += bias_V.detach().to(exact)
        pulled_kV = _pulled_by(product_kV, target_k, factor_k, shape)
        by_row = zip(pulled_kV.split(ROWS, 1), rows, strict=True)
        by_states.append(torch.stack([pull @ row.to(exact) for pull, row in by_row]).sum(0))
        pulled.append(pulled_kV.float())
    return torch.cat(pulled), torch.cat(by_states)


def _by_states(model: Any, pulled_KV: Tensor) -> Tensor:
    return pulled_KV @ model.get_output_embeddings().weight.detach().float()


def _rows_apart(
    mine_VH: Tensor, pulled_KV: Tensor, hidden_KH: Tensor, target_K: Tensor, scale: float
) -> float:
    """How far the head's gradient is from the naive one, of its size, in the rows of the targets and
    some more: all of it would be another weight in float32."""
    few = torch.linspace(0, len(mine_VH) - 1, SOME, device=target_K.device).long()
    row_R = torch.unique(torch.cat([target_K, few]))
    states = hidden_KH.detach().float()
    theirs = pulled_KV[:, row_R].t() @ states
    size = torch.maximum(theirs.abs().max(), states.abs().max() * scale)
    return ((mine_VH[row_R] - theirs).abs().max() / size).item()


def _of_their_size(mine: Tensor, theirs: Tensor, model: Any) -> float:
    weight, shape = model.get_output_embeddings().weight, shape_of(model.config)
    scale = torch.maximum(theirs.abs().max(), weight.detach().abs().max() * shape.scale)
    return ((mine - theirs).abs().max() / scale).item()
