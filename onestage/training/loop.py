"""The loop. It names no objective, no schedule and no task.

A step: ask the schedule which terms to train on, draw their records, pack them into forest rows, and
for each row add up the units' losses, each divided by the number of its units in the whole step. So
the result depends neither on how records fall into rows nor on how rows fall to processes, and rows
go through the model one after the other, so memory does not grow with the number of terms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onestage.data.encoded import Encoded
from onestage.data.packing import Batch, pack_records
from onestage.objectives import wide
from onestage.randomness import seed_torch
from onestage.schedules import active
from onestage.training.checkpoints import save
from onestage.training.devices import norm_of, total_norm
from onestage.training.ending import finish, mark_best
from onestage.training.evaluate import measure
from onestage.training.forward import row_loss
from onestage.training.metrics import Step
from onestage.training.mixtures import in_batch
from onestage.training.pieces import backward, passes_of

if TYPE_CHECKING:
    from onestage.training.run import Run

Seen = dict[tuple[int, str, str], Tensor]
"""By row, term and name: what an objective with a state observed, and of how many."""


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not a number; the run stopped before it could spoil the model."""


def train(run: Run) -> None:
    """Train until the run is done, or until `run.stop` is set. Raises `NonFiniteError`."""
    parameters = [p for p in run.policy.parameters() if p.requires_grad]
    run.window.begin(run.tokens)
    run.policy.train()
    if run.keeper:
        run.keeper.end()
    if run.unmeasured:
        _measure_again(run)
    while not run.done and not _stopping(run):
        weights = decide(run)
        records = run.feeds.draw(active(weights))
        if run.schedule.batch == "mixed":
            here = Counter(run.terms.name_of(record) for record in records)
            weights = in_batch(weights, run.plan.drawn, here)
        measured = take_step(run, parameters, records, weights)
        run.schedule.observe(run.step, measured.losses)
        if measured.slopes:
            run.schedule.feel(run.step, measured.slopes)
        run.step += 1
        run.tokens += measured.tokens
        run.saving.look()
        kept = run.keeper.hold() if run.keeper else {}
        if run.average:
            run.average.update(run.step)
        if run.keeper and run.done:
            kept |= finish(run, run.keeper)
        run.window.add(measured)
        for callback in run.callbacks:
            callback.step(run, measured.loss)
        best = run.benchmarks.after_step() if run.benchmarks else False
        if run.due(run.options.logging_steps):
            line = run.window.close(run.step, run.tokens, run.learning_rate, run.terms.state)
            run.log({**line, **(run.answers.report() if run.answers else {})})
        if kept:
            run.log({"step": run.step, **kept})
        better, best = _look(run, best)
        _save_due(run, better=better, best=best)
    if run.stop and not run.done:
        save(run)


def _look(run: Run, best: bool) -> tuple[bool, bool]:
    """Probe and evaluate, where it is time. Whether the model is better than ever by what decides, and
    by a suite; best: what the suites have found."""
    if run.due(run.probe.steps if run.probe else None):
        run.log({"step": run.step, **run.monitor.probe()})
    better = False
    if run.due(run.options.eval_steps):
        losses = run.monitor.evaluate()
        run.log({"step": run.step, **losses})
        better = losses["eval/loss"] < run.best
        run.best = min(run.best, losses["eval/loss"])
        best = best or (run.benchmarks is not None and run.benchmarks.judge(losses))
    if run.benchmarks and run.benchmarks.keeps:
        better = best
    return better, best


def _measure_again(run: Run) -> None:
    """Of a run that goes on from what was its last step, what its checkpoint does not know of."""
    run.unmeasured = False
    better, _ = _look(run, run.benchmarks.after_step() if run.benchmarks else False)
    if better and run.options.save_steps:
        mark_best(run)


def _save_due(run: Run, *, better: bool, best: bool) -> None:
    """Save a checkpoint, if it is time, or this is the best so far."""
    every = run.options.save_steps
    if run.keeper and run.done:  # which saved one before it held to its bounds
        if better and every:
            mark_best(run)
    elif (every and run.step % every == 0) or (better and (every or best)):
        save(run, best=better)


