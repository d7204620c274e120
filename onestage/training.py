"""The loop. It names no objective, no schedule and no task.

A step: draw records, pack them into forest rows, and for each row add up the units' losses, each
divided by the number of its units in the whole step. So the result depends neither on how records
fall into rows nor on how rows fall to processes.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from onestage.forest.packing import Row
from onestage.policy.policy import Policy
from onestage.policy.reference import ReferenceCache
from onestage.schedules.contract import Schedule
from onestage.streams.batch import Batch, pack_records
from onestage.streams.encoding import Encoded
from onestage.streams.mixture import Mixture
from onestage.terms import Tally, Terms


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not a number; the run stopped before it could spoil the model."""


@dataclass
class Run:
    """Everything the loop works with. Only the policy, the optimiser and the counters change."""

    policy: Policy
    terms: Terms
    schedule: Schedule
    mixture: Mixture
    optimizer: torch.optim.Optimizer
    learning_rate: Any
    accelerator: Accelerator
    reference: ReferenceCache | None
    steps: int
    tokens_per_row: int
    max_grad_norm: float
    seed: int
    logging_steps: int = 10
    eval_steps: int | None = None
    save_steps: int | None = None
    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Tokens trained on so far, shared ones counted as often as they stand in the data."""
    best: float = math.inf
    """Lowest evaluation loss so far."""
    stop: bool = False
    """Set from outside (a signal) to stop after the step under way."""


@dataclass
class Hooks:
    """What happens around the loop; each takes what it needs and changes nothing of the training."""

    log: Callable[[dict[str, Any]], None]
    evaluate: Callable[[], dict[str, float]]
    save: Callable[[bool], None]
    """Save a checkpoint; the argument says whether it is the best so far."""
    progress: Callable[[float], None]
    """Called after every step with its loss."""


@dataclass
class Step:
    """What one step measured."""

    loss: float
    grad_norm: float
    nodes: int
    """Tokens that were computed: shared ones once."""
    tokens_of: Counter[str]
    """Tokens of the records by stream, shared ones as often as they stand."""
    tally: Tally = field(default_factory=Tally)

    @property
    def tokens(self) -> int:
        return self.tokens_of.total()


def train(run: Run, hooks: Hooks) -> None:
    """Train until `run.steps`, or until `run.stop` is set. Raises `NonFiniteError`."""
    parameters = [p for p in run.policy.parameters() if p.requires_grad]
    window = _Window(run.tokens)
    run.policy.train()
    while run.step < run.steps and not _stopping(run):
        records = run.mixture.draw(run.step)
        measured = take_step(run, parameters, records)
        run.step += 1
        run.tokens += measured.tokens
        window.add(measured)
        hooks.progress(measured.loss)
        last = run.step == run.steps
        if run.step % run.logging_steps == 0 or last:
            hooks.log(window.close(run))
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
    if run.stop and run.step < run.steps:
        hooks.save(False)


def _stopping(run: Run) -> bool:
    """Whether any process was told to stop; all of them stop after the same step."""
    if run.accelerator.num_processes > 1:
        flag = torch.tensor([float(run.stop)], device=run.policy.device)
        torch.distributed.all_reduce(flag)
        run.stop = bool(flag.item())
    return run.stop


def take_step(run: Run, parameters: Sequence[Tensor], records: Sequence[Encoded]) -> Step:
    """One optimiser step on some records."""
    torch.manual_seed(_step_seed(run.seed, run.step))  # dropout; the same after a resume
    batch = pack_records(records, run.tokens_per_row)
    weights, counts = run.schedule.weights(run.step), run.terms.count(records)
    measured = Step(0.0, 0.0, sum(map(len, batch.rows)), Counter())
    streams = [record.source for record in records]
    for record in records:
        measured.tokens_of[record.source] += record.tokens
    observed: list[dict[str, Any]] = []
    total = torch.zeros((), device=run.policy.device)
    rank, ranks = run.accelerator.process_index, run.accelerator.num_processes
    for row in batch.rows[rank::ranks]:
        loss, losses = row_loss(run, row, batch, weights, counts)
        run.accelerator.backward(loss)
        total += loss.detach()
        measured.tally.add(losses.values(), streams)
        observed.append({name: loss.observed for name, loss in losses.items()})
    if ranks > 1:
        _add_over_ranks([total.unsqueeze(0)], parameters)
    norm = _clip(parameters, run.max_grad_norm)
    measured.loss, measured.grad_norm = total.item(), norm.item()
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
) -> tuple[Tensor, dict[str, Any]]:
    """What one row adds to the step's loss, and the losses of its terms."""
    with run.accelerator.autocast():
        logp_K = run.policy(row)
    losses = run.terms.losses(row, batch, logp_K, reference_of(run, row, batch, logp_K))
    parts = [
        weights[name] / counts[name] * loss.loss_U.sum()
        for name, loss in losses.items()
        if counts[name]
    ]
    return sum(parts, start=0.0 * logp_K.sum()), losses


