"""The loop. It names no objective, no schedule and no task.

A step: ask the schedule which terms to train on, draw their records, pack them into forest rows, and
for each row add up the units' losses, each divided by the number of its units in the whole step. So
the result depends neither on how records fall into rows nor on how rows fall to processes, and rows
go through the model one after the other, so memory does not grow with the number of terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from onestage.data.encoded import Encoded, Floats
from onestage.data.feeds import Feeds
from onestage.data.packing import Batch, Row, pack_records
from onestage.models.average import Average
from onestage.models.policy import Policy
from onestage.models.reference import ReferenceCache
from onestage.objectives import Loss
from onestage.rollout.stock import Stock
from onestage.schedules import Schedule, active
from onestage.training.metrics import Step, Window
from onestage.training.optimizer import Clipping
from onestage.training.terms import Terms


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not a number; the run stopped before it could spoil the model."""


@dataclass
class Run:
    """Everything the loop works with. Only the policy, the optimiser and the counters change."""

    policy: Policy
    terms: Terms
    schedule: Schedule
    feeds: Feeds
    optimizer: torch.optim.Optimizer
    learning_rate: Any
    accelerator: Accelerator
    reference: ReferenceCache | None
    steps: int
    tokens_per_row: int
    clipping: Clipping
    seed: int
    out: Path
    """The run folder."""
    answers: Stock | None = None
    """What answers problems, where there are any."""
    told: str = ""
    """What was asked for, in a line, for trackers."""
    penalty: Callable[[Any], float] | None = None
    """Adds the gradient of a penalty on the weights themselves, and returns its value."""
    average: Average | None = None
    """A running average of the trained weights."""
    logging_steps: int = 10
    eval_steps: int | None = None
    save_steps: int | None = None
    probe_steps: int | None = None
    max_tokens: float = math.inf
    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Tokens trained on so far, shared ones counted as often as they stand in the data."""
    best: float = math.inf
    """Lowest evaluation loss so far."""
    stop: bool = False
    """Set from outside (a signal) to stop after the step under way."""

    @property
    def done(self) -> bool:
        return self.step >= self.steps or self.tokens >= self.max_tokens


@dataclass
class Hooks:
    """What happens around the loop; each takes what it needs and changes nothing of the training."""

    log: Callable[[dict[str, Any]], None]
    measure: Callable[[Sequence[str]], dict[str, float]]
    """Losses of the named terms, by forward passes alone."""
    evaluate: Callable[[], dict[str, float]]
    probe: Callable[[], dict[str, float]]
    """Measurements that never change the training."""
    save: Callable[[bool], None]
    """Save a checkpoint; the argument says whether it is the best so far."""
    step: Callable[[float], None]
    """Called after every step with its loss."""


def train(run: Run, hooks: Hooks) -> None:
    """Train until the run is done, or until `run.stop` is set. Raises `NonFiniteError`."""
    parameters = [p for p in run.policy.parameters() if p.requires_grad]
    window = Window(run.tokens)
    run.policy.train()
    while not run.done and not _stopping(run):
        weights = decide(run, hooks.measure)
        measured = take_step(run, parameters, run.feeds.draw(active(weights)), weights)
        run.schedule.observe(run.step, measured.losses)
        run.step += 1
        run.tokens += measured.tokens
        if run.average:
            run.average.update(run.step)
        window.add(measured)
        hooks.step(measured.loss)
        last = run.done
        if run.step % run.logging_steps == 0 or last:
            line = window.close(run.step, run.tokens, run.learning_rate, run.terms.state)
            hooks.log({**line, **(run.answers.report() if run.answers else {})})
        if run.probe_steps and (run.step % run.probe_steps == 0 or last):
            hooks.log({"step": run.step, **hooks.probe()})
        if run.eval_steps and (run.step % run.eval_steps == 0 or last):
            losses = hooks.evaluate()
            hooks.log({"step": run.step, **losses})
            better = losses["eval/loss"] < run.best
            run.best = min(run.best, losses["eval/loss"])
            if better and run.save_steps:
                hooks.save(True)
                continue
        if run.save_steps and run.step % run.save_steps == 0:
            hooks.save(False)
    if run.stop and not run.done:
        hooks.save(False)


def decide(run: Run, measure: Callable[[Sequence[str]], dict[str, float]]) -> dict[str, float]:
    """The weights of the terms in this step; the schedule may want losses measured first."""
    wanted = run.schedule.wants(run.step)
    if wanted:
        run.schedule.observe(run.step, measure(wanted))
    weights = run.schedule.weigh(run.step)
    if run.schedule.measure == "next_batch":
        run.feeds.skip(term for term in wanted if not weights[term])
    return weights


def _stopping(run: Run) -> bool:
    """Whether any process was told to stop; all of them stop after the same step."""
    if run.accelerator.num_processes > 1:
        flag = torch.tensor([float(run.stop)], device=run.policy.device)
        torch.distributed.all_reduce(flag)
        run.stop = bool(flag.item())
    return run.stop


def take_step(
    run: Run,
    parameters: Sequence[Tensor],
    records: Sequence[Encoded],
    weights: Mapping[str, float],
) -> Step:
    """One optimiser step on some records."""
    torch.manual_seed(_step_seed(run.seed, run.step))  # dropout; the same after a resume
    batch, counts = pack_records(records, run.tokens_per_row), run.terms.count(records)
    measured = Step(weights, sum(map(len, batch.rows)))
    streams = [record.source for record in records]
    for record in records:
        measured.tokens_of[record.source] += record.tokens
    observed: list[dict[str, Any]] = []
    sum_2T = torch.zeros(2, len(weights), device=run.policy.device)
    rank, ranks = run.accelerator.process_index, run.accelerator.num_processes
    for row in batch.rows[rank::ranks]:
        loss, losses = row_loss(run, row, batch, weights, counts)
        run.accelerator.backward(loss)
        for place, name in enumerate(weights):
            if name in losses:
                shown = losses[name].reported
                sum_2T[:, place] += torch.stack([shown.value_M.sum(), shown.weight_M.sum()])
        measured.tally.add(losses.values(), streams)
        observed.append({name: loss.observed for name, loss in losses.items()})
    if ranks > 1:
        _add_over_ranks(sum_2T, parameters)
    sums = zip(weights, *sum_2T.tolist(), strict=True)
    measured.losses = {name: total / weight for name, total, weight in sums if weight}
    measured.loss = sum(weights[name] * loss for name, loss in measured.losses.items())
    if run.penalty:
        measured.loss += run.penalty(run.policy.model)
    measured.grad_norm, measured.clip_factor = _clip(run, parameters, active(weights))
    if not (math.isfinite(measured.loss) and math.isfinite(measured.grad_norm)):
        raise NonFiniteError(_blame(run, records, measured))
    run.optimizer.step()
    run.learning_rate.step()
    run.optimizer.zero_grad(set_to_none=True)
    if any(run.terms.state.values()):
        run.terms.advance(_sum_observed(gather_object(observed) if ranks > 1 else observed))
    return measured


def row_loss(
    run: Run,
    row: Row,
    batch: Batch,
    weights: Mapping[str, float],
    counts: Mapping[str, float],
) -> tuple[Tensor, dict[str, Loss]]:
    """What one row adds to the step's loss, and the losses of its terms."""
    logp_K, losses = row_terms(run, row, batch)
    parts = [
        weights[name] / counts[name] * loss.loss_U.sum()
        for name, loss in losses.items()
        if counts.get(name)
    ]
    return sum(parts, start=0.0 * logp_K.sum()), losses