def decide(run: Run) -> dict[str, float]:
    """The weights of the terms in this step; the schedule may want losses measured first."""
    wanted = run.schedule.wants(run.step)
    if wanted:
        run.schedule.observe(run.step, measure(run, wanted))
    weights = run.schedule.weigh(run.step)
    if run.schedule.measure == "next_batch":
        run.feeds.skip(term for term in wanted if not weights[term])
    return weights


def _stopping(run: Run) -> bool:
    """Whether any process was told to stop; all of them stop after the same step."""
    if run.devices.ranks > 1:
        run.stop = bool(run.devices.add(torch.tensor(float(run.stop))))
    return run.stop


def take_step(
    run: Run,
    parameters: Sequence[Tensor],
    records: Sequence[Encoded],
    weights: Mapping[str, float],
) -> Step:
    """One optimiser step on some records."""
    seed_torch(_step_seed(run.options.seed, run.step))  # dropout; the same after a resume
    # Rows go backward one by one, each divided by the units of the whole step. So these are counted
    # before any forward pass, from the feedback; every process draws the same records and needs not ask.
    counts, measured = run.terms.count(records), Step(weights)
    for record in records:
        measured.tokens_of[record.source] += record.tokens
    if run.gauges:
        run.gauges.begin(records)
    sum_2T, observed = _through_terms(run, parameters, records, counts, measured)
    # The gradients are those of all ranks by now: every one adds the same.
    penalty = run.penalty(run.policy.model) if run.penalty else sum_2T.new_zeros(())
    if run.penalty:
        run.masters.gather()
    pull = run.keeper.pull() if run.keeper else 0.0
    run.policy.preserved.turn(run.masters)
    grads = [p.grad for p in run.masters.of(parameters) if p.grad is not None]
    # Once a step the process waits for its device, to learn all that the step must know.
    sums, (extra,), (measured.grad_norm,), felt, *pairs = _read(
        run.devices.add(sum_2T), penalty, total_norm(grads), _felt(run), *observed.values()
    )
    measured.slopes = run.gauges.slopes(felt, weights) if run.gauges else None
    each = zip(weights, sums[: len(weights)], sums[len(weights) :], strict=True)
    measured.losses = {name: total / weight for name, total, weight in each if weight}
    measured.loss = sum(weights[name] * loss for name, loss in measured.losses.items())
    measured.loss += extra + pull
    measured.clip_factor = _clip(run, grads, measured.grad_norm, active(weights))
    if not (math.isfinite(measured.loss) and math.isfinite(measured.grad_norm)):
        raise NonFiniteError(_blame(run, records, measured))
    (run.keeper or run.optimizer).step()
    run.policy.preserved.settle(run.masters)
    run.masters.round()
    run.learning_rate.step()
    run.optimizer.zero_grad(set_to_none=True)
    if any(run.terms.state.values()):
        mine = [(*key, *pair) for (_, *key), pair in zip(observed, pairs, strict=True)]
        run.terms.advance(_sum_observed(run.devices.gather(mine)))
    return measured


def _felt(run: Run) -> Tensor:
    """What the gauges read in a step, over all ranks; nothing where there are none."""
    if run.gauges is None:
        return torch.zeros(0, device=run.policy.device)
    return run.gauges.numbers(run.devices.add(run.gauges.read()))


def _through_terms(
    run: Run,
    parameters: Sequence[Tensor],
    records: Sequence[Encoded],
    counts: Mapping[str, float],
    measured: Step,
) -> tuple[Tensor, Seen]:
    """All of a step's records; under gradient surgery each term's by themselves. As `_through_rows`."""
    sum_2T, seen = _zeros_2T(run, measured), Seen()
    for part in run.terms.apart(records) if run.surgeon else [records]:
        batch = run.devices.pack(part, run.options.row_budget, run.options.tokens_per_row)
        measured.nodes += batch.nodes
        measured.repeated += batch.repeated
        sums_2T, observed = _through_rows(run, batch, counts, measured)
        sum_2T, seen = sum_2T + sums_2T, seen | observed
        if run.surgeon:
            term = run.terms.name_of(part[0])
            run.surgeon.take(run.masters.of(parameters), term, measured.weights[term])
    if run.surgeon:
        run.surgeon.put(run.masters.of(parameters))
    return sum_2T, seen


