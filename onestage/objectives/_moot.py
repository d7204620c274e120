"""Options of an objective that act on records of other kinds than those it is given.

An option that is read may still change nothing: the least score of imitated answers, where all are
demonstrations. Known by trying: with it and without it, on small batches of each kind, also of a policy
that is far from its reference, so that caps and clips are met. What acts on no kind of these batches is
not told of; it may act where they do not reach.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

import torch

from onestage.data.kinds import FEEDBACK, Kind
from onestage.objectives import Objective, Stateful
from onestage.objectives._trial import before_update, trained

FAR = (1.0, 30.0, -30.0)
"""How far the policy is from where it started, and which way, in units of a usual batch."""
FILLED = frozenset({"max_completion_length"})
"""What a run fills in."""


def moot(objective: Objective, kinds: Collection[Kind], unscored: Collection[Kind]) -> list[str]:
    """Options that are given and change nothing for records of these kinds, though for others.

    unscored: kinds that may have scores, and of which no record here has one.
    """
    others = objective.kinds - set(kinds)
    found = []
    for option, plain in _without(objective):
        here = any(_acts(objective, plain, kind, kind in unscored) for kind in sorted(kinds))
        elsewhere = (_acts(objective, plain, kind, False) for kind in sorted(others))
        scored = (_acts(objective, plain, kind, False) for kind in sorted(unscored))
        if not here and (any(elsewhere) or any(scored)):
            found.append(option)
    return found


def _without(objective: Objective) -> Iterator[tuple[str, Objective]]:
    """Each option that is not as it is by default, and the objective with it as it is."""
    one: Any = objective
    for option in fields(one):
        made: Any = option.default_factory
        default = option.default if made is MISSING else made()
        if option.name in FILLED or default is MISSING or not option.init:
            continue
        if getattr(objective, option.name) != default:
            try:
                yield option.name, replace(one, **{option.name: default})
            except (ValueError, TypeError):  # options that go together
                continue


def _acts(one: Objective, other: Objective, kind: Kind, unscored: bool) -> bool:
    """Whether two objectives make anything else of records of a kind."""
    if kind not in one.kinds & other.kinds:
        return kind in one.kinds ^ other.kinds
    return any(_seen(one, kind, unscored, far) != _seen(other, kind, unscored, far) for far in FAR)


def _seen(objective: Objective, kind: Kind, unscored: bool, far: float) -> tuple[Any, ...]:
    """All that is made of two records."""
    batch = trained(objective, [kind])
    feedback = batch.feedback
    if unscored and FEEDBACK[kind].paired:
        score_N = torch.full_like(feedback.score_N, float("nan"))
        feedback = replace(feedback, score_N=score_N)
    moved_K = (batch.ref_logp_K + far * (batch.logp_K - batch.ref_logp_K)).clamp(max=-0.01)
    loss = objective(replace(batch, logp_K=moved_K, feedback=feedback))
    state: Any = {}
    if isinstance(objective, Stateful):
        means = {name: float(total / n) for name, (total, n) in loss.observed.items() if n}
        state = objective.advance(objective.start(), means)
    kept = objective.remember(before_update(objective, [kind]), True)
    told = {name: str(value) for name, value in loss.metrics.items()}
    numbers = (objective.unit, objective.needs, objective.numbers)
    return str(loss.loss_U), str(loss.weight_U), told, str(state), str(kept), numbers