def row_terms(run: Run, row: Row, batch: Batch) -> tuple[Tensor, dict[str, Loss]]:
    """Log-probabilities (K) of a row, and the losses of its terms."""
    needs = run.terms.needs_of(*(batch.records[number] for number in row.records))
    with run.accelerator.autocast():
        known = run.policy.look(row, needs)
    known["reference"] = reference_of(run, row, batch, known["logp"])
    return known["logp"], run.terms.losses(row, batch, known)


def reference_of(run: Run, row: Row, batch: Batch, like_K: Tensor) -> Tensor:
    """The reference's log-probabilities of a row; zeros where the objective needs none."""
    parts: list[Floats] = []
    for record in (batch.records[number] for number in row.records):
        if record.sampled is not None and "reference" in record.sampled.kept:
            parts += record.sampled.kept["reference"]
        elif run.reference is not None and "reference" in run.terms.needs_of(record):
            parts += [run.reference[path] for path in record.paths]
        else:
            parts.append(np.zeros(record.scored, np.float32))
    return torch.from_numpy(np.concatenate(parts)).to(like_K.device)


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % (1 << 63)


def _add_over_ranks(sum_2T: Tensor, parameters: Sequence[Tensor]) -> None:
    """Sum gradients and the terms' losses and weights over all processes, in one flat message."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    tensors = [sum_2T, *(p.grad for p in parameters if p.grad is not None)]
    flat = torch.cat([tensor.flatten().float() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    at = 0
    for tensor in tensors:
        tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
        at += tensor.numel()


def _clip(run: Run, parameters: Sequence[Tensor], terms: Sequence[str]) -> tuple[float, float]:
    """Scale the gradients as the run's clipping says; their norm before, and the factor."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads).item()
    factor = run.clipping.factor(terms, norm) if math.isfinite(norm) else 1.0
    if factor < 1:
        torch._foreach_mul_(grads, factor)
    return norm, factor


def _sum_observed(
    rows: Sequence[Mapping[str, Mapping[str, tuple[float, float]]]],
) -> dict[str, dict[str, tuple[float, float]]]:
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        for term, values in row.items():
            mine = found.setdefault(term, {})
            for name, (total, count) in values.items():
                before = mine.get(name, (0.0, 0.0))
                mine[name] = (before[0] + total, before[1] + count)
    return found


def _blame(run: Run, records: Sequence[Encoded], measured: Step) -> str:
    """Which records of a step give a loss or gradient that is not finite on their own."""
    guilty = []
    for record in records:
        run.optimizer.zero_grad(set_to_none=True)
        batch = pack_records([record], run.tokens_per_row)
        counts = run.terms.count([record])
        total, _ = row_loss(run, batch.rows[0], batch, measured.weights, counts)
        run.accelerator.backward(total)
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in run.policy.parameters() if p.grad is not None]
        )
        if not (math.isfinite(total.item()) and math.isfinite(norm.item())):
            guilty.append(f"{record.source}:{record.id}")
    run.optimizer.zero_grad(set_to_none=True)
    named = ", ".join(guilty[:20]) or "none of them alone (the step's records together)"
    return (
        f"step {run.step + 1}: loss {measured.loss}, gradient norm {measured.grad_norm}; "
        f"records that do it: {named}. The model was not changed or saved; earlier checkpoints stay"
    )