def _through_rows(
    run: Run, batch: Batch, counts: Mapping[str, float], measured: Step
) -> tuple[Tensor, Seen]:
    """This rank's rows, forward and backward: the sum and the weight of each term's loss (2, T), and of
    each row's terms what they observed. Nothing is read from the device."""
    weights, streams = measured.weights, [record.source for record in batch.records]
    sum_2T = _zeros_2T(run, measured)
    observed: Seen = {}
    rows = run.devices.deal(batch.rows)
    for turn, row in enumerate(rows):
        passes = passes_of(batch.rows, turn, run.devices.ranks)
        how: dict[str, Any] = {"passes": passes, "last": turn == len(rows) - 1}
        losses = backward(run, row, batch, weights, counts, **how)
        for place, name in enumerate(weights):
            if name in losses:
                shown = losses[name].reported
                both = (value.sum(dtype=sum_2T.dtype) for value in (shown.value_M, shown.weight_M))
                sum_2T[:, place] += torch.stack([*both])
                observed |= {(turn, name, what): two for what, two in losses[name].seen.items()}
        measured.tally.add(losses.values(), streams)
    return sum_2T, observed


def _zeros_2T(run: Run, measured: Step) -> Tensor:
    """In float64: in float32 a sum of very many losses would depend on which rows they stand in."""
    device = run.policy.device
    return torch.zeros(2, len(measured.weights), dtype=wide(device), device=device)


def _read(*tensors: Tensor) -> list[list[float]]:
    """The numbers in some tensors, fetched together; the first is on the device."""
    device = tensors[0].device
    parts = [tensor.detach().to(device, wide(device)).flatten() for tensor in tensors]
    numbers = iter(torch.cat(parts).tolist())
    return [[next(numbers) for _ in range(len(part))] for part in parts]


def _step_seed(seed: int, step: int) -> int:
    # A large prime apart, so that runs of neighbouring seeds do not share steps' numbers.
    return (seed * 1_000_003 + step) % (1 << 63)


def _clip(run: Run, grads: Sequence[Tensor], norm: float, terms: Sequence[str]) -> float:
    """Scale gradients of a known norm as the run's clipping says; by which factor."""
    # A norm that is not finite must not get into the running ones: the step will be refused.
    factor = run.clipping.factor(terms, norm) if math.isfinite(norm) else 1.0
    if factor < 1:
        torch._foreach_mul_(list(grads), factor)
    return factor


def _sum_observed(
    rows: Iterable[tuple[str, str, float, float]],
) -> dict[str, dict[str, tuple[float, float]]]:
    """By term and name, of what was observed in rows: (term, name, sum, count)."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for term, name, total, count in rows:
        mine = found.setdefault(term, {})
        before = mine.get(name, (0.0, 0.0))
        mine[name] = (before[0] + total, before[1] + count)
    return found


def _blame(run: Run, records: Sequence[Encoded], measured: Step) -> str:
    """Which records of a step give a loss or gradient that is not finite on their own."""
    guilty = []
    for record in records:
        run.optimizer.zero_grad(set_to_none=True)
        batch = pack_records([record], run.options.row_budget)
        counts = run.terms.count([record])
        with run.devices.adding(last=True):
            total, _ = row_loss(run, batch.rows[0], batch, measured.weights, counts)
            run.accelerator.backward(total)
        run.masters.gather()
        norm = norm_of(p.grad for p in run.masters.of(run.policy.parameters()))
        if not (math.isfinite(total.item()) and math.isfinite(norm)):
            guilty.append(f"{record.source}:{record.id}")
    run.optimizer.zero_grad(set_to_none=True)
    named = ", ".join(guilty[:20]) or "none of them alone (the step's records together)"
    return (
        f"step {run.step + 1}: loss {measured.loss}, gradient norm {measured.grad_norm}; "
        f"records that do it: {named}. The model was not changed or saved; earlier checkpoints stay"
    )
