"""Hand-made batches of log-probabilities and feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from onestage.data.kinds import Kind
from onestage.objectives import CODE, Feedback, Objective, Scored, Stateful

EVERY_KIND: tuple[Kind, ...] = (
    *("demonstration", "score", "label", "pair", "group", "text"),
    "check",
)
NAN = float("nan")
SCORES: dict[Kind, list[list[float]]] = {
    "demonstration": [[NAN], [NAN]],
    "score": [[0.9], [0.2]],
    "label": [[1.0], [0.0]],
    "pair": [[NAN, NAN], [0.8, 0.3]],
    "group": [[1.0, 0.6, 0.1], [0.4, 0.7]],
    "text": [[NAN]],
    "check": [
        [NAN, 1.0, 0.1, 0.1, 0.0],
        [0.0, 1.0, 0.3, 1.0],
        [0.1, 0.0, NAN, 1.0, 0.9],
        [0.1, 0.0, 1.0],
    ],
}
ROLES = {"check": [[1, 0, 0, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0, 2], [0, 0, 2]]}
"""Of the responses in `SCORES`: a hint in front of its group or of one hinted completion, a worked
answer behind its group."""


def batch_of(kinds: Sequence[Kind], seed: int = 0, spread: float = 1.0) -> Scored:
    """Records of some kinds with random log-probabilities; log-ratios of about `spread` a token."""
    records = [(kind, scores) for kind in kinds for scores in SCORES[kind]]
    roles = [
        role
        for kind in kinds
        for n, scores in enumerate(SCORES[kind])
        for role in (ROLES[kind][n] if kind in ROLES else [0] * len(scores))
    ]
    return scored(records, seed=seed, spread=spread, roles=roles)


def start(objective: Objective) -> dict[str, float]:
    """What it carries from step to step, before the first."""
    return objective.start() if isinstance(objective, Stateful) else {}


def weighed(objective: Objective, batch: Scored, drift: float = 0.2) -> Scored:
    """The batch as it is trained on again after some updates, with what the objective has kept."""
    batch = replace(batch, state=start(objective))
    noise = torch.Generator().manual_seed(9)
    moved_K = batch.logp_K + drift * torch.randn(len(batch.logp_K), generator=noise)
    extra = {
        name: value_K + drift * torch.randn(len(value_K), generator=noise)
        for name, value_K in batch.extra.items()
    }
    return replace(batch, remembered=objective.remember(batch, True), logp_K=moved_K, extra=extra)


def scored(
    records: Sequence[tuple[Kind, Sequence[float]]],
    *,
    log_ratios: Sequence[float] | None = None,
    lengths: Sequence[int] | None = None,
    roles: Sequence[int] | None = None,
    seed: int = 0,
    spread: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Scored:
    """A batch of (kind, scores) records; with `log_ratios` given, responses have exactly those."""
    draw = torch.Generator().manual_seed(seed)
    kind_N = [CODE[kind] for kind, scores in records for _ in scores]
    score_N = [score for _, scores in records for score in scores]
    record_N = [number for number, (_, scores) in enumerate(records) for _ in scores]
    size = len(kind_N)
    tokens_N = torch.tensor(lengths) if lengths else torch.randint(1, 5, (size,), generator=draw)
    first = [record_N.index(r) for r, (kind, _) in enumerate(records) if kind == "pair"]
    response_K = torch.repeat_interleave(torch.arange(size), tokens_N)
    ref_logp_K = -torch.rand(len(response_K), generator=draw, dtype=dtype) * 3
    ratio_K = torch.randn(len(response_K), generator=draw, dtype=dtype) * spread
    extra = {
        "entropy": torch.rand(len(response_K), generator=draw, dtype=dtype) * 3,
        "value": torch.randn(len(response_K), generator=draw, dtype=dtype),
    }
    for name in ("top_entropy", "forward_kl", "reverse_kl", "js", "rivals"):
        extra[name] = torch.rand(len(response_K), generator=draw, dtype=dtype) * 3
    extra["mixed_logp"] = -3 * torch.rand(len(response_K), generator=draw, dtype=dtype)
    if log_ratios is not None:
        ratio_K = (torch.tensor(log_ratios, dtype=dtype) / tokens_N)[response_K]
    return Scored(
        Feedback(
            torch.tensor(kind_N),
            torch.tensor(score_N, dtype=torch.float32),
            torch.ones(size),
            tokens_N,
            torch.tensor(record_N),
            torch.tensor([(n, n + 1) for n in first], dtype=torch.int64).reshape(-1, 2),
            torch.tensor(roles if roles is not None else [0] * size),
        ),
        ref_logp_K + ratio_K,
        ref_logp_K,
        response_K,
        extra=extra,
    )


def subset(batch: Scored, records: Sequence[int]) -> Scored:
    """The batch with some of its records only, in the given order."""
    old = batch.feedback
    responses = [n for r in records for n in (old.record_N == r).nonzero()[:, 0].tolist()]
    new_of = {n: i for i, n in enumerate(responses)}
    entries = torch.cat([(batch.response_K == n).nonzero()[:, 0] for n in responses])
    pairs = [[new_of[int(n)] for n in pair] for pair in old.pair_P2 if int(pair[0]) in new_of]
    owner = {r: i for i, r in enumerate(records)}

    def picked(values: Tensor) -> Tensor:
        return values[torch.tensor(responses)]

    return Scored(
        Feedback(
            picked(old.kind_N),
            picked(old.score_N),
            picked(old.weight_N),
            picked(old.tokens_N),
            torch.tensor([owner[int(r)] for r in picked(old.record_N)]),
            torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
            picked(old.role_N),
        ),
        batch.logp_K[entries],
        batch.ref_logp_K[entries],
        torch.tensor([new_of[int(n)] for n in batch.response_K[entries]]),
        batch.state,
        {name: value_K[entries] for name, value_K in batch.extra.items()},
        {name: value_K[entries] for name, value_K in batch.remembered.items()},
    )
