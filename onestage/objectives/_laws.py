"""What every objective obeys, whatever it is: tried on small batches of random numbers.

A law is a generator of complaints. `onestage.testing.check_objective` is the door for other people's
objectives; our own are held to the same laws. What a loss should be, only its own test can say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from onestage import config
from onestage.data.kinds import KINDS
from onestage.objectives import BESIDE_LOGP, Need, Objective, Scored, Stateful, Unit
from onestage.objectives._trial import arranged, before_update, only, slope_K, tensors, trained

Law = Callable[[Objective], Iterator[str]]

EXTREME = 300.0
"""A log-ratio of a token that no loss may fall over."""


def laws(objective: Objective, skip: Collection[str] = ()) -> list[str]:
    """The laws that an objective breaks, by name and in words; none where it obeys them all."""
    broken: dict[str, str] = {}
    for name, law in LAWS.items():
        try:
            found = list(law(objective)) if name not in skip else []
        except Exception as error:  # whatever a stranger's code raises is what is told, once
            found = [f"raised {config.fault(error)}"]
        for complaint in found:
            broken.setdefault(complaint, f"{name}: {complaint}")
    return list(broken.values())


def require_read(objective: Objective, name: str) -> None:
    """Raise `ValueError` for an option that is given and that nothing of the objective reads."""
    config.require_read(f"objective {name}", objective, _use)


def _use(objective: Objective) -> None:
    """All that training asks of it."""
    before = before_update(objective, sorted(objective.kinds))
    for again in (False, True):
        objective.asks(again)
        objective.remember(before, again)
    observed = objective(trained(objective)).observed
    _ = objective.unit, objective.lowest, objective.relative, objective.beta, objective.numbers
    if isinstance(objective, Stateful):
        means = {name: float(total / n) for name, (total, n) in observed.items() if n}
        objective.advance(objective.start(), means)


def _options(objective: Objective) -> Iterator[str]:
    if not is_dataclass(objective) or not type(objective).__dataclass_params__.frozen:
        yield "it must be a frozen dataclass: equal options are the same objective"
        return
    if objective != replace(objective):
        yield "two with the same options must be equal"
    own = {field.name for field in fields(objective)} & {
        "unit",
        "kinds",
        "needs",
        "lowest",
        "paper",
    }
    for name in sorted(own):
        yield f"{name} must be a property, or a class attribute without annotation: it is no option"


def _declares(objective: Objective) -> Iterator[str]:
    if objective.unit not in get_args(Unit):
        yield f"unit is {objective.unit!r}, not one of {get_args(Unit)}"
    for what, given, known in (
        ("kinds", objective.kinds, KINDS),
        ("needs", objective.needs, get_args(Need)),
    ):
        if not given or not set(given) <= set(known):
            yield f"{what} are {sorted(given)}, not some of {known}"
    if not set(objective.numbers) <= objective.needs:
        yield f"numbers {dict(objective.numbers)} go with what it does not need"
    if not objective.needs & {"logp", "reward"}:
        yield "it needs neither logp nor reward, so nothing could be trained"


def _kinds(objective: Objective) -> Iterator[str]:
    for kind in sorted(objective.kinds):
        loss = objective(trained(objective, [kind]))
        if not float(loss.weight_U.sum()) > 0:
            yield f"it says that it takes {kind} records, but two of them have no unit"
        elif not bool(loss.loss_U.isfinite().all()):
            yield f"the loss of {kind} records is {loss.loss_U.tolist()}"


def _units(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    units, loss_U = objective.units(batch.feedback), objective.losses(batch)
    sizes = [tuple(one.shape) for one in (units.weight_U, units.record_U, loss_U)]
    if len(set(sizes)) > 1 or loss_U.dim() != 1:
        yield f"weights, records and losses of units have the shapes {sizes}"
    if bool((units.weight_U < 0).any()):
        yield "a unit has a negative weight"
    if not set(units.record_U.tolist()) <= set(batch.feedback.record_N.tolist()):
        yield "a unit belongs to a record that is not in the batch"


def _weights(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    feedback = replace(batch.feedback, weight_N=batch.feedback.weight_N * 3)
    once, thrice = objective(batch), objective(replace(batch, feedback=feedback))
    for what, left, right in (
        ("losses", once.loss_U, thrice.loss_U),
        ("units", once.weight_U, thrice.weight_U),
    ):
        if not _near(3 * left.sum(), right.sum(), 3 * left):
            yield f"records three times as heavy have {what} of {right.sum():g}, not {3 * left.sum():g}"


def _cut(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    whole, record_N = objective(batch), batch.feedback.record_N
    for at in range(1, int(record_N.max()) + 1):
        halves = (record_N < at, record_N >= at)
        parts = [objective(arranged(batch, half_N.nonzero()[:, 0])) for half_N in halves]
        for what in ("loss_U", "weight_U"):
            left = getattr(whole, what).sum()
            right = torch.stack([getattr(part, what).sum() for part in parts]).sum()
            if not _near(left, right, getattr(whole, what)):
                yield (
                    f"the {what} of a batch add up to {left:g}, but to {right:g} where it is cut before "
                    f"record {at}: a loss may look at its own record only (`remember` sees everything)"
                )
                return


def _order(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    whole = objective(batch).loss_U
    turned = objective(arranged(batch, torch.argsort(-batch.feedback.record_N, stable=True))).loss_U
    if not _near(whole.sum(), turned.sum(), whole):
        yield f"losses add up to {whole.sum():g}, but to {turned.sum():g} in another order of records"


def _empty(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    loss = objective(arranged(batch, torch.empty(0, dtype=torch.int64)))
    if float(loss.loss_U.sum()) or float(loss.weight_U.sum()):
        yield "a batch without records has a loss"


def _gradient(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    if not bool(slope_K(objective, batch).any() or _reached(objective, batch)):
        yield "no gradient reaches logp_K, nor anything else that it needs of the policy"
    for shift in (-EXTREME, EXTREME):
        far = replace(batch, logp_K=batch.ref_logp_K + shift)
        if not bool(slope_K(objective, far).isfinite().all()):
            yield f"a gradient at log-ratios of {shift:g} is not finite"
        if not bool(objective(far).loss_U.isfinite().all()):
            yield f"a loss at log-ratios of {shift:g} is not finite"


def _reached(objective: Objective, batch: Scored) -> bool:
    """Whether a gradient reaches what is known of the policy beside logp."""
    extra: dict[str, Tensor] = {
        name: value_K.clone().requires_grad_()
        for name, value_K in batch.extra.items()
        if name in objective.needs
    }
    total = objective(replace(batch, extra=extra)).loss_U.sum()
    if not extra or not total.requires_grad:
        return False
    found = torch.autograd.grad(total, list(extra.values()), allow_unused=True)
    return any(slope is not None and bool(slope.any()) for slope in found)


def _sign(objective: Objective) -> Iterator[str]:
    """Of what is good or bad by definition, where the policy is the reference."""
    for kind in sorted(objective.kinds & {"demonstration", "text", "label", "pair"}):
        batch = trained(objective, [kind])
        batch = replace(batch, ref_logp_K=batch.logp_K)
        slope_N, feedback = batch.per_response(slope_K(objective, batch)), batch.feedback
        if objective.needs & BESIDE_LOGP and not bool(slope_N.any()):
            continue  # what is learnt of something else is not in the slope by this token
        bad_N = feedback.rejected_N | (feedback.of("label") & (feedback.score_N == 0))
        worse = slope_N[bad_N].mean() if bool(bad_N.any()) else slope_N.new_zeros(())
        if not slope_N[~bad_N].mean() < worse:
            yield f"its gradient makes the good responses of {kind} records less likely, or the bad more"


def _needs(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    if "reference" not in objective.needs:
        other = replace(batch, ref_logp_K=batch.ref_logp_K - 1)
        # To the bit: what is not read cannot make a difference of rounding.
        if not torch.equal(objective(batch).loss_U, objective(other).loss_U):
            yield "the loss reads the reference, which `needs` does not name"
    scored = before_update(objective, sorted(objective.kinds))
    for again in (False, True):
        asks = objective.asks(again) | (objective.needs & {"reference"})
        full = objective.remember(scored, again)
        asked = objective.remember(only(scored, asks), again)
        for name, value_K in full.items():
            if value_K.shape != batch.logp_K.shape or value_K.requires_grad:
                yield f"`remember` must give detached numbers of tokens (K each); {name} is not"
            elif not torch.equal(value_K.nan_to_num(), asked[name].nan_to_num()):
                yield f"`remember` reads for {name} what `asks({again})` does not name"


def _pure(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    before = [tensor.clone() for tensor in tensors(batch)]
    first, second = objective(batch), objective(batch)
    after = tensors(batch)
    if not all(a.nan_to_num().equal(b.nan_to_num()) for a, b in zip(before, after, strict=True)):
        yield "it changes its batch in place"
    if not torch.equal(first.loss_U, second.loss_U):
        yield "the same batch has another loss the second time"


def _metrics(objective: Objective) -> Iterator[str]:
    batch = trained(objective)
    for name, value in objective.metrics(batch.detached()).items():
        if isinstance(value, Tensor) and value.shape != batch.feedback.record_N.shape:
            yield f"{name} has the shape {tuple(value.shape)}: give a number for each response (N)"
    for name, item in objective(batch).metrics.items():
        if item.value_M.shape != item.record_M.shape or not bool(item.value_M.isfinite().all()):
            yield f"{name} must have a finite number and a record each"


def _state(objective: Objective) -> Iterator[str]:
    if not isinstance(objective, Stateful):
        return
    state, observed = objective.start(), objective(trained(objective)).observed
    if objective.advance(state, {}) != state:
        yield "a step that observed nothing changes the state"
    after = objective.advance(
        state, {name: total / n for name, (total, n) in observed.items() if n}
    )
    if after.keys() != state.keys() or not all(isinstance(v, float) for v in after.values()):
        yield f"the state {state} became {after}: the same names, with a number each"


def _near(left: Tensor, right: Tensor, terms_U: Tensor) -> bool:
    """Whether two sums of the terms are equal but for rounding."""
    return bool((left - right).abs() <= 1e-4 * terms_U.abs().sum() + 1e-6)


LAWS: Mapping[str, Law] = {
    "options": _options,
    "declares": _declares,
    "kinds": _kinds,
    "units": _units,
    "weights": _weights,
    "cut": _cut,
    "order": _order,
    "empty": _empty,
    "gradient": _gradient,
    "sign": _sign,
    "needs": _needs,
    "pure": _pure,
    "metrics": _metrics,
    "state": _state,
}
