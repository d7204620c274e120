"""Groups of sampled responses with chosen numbers, as objectives see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from onestage.objectives import Loss, Objective, Scored
from support.objective_batches import scored, start

Number = float | Sequence[float]


def group(
    *scores: Sequence[float],
    lengths: Sequence[int] | None = None,
    roles: Sequence[int] | None = None,
    logp: Number = -1.0,
    ref: Number = -1.0,
    **extra: Number,
) -> Scored:
    """One problem for each list of scores; numbers are given for all tokens at once or one by one."""
    records = [("check", list(one)) for one in scores]
    size = sum(len(one) for one in scores)
    lengths = lengths or [1] * size
    batch = scored(records, lengths=lengths, roles=roles, dtype=torch.float64)
    tokens = sum(lengths)

    def numbers(value: Number) -> Tensor:
        given = [value] * tokens if isinstance(value, int | float) else list(value)
        assert len(given) == tokens, f"{tokens} tokens"
        return torch.tensor(given, dtype=torch.float64)

    return replace(
        batch,
        logp_K=numbers(logp),
        ref_logp_K=numbers(ref),
        extra={name: numbers(value) for name, value in extra.items()},
    )


def kept(objective: Objective, batch: Scored, *, again: bool = False) -> Scored:
    """The batch with what the objective keeps of it."""
    batch = replace(batch, state=start(objective))
    return replace(batch, remembered=objective.remember(batch, again))


def later(batch: Scored, ratios: Sequence[float]) -> Scored:
    """The same responses after an update that made each token so many times as likely."""
    return replace(batch, logp_K=batch.logp_K + torch.tensor(ratios, dtype=torch.float64).log())


def mean(objective: Objective, batch: Scored) -> float:
    """The loss as the loop forms it."""
    count = objective.units(batch.feedback).count
    return (objective(batch).loss_U.double().sum() / count).item()


def gradient(objective: Objective, batch: Scored) -> list[float]:
    """Of that mean, by the log-probabilities of all tokens."""
    logp_K = batch.logp_K.clone().requires_grad_()
    loss: Loss = objective(replace(batch, logp_K=logp_K))
    (loss.loss_U.double().sum() / objective.units(batch.feedback).count).backward()
    assert logp_K.grad is not None
    return logp_K.grad.tolist()
