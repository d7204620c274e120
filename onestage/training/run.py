"""A run, from built to trained: the reference's numbers, the laws, the loop, the saved model.

`build` makes one, after everything that can be refused was refused. Ending one from outside (a
scheduler's SIGTERM, or Ctrl-C) saves a checkpoint after the step under way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from onestage.data.encoded import Encoded
from onestage.data.feeds import Feeds
from onestage.models import Loaded
from onestage.models.average import Average
from onestage.models.masters import Masters
from onestage.models.policy import Policy
from onestage.models.rates import slow_precision
from onestage.models.reference import ReferenceCache
from onestage.models.save import save_model
from onestage.models.sharding import gathered
from onestage.rollout.stock import TRIED as ANSWERED
from onestage.rollout.stock import Stock
from onestage.runfolder import RunFolder, Say, digest_of
from onestage.runfolder.disk import require_room
from onestage.schedules import Schedule
from onestage.training import checkpoints, heads, loop
from onestage.training.benchmarks import Benchmarks
from onestage.training.callbacks import Callback
from onestage.training.certificate import certify
from onestage.training.devices import Devices
from onestage.training.ending import go_back
from onestage.training.gauges import Gauges, gauges_of
from onestage.training.keeping import Keeper, keeper_of
from onestage.training.metrics import Window
from onestage.training.monitor import Monitor, probed
from onestage.training.optimizer import Clipping
from onestage.training.plan import Plan, most_drawn, most_measured
from onestage.training.questions import Evaluate
from onestage.training.read import Data
from onestage.training.recipe import Guard, Optimum, Probe, Train
from onestage.training.references import Compared, fill
from onestage.training.resuming import Changes
from onestage.training.saving import Saving
from onestage.training.selfcheck import check_laws, require, sample
from onestage.training.signals import StoppingOnSignals
from onestage.training.surgery import Surgeon
from onestage.training.terms import Terms

TRIED = 64
"""Records of each stream and feed from which those for the laws are chosen."""


@dataclass
class Run:
    """Everything of one run. Only the policy, the optimiser and the counters change."""

    options: Train
    out: Path
    """The run folder."""
    accelerator: Accelerator
    devices: Devices
    """Where its weights and gradients lie."""
    data: Data
    plan: Plan
    loaded: Loaded
    policy: Policy
    compared: Compared
    feeds: Feeds
    answers: Stock | None
    """What answers problems, where there are any."""
    masters: Masters
    """What the optimiser steps of weights that are held in less than float32."""
    optimizer: torch.optim.Optimizer
    learning_rate: Any
    made: list[dict[str, Any]]
    """How the optimiser was made (`optimizer.settings`)."""
    clipping: Clipping
    penalty: Callable[[Any], Tensor] | None
    """Adds the gradient of a penalty on the weights themselves, and returns its value."""
    average: Average | None
    """A running average of the trained weights."""
    folder: RunFolder | None
    """What is written while it goes; None on all processes but the main one."""
    say: Say
    callbacks: Sequence[Callback] = ()
    probe: Probe | None = None
    guards: Sequence[Guard] = ()
    optimum: Optimum | None = None
    evaluate: Evaluate | None = None
    head: str = "auto"
    """Whose head it computes with, as the recipe has it (`heads.settle`)."""
    told: str = ""
    """What was asked for, in a line, for trackers."""
    resuming: bool = False
    changes: Changes = field(default_factory=Changes)
    """Its recipe, and what of it has changed since it was begun."""
    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Tokens trained on so far, shared ones counted as often as they stand in the data."""
    best: float = math.inf
    """Lowest evaluation loss so far."""
    stop: bool = False
    """Set from outside (a signal, a guard, a callback) to stop after the step under way."""
    signal: int | None = None
    """Which signal did."""
    keeper: Keeper | None = field(default=None, repr=False)
    """What holds to the recipe's bounds, where it has some."""
    window: Window = field(default_factory=Window, repr=False)
    """What was measured since the last line of metrics."""
    saving: Saving = field(default_factory=Saving, repr=False)
    """The checkpoint that is written while it goes on."""
    unmeasured: bool = False
    """Whether its step has been done, and what comes after a step has not (`ending`)."""
    enough: bool = False
    """Set where going on is no use (`evaluate.patience`): the run ends as if it had no more steps."""
    _benchmarks: Benchmarks | None = field(default=None, repr=False)
    surgeon: Surgeon | None = field(default=None, repr=False)
    """What combines the terms' gradients, where the schedule does not add them up."""
    gauges: Gauges | None = field(default=None, repr=False)
    """What reads the terms' gradients off each step, where there are several."""
    _monitor: Monitor | None = field(default=None, repr=False)

    @property
    def terms(self) -> Terms:
        return self.plan.terms

    @property
    def schedule(self) -> Schedule:
        return self.plan.schedule

    @property
    def steps(self) -> int:
        return self.plan.steps

    @property
    def reference(self) -> ReferenceCache | None:
        return self.compared.cache

    @property
    def done(self) -> bool:
        enough = self.options.max_tokens is not None and self.tokens >= self.options.max_tokens
        return self.step >= self.steps or enough or self.enough

    def due(self, every: int | None) -> bool:
        """Whether something that is done every so many steps, and at the end, is done now."""
        return every is not None and (self.step % every == 0 or self.done)

    @property
    def monitor(self) -> Monitor:
        """What watches the run. Made when first asked for, which must be before the first step: much of
        it is told against the model as it starts."""
        if self._monitor is None:
            self._monitor = Monitor(self)
        return self._monitor

    @property
    def benchmarks(self) -> Benchmarks | None:
        """What the run is asked while it goes. Made as the monitor is."""
        if self._benchmarks is None and self.evaluate is not None:
            self._benchmarks = Benchmarks(self, self.evaluate)
        return self._benchmarks

    def go(self, *, self_check: bool = True) -> Path:
        """All that is left to do; returns where the model lies."""
        heads.settle(self)
        # First what may be refused: the reference's numbers can take hours.
        self.surgeon, self.gauges = Surgeon.of(self.schedule), gauges_of(self)
        with self.gauges or nullcontext():
            self.fill_reference()
            if self_check:
                self.check_laws()
            _ = self.monitor, self.benchmarks  # before resuming
            self.keeper = keeper_of(self)
            if self.resuming:
                go_back(self, checkpoints.resume(self))
            return self.train()

    def train(self) -> Path:
        """Train to the end (or a signal) and save; returns where the model lies."""
        for callback in self.callbacks:
            callback.begin(self)
        try:
            self._all_steps()
            if self.done:
                self._save_model(self.out / "model")
                if self.folder:
                    self.folder.saved(self.step)
                certify(self)
            else:
                self.say(f"stopped at step {self.step}; go on with --resume")
        finally:
            for callback in self.callbacks:  # last: a certificate is a line of metrics, too
                callback.end()
        self.accelerator.wait_for_everyone()
        return self.out / "model" if self.done else checkpoints.folder_of(self.out) / "last"

    def _all_steps(self) -> None:
        """All that are left, and what is measured before the first."""
        with self.saving.to_the_end(self.say):
            try:
                first = self.monitor.first() if self.step == 0 else {}
                if self.benchmarks:
                    first |= self.benchmarks.begin()
                if first:
                    self.log({"step": self.step, **first})
                with StoppingOnSignals(self):
                    loop.train(self)
            finally:
                if self.answers:
                    self.answers.close()

    def log(self, line: dict[str, Any]) -> None:
        """Write a line of metrics, and tell everybody who looks on."""
        if self.folder is None:
            return
        line = self.folder.log(line)  # as it was written, so that all are told the same
        self.folder.samples(line["step"], self.answers.examples() if self.answers else [])
        for callback in self.callbacks:
            callback.metrics(line)

    def _save_model(self, folder: Path) -> None:
        best = self.benchmarks.best_step if self.benchmarks else None
        if (
            best not in (None, self.step)
            and not checkpoints.Checkpoints(self.out).of(best).is_dir()
        ):
            self.say(f"the checkpoint of step {best}, the best, is gone; model/ is the last one's")
            best = self.step
        if best is not None and best != self.step:
            self._save_as_it_stands(folder.with_name("model_last"))
            if self.folder:
                checkpoints.copy_of(self.out, best, folder)
            self.say(
                f"model/ is that of step {best}, the best; model_last/ that of step {self.step}"
            )
        elif self.average and self.average.mean and best is None:
            self._save_as_it_stands(folder.with_name("model_last"))
            with self.average.in_place():
                self._save_as_it_stands(folder)
        else:
            self._save_as_it_stands(folder)

    def _save_as_it_stands(self, folder: Path) -> None:
        weights = gathered(self.policy)
        if self.folder:
            self.folder.data(self.data.table())  # of all that has arrived
            save_model(self.loaded.model, self.loaded.tokenizer, folder, weights)

    def visited(self) -> Iterator[Encoded]:
        """Every record of the run that has responses, training and held-out, once each."""
        yield from chain.from_iterable(self._planned())
        held_out = chain.from_iterable(self.data.held_out.values())
        yield from (record for record in held_out if not record.is_problem)

    def _planned(self) -> Iterator[Iterator[Encoded]]:
        schedule, steps = self.schedule, self.steps
        drawn, measured = most_drawn(schedule, steps), most_measured(schedule, steps)
        return self.feeds.planned(drawn, measured, probed(self.probe, self.optimum, steps))

    def fill_reference(self) -> None:
        """Compute the reference log-probabilities that the cache does not have yet."""
        fill(self)

    def first_records(self) -> list[Encoded]:
        """The first of every stream and feed."""
        return [record for records in self._planned() for record in islice(records, TRIED)]

    def check_laws(self) -> None:
        """The step-0 self-check on records of every stream and kind."""
        first = self.first_records()
        if self.answers:
            first += self.answers.trial(self.feeds.first(ANSWERED))
        compared = self.compared
        other = None if compared.fingerprint == self.loaded.fingerprint else compared.name
        longest = max(first, key=lambda record: record.tokens, default=None)
        verdicts = check_laws(self, sample(first), self.loaded.tokenizer, other, longest)
        for verdict in verdicts:
            found = "holds" if verdict.holds else "BROKEN"
            self.say(f"law {verdict.law}: {found} ({verdict.detail})")
        require(verdicts)

    def describe(self, plugins: Mapping[str, Any]) -> None:
        """Say how the run is made, and write into its folder what it was told and on what it runs."""
        fit = self.policy.fit
        if fit.layout == "alone" or not fit.chunked_head:
            self.say(f"model: runs the slow way ({fit.layout}): {fit.reason}")
            measured = self.probe and (self.probe.retention or self.probe.task_tokens)
            if measured and not fit.chunked_head:
                self.say("probes: no KL to the start is measured (null), for the head is not plain")
        elif fit.reason:
            self.say(f"model: runs as a forest {fit.reason}")
        computed = torch.bfloat16 if self.options.bf16 else self.policy.dtype
        if slow := slow_precision(computed, self.accelerator.device.type):
            self.say(f"model: {slow}")
        if self.masters.exact:
            held = str(self.policy.dtype).removeprefix("torch.")
            self.say(
                f"model: runs and is saved in {held}; its trained weights have float32 masters"
            )
        self.say(f"{self.plan.describe()}; {self.options.row_told}")
        if self.folder is None:
            return
        _require_room(self.out, self.loaded.model)
        table = self.data.table()
        if not self.resuming:
            facts = {
                "model": self.loaded.fingerprint,
                "reference": None if self.reference is None else self.compared.fingerprint,
                "steps": self.steps,
                "seed": self.options.seed,
                "data": digest_of(table),
            }
            self.folder.begin(
                self.changes.recipe, facts | ({"plugins": plugins} if plugins else {})
            )
        else:
            self.folder.saved(None)
        self.folder.data(table)


def _require_room(folder: Path, model: Any) -> None:
    """Raise `DiskFullError` where the disk cannot even hold the trained model."""
    saved = (p for p in model.parameters() if p.requires_grad)
    require_room(folder, sum(p.numel() * p.element_size() for p in saved), "the trained model")
