"""What a run always knows of its terms' gradients: how long, how noisy, whether they agree.

A probe measures a term's gradient exactly, in a backward pass of its own. A gauge reads a sketch of it,
in some of the layers, off the step's own backward pass (`models.gauge`), at the cost of some small
products a row. Each term's records are dealt out into two halves, by turns; how far these are apart is
what the gradient of another batch like this one would differ by:

    noise = p_a p_b |g_a - g_b|^2,   g = p_a g_a + p_b g_b,   p the parts of the term's units

which has the mean E |g - E g|^2 for records drawn independently. Of one record there is no noise to be
read. Norms are those of the sketch, so they can be compared with each other and over a run, and not with
`grad_norm`; shares and cosines need no unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onestage.config import RecipeError
from onestage.data.encoded import Encoded, Floats
from onestage.data.packing import WORTH_SHARING, Batch, Row
from onestage.data.trees import shared_length, sort_key
from onestage.models.gauge import Gauge
from onestage.models.policy import Policy
from onestage.schedules import Slopes

if TYPE_CHECKING:
    from onestage.training.run import Run
    from onestage.training.terms import Terms


@dataclass
class Gauges:
    """Reads each step's gradients, by term and half."""

    terms: Terms
    policy: Policy
    gauge: Gauge
    part: dict[tuple[str, int], float] = field(default_factory=dict)
    """Of the step: what each half of a term's records has of its units, about."""
    half: dict[int, int] = field(default_factory=dict)
    """Of the step: the group of each record, by identity."""
    common: dict[int, int] = field(default_factory=dict)
    """Of the step: how many tokens of each record's prompt others have as well, by identity."""
    whole: bool = True
    """Whether all that went backward in the step was looked at."""

    def __enter__(self) -> Gauges:
        return self

    def __exit__(self, *error: object) -> None:
        """The model is somebody else's from now on."""
        self.gauge.close()

    def begin(self, records: Sequence[Encoded]) -> None:
        """A step on some records, of all ranks."""
        self.half, self.part, self.whole = {}, {}, True
        self.common = common_of(records)
        seen, size = Counter[str](), Counter[tuple[str, int]]()
        names = list(self.terms.objectives)
        for record in records:
            name = self.terms.name_of(record)
            which = seen[name] % 2
            self.half[id(record)] = 2 * names.index(name) + which
            seen[name] += 1
            by_token = self.terms.objectives[name].unit == "token"
            size[name, which] += record.scored if by_token else 1
        for (name, which), units in size.items():
            self.part[name, which] = units / (size[name, 0] + size[name, 1])

    def expect(self, row: Row, batch: Batch, passes: int, reads: Collection[str]) -> None:
        """The row that goes forward and backward next, in so many passes, and what is read of it: one
        that goes in pieces is not looked at, and its step says nothing."""
        self.whole &= passes == 1
        records = [batch.records[number] for number in row.records]
        if passes > 1 or not records:
            self.gauge.expect(None)
            return
        # What is read partly as the policy's own guess goes through the model a second time.
        times = 1 + ("mixed_logp" in reads)
        whose = [(r.scored, self.half[id(r)], self.common[id(r)]) for r in records]
        if self.policy.packs(row, reads):
            self.gauge.expect([shares(row, whose, self.gauge.groups)] * times)
            return
        sizes = [len(record.paths) for record in records]
        each = [one for one, size in zip(whose, sizes, strict=True) for _ in range(size)]
        self.gauge.expect(
            [
                np.eye(self.gauge.groups, dtype=np.float32)[[group] * len(path.ids)]
                * (np.arange(len(path.ids)) >= common)[:, None]
                for (_, group, common), path in zip(each, row.paths, strict=True)
                for _ in range(times)
            ]
        )

    def read(self) -> Tensor:
        """What the step had, of this rank: halves (T, 2, D)."""
        self.gauge.expect(None)
        found = self.gauge.take()
        return found.reshape(-1, 2, found.shape[1])

    def numbers(self, halves: Tensor) -> Tensor:
        """Inner products (T, T) and noise (T), of weighted losses, from the halves of all ranks."""
        each, sum_TD = halves, halves.sum(1)
        names = list(self.terms.objectives)
        a_T, b_T = (
            torch.tensor([self.part.get((name, which), 0.0) for name in names]) for which in (0, 1)
        )
        # p_a p_b |x_a / p_a - x_b / p_b|^2, of x = p g
        root_T = (b_T / a_T).sqrt().to(each.device)
        noise_T = (each[:, 0] * root_T[:, None] - each[:, 1] / root_T[:, None]).square().sum(1)
        return torch.cat([(sum_TD @ sum_TD.T).flatten(), noise_T])

    def slopes(self, numbers: Sequence[float], weights: Mapping[str, float]) -> Slopes | None:
        """What they say of the terms that a step trained on; None where it was not looked at."""
        names, size = list(self.terms.objectives), len(self.terms.objectives)
        here = {name: n for n, name in enumerate(names) if (name, 0) in self.part and weights[name]}
        if not self.whole or not all(math.isfinite(numbers[n * size + n]) for n in here.values()):
            return None
        inner = {
            one: {
                other: numbers[n * size + k] / (weights[one] * weights[other])
                for other, k in here.items()
            }
            for one, n in here.items()
        }
        noise = {
            name: numbers[size * size + n] / weights[name] ** 2
            for name, n in here.items()
            if (name, 1) in self.part
        }
        return Slopes(inner, noise)


