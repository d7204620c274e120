"""Probes: what a run measures about itself without changing itself.

Gradients: norm, share and pairwise cosine of the terms' gradients, each on a batch that is drawn for
the probe. Retention: loss and KL to the start model on held-out text. Task: KL to the start model on
the terms' own records. Everything happens between two steps, with dropout off, on records drawn in an
order of their own, and leaves no gradient behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onestage.data.encoded import Encoded
from onestage.models.divergence import Anchor, Moved
from onestage.models.sharding import full
from onestage.training.devices import norm_of
from onestage.training.forward import row_loss

if TYPE_CHECKING:
    from onestage.training.run import Run


class Prober:
    """Takes the measurements; made before the first step, from the model as it starts."""

    def __init__(
        self,
        run: Run,
        retention: Mapping[str, Sequence[Encoded]],
        task: Mapping[str, Sequence[Encoded]],
        *,
        gradients: bool,
    ) -> None:
        self.run, self.gradients = run, gradients
        self.watched: dict[str, Anchor] = {}
        for prefix, records_of in (("retention", retention), ("task", task)):
            for name, records in records_of.items():
                rows = run.devices.pack(list(records), run.options.row_budget).rows
                with run.accelerator.autocast():  # as it is measured later
                    self.watched[f"{prefix}/{name}"] = Anchor(run.policy, run.devices.deal(rows))
        self.start = {name: moved(self.run, start) for name, start in self.watched.items()}

    def __call__(self) -> dict[str, float]:
        """All measurements, by their names in the metrics; the same on every process."""
        found: dict[str, float] = {}
        for name, start in self.watched.items():
            now = moved(self.run, start)
            found[f"{name}/kl"] = now.kl
            if name.startswith("retention/"):
                found[f"{name}/loss"] = now.loss
                found[f"{name}/loss_increase"] = now.loss - self.start[name].loss
        return found | (self._gradients() if self.gradients else {})

    def names(self) -> list[str]:
        """What a guard can watch."""
        kinds = {"retention": ("kl", "loss", "loss_increase"), "task": ("kl",)}
        return [f"{name}/{kind}" for name in self.watched for kind in kinds[name.split("/")[0]]]

    def _gradients(self) -> dict[str, float]:
        run, share = self.run, self.run.schedule.share
        number = run.step // (run.probe.steps if run.probe else 1)
        grads: dict[str, list[Tensor]] = {}
        for name in run.feeds.own:
            grad = self._gradient(name, number) if share[name] else None
            if grad is not None:
                grads[name] = grad
        norms = {name: norm_of(grad) for name, grad in grads.items()}
        total = sum(share[name] * norm for name, norm in norms.items()) or 1.0
        found = {f"probe/grad_norm/{name}": norm for name, norm in norms.items()}
        found |= {f"probe/grad_share/{n}": share[n] * norm / total for n, norm in norms.items()}
        for left, right in combinations(grads, 2):
            inner = sum(
                full((a * b).sum()).item() for a, b in zip(grads[left], grads[right], strict=True)
            )
            size = norms[left] * norms[right]
            found[f"probe/cosine/{left}/{right}"] = inner / size if size else 0.0
        return found

    def _gradient(self, term: str, number: int) -> list[Tensor] | None:
        """The gradient (float32) of a term's mean loss, over all processes' rows."""
        run = self.run
        records = [r for r in run.feeds.probe([term], number) if run.terms.name_of(r) == term]
        counts = run.terms.count(records)
        if not counts.get(term):
            return None
        batch, was = run.devices.pack(records, run.options.row_budget), run.policy.training
        parameters = [p for p in run.policy.parameters() if p.requires_grad]
        run.policy.eval()
        try:
            # A weight of 1: the term's gradient itself, whatever the schedule makes of it.
            rows = run.devices.deal(batch.rows)
            for place, row in enumerate(rows, 1):
                with run.devices.adding(last=place == len(rows)):
                    loss, _ = row_loss(run, row, batch, {term: 1.0}, counts)
                    run.accelerator.backward(loss)
            run.masters.gather()
            return [
                torch.zeros_like(p, dtype=torch.float32) if p.grad is None else p.grad.float()
                for p in run.masters.of(parameters)
            ]
        finally:
            run.optimizer.zero_grad(set_to_none=True)
            run.policy.train(was)


def moved(run: Run, start: Anchor) -> Moved:
    """Means over all processes' rows."""
    with run.accelerator.autocast():
        found = start.measure(run.policy)
    sums = [found.loss * found.positions, found.kl * found.positions, float(found.positions)]
    sum_3 = torch.tensor(sums, dtype=torch.float64)
    loss, kl, count = run.devices.add(sum_3).tolist()
    return Moved(loss / max(count, 1), kl / max(count, 1), int(count))
