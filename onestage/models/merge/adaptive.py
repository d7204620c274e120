"""Adaptive model averaging: how much of the pre-trained model each block of layers gets back.

Lin et al. 2024, "Mitigating the Alignment Tax of RLHF" (arXiv 2309.06256; AMA in the first versions,
HMA in the last):

    theta_k = a_k theta_pre + (1 - a_k) theta_rlhf            for each block k of K
    a_k = mean K (sigmoid(v_k) + eps) / sum_j (sigmoid(v_j) + eps)

so the a_k always have the same mean. Only the K numbers v are trained, by the likelihood of responses
that the aligned model gives and that are rewarded highly, plus 1e-4 sum_l w_l |a_k(l) - mean|. The
authors' code has w_l = 25 / (|l - 13| + 1) for a model of 26 layers; w_l = (n - 1) / (|l - n/2| + 1)
for n layers is that, written for any n.

Where ours differs from the authors' code: embeddings, norms and the head are averaged with their block
(there embeddings and norms stay as in the pre-trained model, and the head gets the mean); the penalty
counts a layer once (there each linear map of it); blocks are of equal depth (there cut at layers 11
and 21, or 8 and 16); and `learning_rate` is not 2e-5, because Adam moves v by about that much a step
at most, so that K numbers would hardly move within an epoch.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from onestage.data.packing import Row, pack
from onestage.data.trees import TokenPath
from onestage.models.merge import Adaptive
from onestage.models.merge.examples import Example
from onestage.models.policy import Policy


@dataclass(frozen=True)
class Found:
    """The a_k, the blocks' layers [first, end), and the loss (nats a token) before and after."""

    shares: tuple[float, ...]
    layers: tuple[tuple[int, int], ...]
    before: float
    after: float


def shares_of(v_K: Tensor, mean: float, epsilon: float) -> Tensor:
    """a_k (K), whose mean is `mean` for any v."""
    raised_K = torch.sigmoid(v_K) + epsilon
    return mean * raised_K / raised_K.mean()


def bounds_of(layers: int, blocks: int) -> tuple[tuple[int, int], ...]:
    """Layers [first, end) of each block, as equal as they can be."""
    if blocks > layers:
        raise ValueError(
            f"--blocks {blocks}, but the model has {layers} layers: give at most as many"
        )
    cuts = [round(layers * k / blocks) for k in range(blocks + 1)]
    return tuple(itertools.pairwise(cuts))


def block_of(model: Any, tensors: Sequence[str], blocks: int) -> dict[str, int]:
    """The block of each tensor: its layer's; the embedding goes with the first block, and the final
    norm and the head with the last. A head that is tied to the embedding is the embedding."""
    bounds = bounds_of(model.config.num_hidden_layers, blocks)
    parts = [
        {id(p) for p in part.parameters()} if part is not None else set()
        for part in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for name in tensors:
        own = id(parameters.get(name))
        number = re.search(r"\.(\d+)\.", name)
        if own in parts[0] or (own not in parts[1] and number is None and _is_embedding(name)):
            found[name] = 0
        elif own in parts[1] or number is None:
            found[name] = blocks - 1
        else:
            layer = int(number[1])
            found[name] = next(k for k, (first, end) in enumerate(bounds) if first <= layer < end)
    return found


def _is_embedding(name: str) -> bool:
    """Positions and norms of embeddings, which are not the input embedding itself."""
    return "emb" in name or "wpe" in name


def averaged(
    shares_K: Tensor,
    pre: Mapping[str, Tensor],
    delta: Mapping[str, Tensor],
    block: Mapping[str, int],
) -> dict[str, Tensor]:
    """theta_pre + (1 - a_k) delta for the tensors that have a delta, in the model's precision."""
    return {
        name: pre[name] + (1 - shares_K[block[name]]).to(difference.dtype) * difference
        for name, difference in delta.items()
    }


def find_shares(
    model: Any,
    delta: Mapping[str, Tensor],
    examples: Sequence[Example],
    how: Adaptive,
    seed: int = 0,
) -> tuple[Found, dict[str, int]]:
    """Train v on some good responses. `model` is the pre-trained one, `delta` = rlhf - pre by name.

    Also returns the block of each tensor. While it works, memory holds both models, their average and
    its gradients. v is trained on averages in the model's own precision.
    """
    tensors = model.state_dict()
    block = block_of(model, list(tensors), how.blocks)
    bounds = bounds_of(model.config.num_hidden_layers, how.blocks)
    policy = Policy(model.eval())
    v_K = torch.full((how.blocks,), math.log(how.mean / (1 - how.mean)), device=policy.device)
    fit = _Fit(policy, tensors, delta, block, how, v_K.requires_grad_())
    optimiser = torch.optim.Adam([v_K], lr=how.learning_rate)
    pull_K = pulls(bounds, model.config.num_hidden_layers).to(policy.device)
    order = np.random.default_rng(seed)
    before = fit.loss(examples, train=False)
    for _ in range(how.epochs):
        shuffled = [examples[i] for i in order.permutation(len(examples))]
        for start in range(0, len(shuffled), how.batch_size):
            optimiser.zero_grad()
            fit.loss(shuffled[start : start + how.batch_size], train=True)
            # Once a step: it is about the a_k, however many responses the step has.
            away = how.penalty * (pull_K * (fit.shares() - how.mean).abs()).sum()
            away.backward()
            optimiser.step()
    after = fit.loss(examples, train=False)
    shares = tuple(fit.shares().detach().tolist())
    return Found(shares, bounds, before, after), block


@dataclass
class _Fit:
    """The numbers v (K) that are trained, and what their likelihood is made of."""

    policy: Policy
    pre: Mapping[str, Tensor]
    delta: Mapping[str, Tensor]
    block: Mapping[str, int]
    how: Adaptive
    v_K: Tensor

    def shares(self) -> Tensor:
        return shares_of(self.v_K, self.how.mean, self.how.epsilon)

    def loss(self, chosen: Sequence[Example], *, train: bool) -> float:
        """Mean over the chosen responses' tokens; a row's gradient is added before the next row."""
        total = sum(example.weight * example.path.scored for example in chosen)
        value, device = 0.0, self.policy.device
        for row, weight_N in _rows(chosen, self.how.tokens_per_row, device):
            with torch.set_grad_enabled(train):
                weights = averaged(self.shares(), self.pre, self.delta, self.block)
                inside = {f"model.{name}": tensor for name, tensor in weights.items()}
                logp_K: Tensor = functional_call(self.policy, inside, (row,))
                response_K = torch.from_numpy(row.tree.response_K).to(device)
                nll = -(weight_N[response_K] * logp_K).sum() / total
            if train:
                nll.backward()
            value += nll.item()
        return value


def pulls(bounds: Sequence[tuple[int, int]], layers: int) -> Tensor:
    """Weight of each block in the penalty (K): w_l summed over its layers."""
    pull_L = [(layers - 1) / (abs(layer - layers / 2) + 1) for layer in range(layers)]
    return torch.tensor([sum(pull_L[first:end]) for first, end in bounds])


def _rows(
    chosen: Sequence[Example], tokens_per_row: int, device: torch.device
) -> list[tuple[Row, Tensor]]:
    """Forest rows of the chosen responses, with the weight of each response of the batch (N)."""
    groups = [
        [TokenPath(e.path.ids, e.path.spans, (number,) * len(e.path.spans))]
        for number, e in enumerate(chosen)
    ]
    weight_N = torch.tensor([e.weight for e in chosen], dtype=torch.float32, device=device)
    return [(row, weight_N) for row in pack(groups, tokens_per_row)]