def common_of(records: Sequence[Encoded]) -> dict[int, int]:
    """How many tokens of each record's prompt stand at the beginning of another one, too, by identity.

    In a row they are run once for all, and whose gradient goes through them cannot be told: split among
    terms it would make them agree. They are left out everywhere, since which records are joined in a
    row depends on how rows are cut; but not where so few agree that no row joins them.
    """
    paths = sorted((record.paths[0] for record in records), key=sort_key)
    longest = dict.fromkeys((id(path) for path in paths), 0)
    # In the order of their tokens, neighbours are those that share the longest beginning.
    for one, other in pairwise(paths):
        both = shared_length(one.ids, other.ids)
        for path in (one, other) if both >= WORTH_SHARING else ():
            longest[id(path)] = max(longest[id(path)], min(both, path.opening - 1))
    return {id(record): longest[id(record.paths[0])] for record in records}


def shares(row: Row, whose: Sequence[tuple[int, int, int]], size: int) -> Floats:
    """How much of each node of a packed row is each group's (N, G): one that several answers share
    counts for their groups in equal parts.

    whose: of each record, in the order of the row's entries: its scored tokens, its group, and how many
    of its first tokens are left out; size: G.
    """
    tree, found, at = row.tree, np.zeros((len(row), size), np.float32), 0
    every = np.arange(len(row))
    for count, group, common in whose:
        ends = np.zeros(len(row) + 1, np.int64)
        ends[tree.node_K[at : at + count] + 1] = 1
        before = np.cumsum(ends)
        # A record goes through the nodes that one of its scored tokens stands behind.
        found[:, group] += (before[tree.exit_T] > before[every]) & (tree.position_T >= common)
        at += count
    return found / np.maximum(found.sum(1, keepdims=True), 1)


def gauges_of(run: Run) -> Gauges | None:
    """Those of a run of several terms that trains linear layers; `RecipeError` where a schedule needs
    them and there are none."""
    several, why = len(run.terms.objectives) > 1, "there is one term"
    if several:
        try:
            gauge = Gauge(2 * len(run.terms.objectives), run.policy.model, run.policy.device)
            return Gauges(run.terms, run.policy, gauge)
        except ValueError as error:
            why = str(error)
    if run.schedule.feels:
        raise RecipeError(
            f"schedule {run.plan.name}: reads the gradients of its terms off the layers that are "
            f"trained, which this run does not show ({why}); take mix or chord"
        )
    return None


def told(seen: Sequence[tuple[Mapping[str, float], Slopes]]) -> dict[str, float]:
    """A line of metrics, from the weights and slopes of some steps."""
    names = list(dict.fromkeys(name for _, slopes in seen for name in slopes.inner))
    square = {a: _mean([s.inner[a][a] for _, s in seen if a in s.inner]) for a in names}
    norm = {name: math.sqrt(max(0.0, x)) for name, x in square.items()}
    found = {f"gauge/grad_norm/{name}": x for name, x in norm.items()}
    pull = {a: _mean([w[a] for w, s in seen if a in s.inner]) * norm[a] for a in names}
    total = sum(pull.values()) or 1.0
    found |= {f"gauge/grad_share/{name}": x / total for name, x in pull.items()}
    for name in names:
        noise = [s.noise[name] for _, s in seen if name in s.noise]
        if noise and square[name] > 0:
            found[f"gauge/noise/{name}"] = _mean(noise) / square[name]
    for one, other in combinations(names, 2):
        both = [s.inner for _, s in seen if one in s.inner and other in s.inner]
        # Lengths in the same steps: in those that had but one of them they may be others.
        size = math.prod(math.fsum(inner[name][name] for inner in both) for name in (one, other))
        if size > 0:
            sum_ = math.fsum(inner[one][other] for inner in both)
            found[f"gauge/cosine/{one}/{other}"] = sum_ / math.sqrt(size)
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
