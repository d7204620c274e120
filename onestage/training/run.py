"""A run: a recipe, a run folder, and everything between them.

Ending a run from outside: a scheduler's SIGTERM, or Ctrl-C.

The reference of a run: which model it is, and its log-probabilities of the run's records.

By default it is the model that the run starts from. It may be another (`reference:`), as where a
joint run starts from a base model and is compared with a fine-tuned one (arXiv 2410.15483): that model
is loaded beside the policy, computes what the cache lacks, and is dropped before step 0.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from shutil import disk_usage
from types import FrameType
from typing import Any

import torch
from accelerate.utils import release_memory

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.models import (
    Loaded,
    Policy,
    check_reference,
    check_trained,
    check_vocabulary,
    config_of,
    load,
    reference_of,
    tokenizer_of,
)
from onestage.models.reference import ReferenceCache
from onestage.models.save import save_model
from onestage.models.start import needs_folder, prepare
from onestage.rollout import build as rollout
from onestage.rollout.stock import TRIED
from onestage.runfolder import OutputError, RunFolder, Say, digest_of, silent
from onestage.training.build import (
    make_accelerator,
    make_callbacks,
    make_run,
    wants_reference,
)
from onestage.training.callbacks import Callback
from onestage.training.checkpoints import CheckpointError, Checkpoints, read
from onestage.training.evaluate import measure
from onestage.training.loop import Hooks, Run, train
from onestage.training.monitor import Monitor, probed
from onestage.training.optimum import with_optimum
from onestage.training.plan import choices, make_plan, most_drawn, most_measured, schedule_of
from onestage.training.read import cache_folder, judge, read_data
from onestage.training.recipe import Recipe
from onestage.training.selfcheck import check_laws, require, sample


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    self_check: bool = True,
    say: Say = print,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Do what a recipe says, in the run folder `out`; returns the folder of the trained model.

    Everything that can be refused is refused before the first step. Stopped by a signal, it saves a
    checkpoint and returns where that lies.
    """
    session = Session(complete(recipe, say), out, resume=resume, say=say, callbacks=callbacks)
    saved = session.go(self_check=self_check)
    session.accelerator.state.destroy_process_group()
    return saved


def complete(recipe: Recipe, say: Say) -> Recipe:
    """The recipe with what it asks to be measured before the run: f* of the terms."""

    def alone(one: Recipe, folder: Path) -> Path:
        return Session(one, folder, say=silent).go(self_check=False)

    return with_optimum(recipe, alone, say)


