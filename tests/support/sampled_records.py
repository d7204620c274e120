"""Hand-made groups of sampled responses, and what a step on them computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from onestage.data.encoded import Encoded, Sampled
from onestage.data.packing import pack_records
from onestage.data.record import ROLES
from onestage.data.trees import TokenPath
from onestage.models.policy import Policy
from onestage.objectives import Objective
from onestage.training.sampled import Remembering
from onestage.training.terms import Terms


def group(
    prompt: Sequence[int],
    answers: Sequence[Sequence[int]],
    rewards: Sequence[float],
    hint: Sequence[int] = (),
    number: int = 0,
) -> Encoded:
    """A problem with its completions, behind the hint where there is one (a response of its own)."""
    paths, roles, scores = [], [], []
    start, stop = len(prompt), len(prompt) + len(hint)
    for place, (answer, reward) in enumerate(zip(answers, rewards, strict=True)):
        spans, numbers = [(stop, stop + len(answer))], []
        if hint and not place:
            spans.insert(0, (start, stop))
            numbers.append(len(roles))
            roles.append(ROLES.index("hint"))
            scores.append(math.nan)
        numbers.append(len(roles))
        roles.append(ROLES.index("response"))
        scores.append(reward)
        ids = np.asarray([*prompt, *hint, *answer], np.int32)
        paths.append(TokenPath(ids, tuple(spans), tuple(numbers)))
    sampled = Sampled(tuple(roles))
    return Encoded("check", tuple(paths), tuple(scores), 1.0, "s", str(number), sampled=sampled)


def terms_of(objective: Objective) -> Terms:
    return Terms({"it": objective}, {("s", "check"): "it"})


def kept(
    records: Sequence[Encoded],
    terms: Terms,
    old: Policy,
    reference: Policy | None = None,
    *,
    again: bool = True,
) -> list[Encoded]:
    """The records with advantages, and log-probabilities of the policies that sampled and compare."""

    @contextmanager
    def compared() -> Any:
        yield reference

    remember = Remembering(old, terms, compared if reference else None, Accelerator(cpu=True), 4096)
    return remember(records, again=again)


def loss_and_gradient(
    policy: Policy, terms: Terms, records: Sequence[Encoded], *, share: bool = True
) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean of the units' losses of a step, and its gradient by parameter."""
    batch = pack_records(records, 4096, share=share)
    (count,) = terms.count(records).values()
    policy.zero_grad(set_to_none=True)
    total = 0.0
    for row in batch.rows:
        own = [batch.records[number] for number in row.records]
        reference = [
            torch.from_numpy(part) for r in own for part in r.sampled.kept.get("reference", ())
        ]
        known = policy.look(row, terms.needs_of(*own))
        logp_K = known["logp"]
        known["reference"] = torch.cat(reference) if reference else torch.zeros_like(logp_K)
        loss = terms.losses(row, batch, known)["it"].loss_U.sum() / count
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in policy.model.named_parameters()}


def largest_difference(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]
) -> tuple[float, float]:
    """Largest difference of two gradients, relative to the second's largest entry; and that entry."""
    scale = max(g.abs().max().item() for g in other.values())
    return max((one[name] - other[name]).abs().max().item() for name in other) / scale, scale