def reference_of(run: Run, row: Row, batch: Batch, like_K: Tensor) -> Tensor:
    """The reference's log-probabilities of a row; zeros where the objective needs none."""
    parts = []
    for record in (batch.records[number] for number in row.records):
        if run.reference is not None and run.terms.wants_reference(record):
            parts += [run.reference[path] for path in record.paths]
        else:
            parts.append(np.zeros(record.scored, np.float32))
    return torch.from_numpy(np.concatenate(parts)).to(like_K.device)


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % (1 << 63)


def _add_over_ranks(extra: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Sum gradients (and `extra`) over all processes, in one flat message."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    tensors = [*extra, *(p.grad for p in parameters if p.grad is not None)]
    flat = torch.cat([tensor.flatten().float() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    at = 0
    for tensor in tensors:
        tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
        at += tensor.numel()


def _clip(parameters: Sequence[Tensor], limit: float) -> Tensor:
    """The gradients' norm before clipping it to `limit` (0: no clipping)."""
    return torch.nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else math.inf)


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
    weights = run.schedule.weights(run.step)
    for record in records:
        run.optimizer.zero_grad(set_to_none=True)
        batch = pack_records([record], run.tokens_per_row)
        total, _ = row_loss(run, batch.rows[0], batch, weights, run.terms.count([record]))
        run.accelerator.backward(total)
        norm = _clip([p for p in run.policy.parameters() if p.requires_grad], 0.0)
        if not (math.isfinite(total.item()) and math.isfinite(norm.item())):
            guilty.append(f"{record.source}:{record.id}")
    run.optimizer.zero_grad(set_to_none=True)
    named = ", ".join(guilty[:20]) or "none of them alone (the step's records together)"
    return (
        f"step {run.step + 1}: loss {measured.loss}, gradient norm {measured.grad_norm}; "
        f"records that do it: {named}. The model was not changed or saved; earlier checkpoints stay"
    )


class _Window:
    """What was measured since the last line of metrics."""

    def __init__(self, tokens: int) -> None:
        self.steps: list[Step] = []
        self.since = time.perf_counter()
        self.tokens = tokens

    def add(self, step: Step) -> None:
        self.steps.append(step)

    def close(self, run: Run) -> dict[str, Any]:
        now, size = time.perf_counter(), len(self.steps)
        tally = Tally()
        for step in self.steps:
            tally.merge(step.tally.sums)
        if run.accelerator.num_processes > 1:
            merged = Tally()
            for sums in gather_object([tally.sums]):
                merged.merge(sums)
            tally = merged
        tokens_of = sum((step.tokens_of for step in self.steps), Counter())
        clipped = sum(step.grad_norm > run.max_grad_norm > 0 for step in self.steps)
        line = {
            "step": run.step,
            "loss": sum(step.loss for step in self.steps) / size,
            "tokens": run.tokens,
            "learning_rate": run.learning_rate.get_last_lr()[0],
            "grad_norm": sum(step.grad_norm for step in self.steps) / size,
            "grad_clip_rate": clipped / size,
            "forest_saving": 1 - sum(step.nodes for step in self.steps) / tokens_of.total(),
            "tokens_per_second": (run.tokens - self.tokens) / (now - self.since),
            **{f"state/{t}/{k}": v for t, s in run.terms.state.items() for k, v in s.items()},
            **{f"{stream}/tokens": count for stream, count in tokens_of.items()},
            **tally.means(),
        }
        self.steps, self.since, self.tokens = [], now, run.tokens
        return line