class Session:
    """The objects of one run, made and checked but not yet trained.

    Making one reads the data, judges it, loads the model, and writes the run folder's description.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        resume: bool = False,
        say: Say = print,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.recipe, self.out = recipe, out
        self.accelerator = make_accelerator(recipe.train)
        self.main = self.accelerator.is_main_process
        self.callbacks = [*callbacks, *make_callbacks(recipe.train)] if self.main else []
        self.say = say if self.main else silent
        self.logbook = RunFolder(out, resume=resume) if self.main else None
        self._monitor: Monitor | None = None
        self.checkpoints = Checkpoints(out, recipe.train.save_total_limit)
        if recipe.stages:
            raise RecipeError("a recipe with stages is several runs: onestage.run_stages does them")
        self.resuming = resume
        choices(recipe)  # a mistyped objective or schedule is refused before data are read
        schedule_of(recipe)
        self.problems = rollout.problems_of(recipe.data)
        check_trained(recipe.model)
        self.tokenizer, config = tokenizer_of(recipe.model), config_of(recipe.model)
        check_vocabulary(self.tokenizer, config)
        reference = reference_of(recipe.model, recipe.reference)
        if reference is not None:
            check_reference(reference, self.tokenizer, config)
        with self.accelerator.main_process_first():
            self.data = read_data(recipe, self.tokenizer, self.say)
        judge(recipe, self.data)
        rollout.check(self.problems, self.data.train, self.data.held_out)
        self.plan = make_plan(recipe, self.data)
        self.loaded = self._load()
        needed = "reference" in self.plan.terms.needs
        self.other = load_other(recipe, self.accelerator.device, self.tokenizer, needed=needed)
        self.reference = (self.other or self.loaded).fingerprint
        cache = cache_of(recipe, self.reference) if needed else None
        other = self.other.policy if self.other else None
        self.run = make_run(
            recipe,
            self.problems,
            self.accelerator,
            self.loaded,
            self.plan,
            cache,
            other,
            self.say,
            out,
        )
        if self.main:
            _require_room(out, self.loaded.model)
        self._describe(resume)

    def _load(self) -> Loaded:
        source, folder, seed = self.recipe.model, self.out / "start", self.recipe.train.seed
        if needs_folder(source):
            with self.accelerator.main_process_first():
                keep = self.resuming or not self.main
                source = prepare(source, self.tokenizer, folder, seed, keep=keep)
        loaded = load(source, self.accelerator.device, self.tokenizer, seed)
        for note in loaded.notes:
            self.say(f"model: {note}")
        return loaded

    def _describe(self, resume: bool) -> None:
        fit = self.run.policy.fit
        if fit.layout == "alone" or not fit.chunked_head:
            self.say(f"model: runs the slow way ({fit.layout}): {fit.reason}")
        self.say(self.plan.describe())
        if self.logbook is None:
            return
        table = self.data.table()
        if not resume:
            self.logbook.begin(
                self.recipe.model_dump(mode="json", exclude_defaults=True),
                {
                    "model": self.loaded.fingerprint,
                    "reference": self.reference if self.run.reference is not None else None,
                    "steps": self.run.steps,
                    "seed": self.recipe.train.seed,
                    "data": digest_of(table),
                },
            )
        self.logbook.data(table)

    def go(self, *, self_check: bool = True) -> Path:
        """All that is left to do; returns where the model lies."""
        self.fill_reference()
        if self_check:
            self.check_laws()
        self.monitor()  # told against the model as it starts, so before resuming
        if self.resuming:
            self.resume()
        return self.train()

    def _contents(self) -> dict[str, str]:
        """What each training stream was encoded from: the name of its store."""
        return {name: store.folder.name for name, store in self.data.train.items()}

    def visited(self) -> Iterator[Encoded]:
        """Every record of the run, training and held-out, once each."""
        yield from chain.from_iterable(self._planned())
        yield from self.held_out()

    def _planned(self) -> Iterator[Iterator[Encoded]]:
        schedule, steps = self.run.schedule, self.run.steps
        draws, measured = most_drawn(schedule, steps), most_measured(schedule, steps)
        probes = probed(self.recipe.probe, self.recipe.optimum, steps)
        return self.run.feeds.planned(draws, measured, probes)

    def held_out(self) -> Iterator[Encoded]:
        """The records of the evaluation losses that have responses."""
        return (r for r in chain.from_iterable(self.data.held_out.values()) if not r.is_problem)

    def fill_reference(self) -> None:
        """Compute the reference log-probabilities that the cache does not have yet.

        Another model that is the reference is dropped here where it has said all it will be asked.
        """
        policy = self.other.policy if self.other else self.run.policy
        fill_cache(self.run, self.visited(), policy, self.say)
        if self.other and not wants_reference(self.problems, self.plan.terms):
            del policy
            self.other = None
            release_memory()  # a device keeps what was freed unless told

    def check_laws(self) -> None:
        """The step-0 self-check on records of every stream and kind."""
        first = [record for records in self._planned() for record in islice(records, 64)]
        other = None if self.reference == self.loaded.fingerprint else self.recipe.reference
        if self.run.answers:
            first += self.run.answers.trial(self.run.feeds.first(TRIED))
        verdicts = check_laws(self.run, sample(first), self.tokenizer, other)
        for verdict in verdicts:
            found = "holds" if verdict.holds else "BROKEN"
            self.say(f"law {verdict.law}: {found} ({verdict.detail})")
        require(verdicts)

    def monitor(self) -> Monitor:
        """What watches the run; made at the first call, which must be before the first step."""
        if self._monitor is None:
            self._monitor = Monitor(
                self.run,
                self.data,
                self.say,
                probe=self.recipe.probe,
                guards=self.recipe.guard,
                optimum=self.recipe.optimum,
            )
        return self._monitor

    def resume(self) -> None:
        """Put the run where its newest checkpoint left it."""
        run, newest = self.run, self.checkpoints.newest()
        training, progress = read(newest, run.policy.model)
        if progress["fingerprint"] != self.loaded.fingerprint:
            raise CheckpointError(
                f"checkpoint {newest} is of a run that started from model {progress['fingerprint']}, "
                f"but the recipe's model is {self.loaded.fingerprint}"
            )
        if progress["reference"] != self.reference:
            raise CheckpointError(
                f"checkpoint {newest} is of a run whose reference was {progress['reference']}, "
                f"but the recipe's is {self.reference}"
            )
        before, now = progress["data"], self._contents()
        if before != now:
            changed = sorted(k for k in before | now if before.get(k) != now.get(k))
            raise CheckpointError(
                f"checkpoint {newest} was made with other data: {changed} differ in content, limits "
                "or tokenizer, so the run could not go on where it stopped"
            )
        run.optimizer.load_state_dict(training["optimizer"])
        run.learning_rate.load_state_dict(training["learning_rate"])
        run.feeds.restore(progress["feeds"])
        if run.answers:
            run.answers.restore(progress["feeds"], training.get("waiting", []))
        if run.policy.value_head is not None:
            run.policy.value_head.load_state_dict(training["value_head"])
        run.schedule.restore(progress["schedule"])
        run.clipping.restore(progress["clipping"])
        if run.average:
            run.average.restore(training["average"])
        run.terms.state.update(progress["state"])
        run.step, run.tokens = progress["step"], progress["tokens"]
        run.best = math.inf if progress["best"] is None else progress["best"]
        if self.logbook:
            self.logbook.rewind(run.step)
        self.say(f"resumed after step {run.step} from {newest}")

    def train(self) -> Path:
        """Train to the end (or a signal) and save; returns where the model lies."""
        monitor = self.monitor()
        hooks = Hooks(
            log=self._log,
            measure=lambda names: measure(self.run, names),
            evaluate=monitor.evaluate,
            probe=monitor.probe,
            save=self._save,
            step=self._step,
        )
        for callback in self.callbacks:
            callback.begin(self.run)
        first = monitor.first() if self.run.step == 0 else {}
        if first:
            self._log({"step": 0, **first})
        try:
            with StoppingOnSignals(self.run, self.say):
                train(self.run, hooks)
        finally:
            for callback in self.callbacks:
                callback.end()
            if self.run.answers:
                self.run.answers.close()
        saved = self.out / "model"
        if not self.run.done:
            self.say(f"stopped after step {self.run.step}; go on with --resume")
            saved = self.checkpoints.folder / "last"
        elif self.main:
            self._save_model(saved)
        self.accelerator.wait_for_everyone()
        return saved

    def _save_model(self, folder: Path) -> None:
        if self.run.average and self.run.average.mean:
            save_model(self.loaded.model, self.tokenizer, folder.with_name("model_last"))
            with self.run.average.in_place():
                save_model(self.loaded.model, self.tokenizer, folder)
        else:
            save_model(self.loaded.model, self.tokenizer, folder)

    def _log(self, line: dict[str, Any]) -> None:
        if self.logbook:
            self.logbook.log(line)
            examples = self.run.answers.examples() if self.run.answers else []
            self.logbook.samples(line["step"], examples)
        for callback in self.callbacks:
            callback.metrics(line)

    def _step(self, loss: float) -> None:
        for callback in self.callbacks:
            callback.step(self.run, loss)

    def _save(self, best: bool) -> None:
        run = self.run
        if not self.main:
            return
        progress = {
            "fingerprint": self.loaded.fingerprint,
            "reference": self.reference,
            "data": self._contents(),
            "feeds": run.feeds.state() | (run.answers.state() if run.answers else {}),
            "schedule": run.schedule.state(),
            "clipping": run.clipping.state(),
            "state": run.terms.state,
            "tokens": run.tokens,
            "best": run.best if math.isfinite(run.best) else None,
        }
        training = {
            "optimizer": run.optimizer.state_dict(),
            "learning_rate": run.learning_rate.state_dict(),
        }
        if run.average:
            training["average"] = run.average.state()
        if run.policy.value_head is not None:
            training["value_head"] = run.policy.value_head.state_dict()
        waiting = run.answers.contents() if run.answers else []
        if waiting:
            training["waiting"] = waiting
        self.checkpoints.save(
            run.step, self.loaded.model, self.tokenizer, training, progress, best=best
        )


def _require_room(folder: Path, model: Any) -> None:
    """Raise `OutputError` where the disk cannot even hold the trained model."""
    saved = (p for p in model.parameters() if p.requires_grad)
    needed, free = sum(p.numel() * p.element_size() for p in saved), disk_usage(folder).free
    if free < 1.1 * needed:
        raise OutputError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB free, the trained model needs "
            f"{needed / 1e6:,.0f} MB; choose another --out or make room"
        )


class StoppingOnSignals:
    """SIGTERM and the first SIGINT end the run after the step under way, with a checkpoint."""

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._stop)
        except ValueError:  # not the main thread: the program around us handles signals
            self.before = {}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.say(f"{signal.Signals(number).name}: stopping after this step")
        self.run.stop = True
        signal.signal(number, self.before[number])

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Other:
    """A reference that is not the model the run starts from."""

    name: str
    fingerprint: str
    policy: Policy


def load_other(recipe: Recipe, device: torch.device, tokenizer: Any, needed: bool) -> Other | None:
    """Load the other reference, if the recipe names one. `needed`: whether a loss compares with it.

    Raises `RecipeError` for a reference that no objective would use.
    """
    source = reference_of(recipe.model, recipe.reference)
    if source is None:
        return None
    if not needed:
        raise RecipeError(f"reference {source.name}: no objective of the run uses a reference")
    loaded = load(source, device, tokenizer, recipe.train.seed)
    return Other(str(source.name), loaded.fingerprint, Policy(loaded.model))


def cache_of(recipe: Recipe, fingerprint: str) -> ReferenceCache:
    """The cached log-probabilities of a model; autocast gives other ones than full precision."""
    suffix = "-autocast" if recipe.train.bf16 else ""
    return ReferenceCache(cache_folder(recipe) / "reference", fingerprint + suffix)


def fill_cache(run: Run, records: Iterable[Encoded], policy: Policy, say: Say) -> None:
    """Compute with `policy` the reference log-probabilities that the run's cache does not have yet."""
    reference = run.reference
    if reference is None:
        return
    wanted = (path for r in records if "reference" in run.terms.needs_of(r) for path in r.paths)
    here = {"rank": run.accelerator.process_index, "ranks": run.accelerator.num_processes}
    with run.accelerator.autocast():
        found, computed = reference.fill(policy, wanted, run.tokens_per_row, **here)
    run.accelerator.wait_for_everyone()
    reference.reload()
    say(
        f"reference: {found:,} paths found in the cache, {computed:,} computed "
        f"({reference.folder.name})"
    )
