"""Small batches of random numbers, as an objective meets them in training: what laws are tried on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from onestage.data.kinds import FEEDBACK, Kind
from onestage.objectives import CODE, ROLE, Feedback, Objective, Scored, Stateful

NAN = float("nan")

SUREST = -0.01
"""The highest log-probability of a token."""

DRIFT = 0.2
"""How far a token's numbers move between the first and the second use of a sampled answer."""


def trained(objective: Objective, kinds: Sequence[Kind] = ()) -> Scored:
    """Records of some of its kinds (default: all), with what it needs, as they are trained on again
    after an update."""
    draw = torch.Generator().manual_seed(1)
    kinds = kinds or sorted(objective.kinds)
    first = before_update(objective, kinds)
    # As in training: what is kept of answers is of the policy before the update that moves it.
    first = replace(first, remembered=objective.remember(first, again=True))

    def moved(value_K: Tensor) -> Tensor:
        return value_K + DRIFT * torch.randn(len(value_K), generator=draw)

    extra = {name: moved(value_K) for name, value_K in first.extra.items()}
    return only(
        replace(first, logp_K=moved(first.logp_K).clamp(max=SUREST), extra=extra), objective.needs
    )


def before_update(objective: Objective, kinds: Sequence[Kind]) -> Scored:
    """Records of some kinds before the first update on them, with all that could be known."""
    draw = torch.Generator().manual_seed(0)
    feedback = _feedback(kinds, "worked" in objective.needs, draw)
    size = int(feedback.tokens_N.sum())
    reference_K = -3 * torch.rand(size, generator=draw)
    return Scored(
        feedback,
        (reference_K + torch.randn(size, generator=draw)).clamp(max=SUREST),
        reference_K,
        feedback.response_K,
        objective.start() if isinstance(objective, Stateful) else {},
        {
            "entropy": 3 * torch.rand(size, generator=draw),
            "value": torch.randn(size, generator=draw),
            **{
                name: 3 * torch.rand(size, generator=draw)
                for name in ("top_entropy", "forward_kl", "reverse_kl", "js", "rivals")
            },
            "mixed_logp": -3 * torch.rand(size, generator=draw) + SUREST,
        },
    )


def only(batch: Scored, known: Collection[str]) -> Scored:
    """The batch with what is known; the rest is 0 (log-probabilities) or not there, as in training."""
    zeros_K = torch.zeros_like(batch.logp_K)
    return replace(
        batch,
        logp_K=batch.logp_K if {"logp", "reward"} & set(known) else zeros_K,
        ref_logp_K=batch.ref_logp_K if "reference" in known else zeros_K,
        extra={name: value_K for name, value_K in batch.extra.items() if name in known},
    )


def _feedback(kinds: Sequence[Kind], worked: bool, draw: torch.Generator) -> Feedback:
    responses: list[tuple[int, float, int, int]] = []
    pairs: list[tuple[int, int]] = []
    record = 0
    for kind in kinds:
        for scores in _scores(kind):
            roles = [ROLE["response"]] * len(scores)
            if FEEDBACK[kind].asked:
                # A hint has no score, which is NaN; NaN is not itself.
                roles = [ROLE["hint"] if score != score else ROLE["response"] for score in scores]
                roles[-1] = ROLE["worked"]
            if FEEDBACK[kind].paired:
                pairs.append((len(responses), len(responses) + 1))
            responses += [
                (CODE[kind], score, record, role)
                for score, role in zip(scores, roles, strict=True)
                if worked or role != ROLE["worked"]
            ]
            record += 1
    kind_N, score_N, record_N, role_N = zip(*responses, strict=True)
    return Feedback(
        torch.tensor(kind_N),
        torch.tensor(score_N),
        torch.ones(len(responses)),
        torch.randint(2, 5, (len(responses),), generator=draw),
        torch.tensor(record_N),
        torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        torch.tensor(role_N),
    )


def _scores(kind: Kind) -> Sequence[Sequence[float]]:
    """Two records of a kind. Of problems, a hint leads the first and a worked answer ends both."""
    form = FEEDBACK[kind]
    if form.asked:
        return [NAN, 1.0, 0.1, 0.1, 0.0, 1.0], [0.0, 1.0, 0.3, 1.0]
    if form.paired:
        return [NAN, NAN], [0.8, 0.3]
    if form.scale == "graded":
        several = [1.0, 0.6, 0.1], [0.4, 0.7]
        return ([0.9], [0.2]) if "completion" in form.needs else several
    return ([1.0], [0.0]) if form.scale == "thumb" else ([NAN], [NAN])


def arranged(batch: Scored, order_M: Tensor) -> Scored:
    """The batch with some of its responses (whole records), in the given order."""
    old, new_of_N = batch.feedback, torch.full_like(batch.feedback.record_N, -1)
    new_of_N[order_M] = torch.arange(len(order_M))
    there_K = (new_of_N[batch.response_K] >= 0).nonzero()[:, 0]
    order_K = there_K[torch.argsort(new_of_N[batch.response_K[there_K]], stable=True)]
    pair_P2 = new_of_N[old.pair_P2]
    pair_P2 = pair_P2[torch.argsort(pair_P2[:, 0])]
    picked = {
        field.name: getattr(old, field.name)[order_M]
        for field in fields(old)
        if field.name not in ("pair_P2", "scored", "host")
    }

    def numbers(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value_K[order_K] for name, value_K in values.items()}

    return replace(
        batch,
        feedback=Feedback(pair_P2=pair_P2[pair_P2[:, 0] >= 0], **picked),
        logp_K=batch.logp_K[order_K],
        ref_logp_K=batch.ref_logp_K[order_K],
        response_K=new_of_N[batch.response_K[order_K]],
        extra=numbers(batch.extra),
        remembered=numbers(batch.remembered),
    )


def slope_K(objective: Objective, batch: Scored) -> Tensor:
    """The gradient of the sum of its losses by logp_K; zeros where none reaches it."""
    logp_K = batch.logp_K.detach().clone().requires_grad_()
    total = objective(replace(batch, logp_K=logp_K)).loss_U.sum()
    if not total.requires_grad:
        return torch.zeros_like(logp_K)
    (found,) = torch.autograd.grad(total, logp_K, allow_unused=True)
    return torch.zeros_like(logp_K) if found is None else found


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a batch, however deep."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [one for item in value.values() for one in tensors(item)]
    if isinstance(value, Scored | Feedback):
        return [one for field in fields(value) for one in tensors(getattr(value, field.name))]
    return []
