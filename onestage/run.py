"""A run: a recipe, a run folder, and everything between them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from shutil import disk_usage
from typing import Any

from accelerate.utils import release_memory

from onestage.assembly import make_run
from onestage.checkpoints import CheckpointError, Checkpoints, read
from onestage.evaluation import measure
from onestage.logbook import Logbook, OutputError, digest_of
from onestage.lookout import Lookout, probes_of
from onestage.online import check_rewards, make_streams, wants_reference
from onestage.optimum import with_optimum
from onestage.planning import choices, make_plan, schedule_of
from onestage.policy.loading import (
    Loaded,
    check_trained,
    check_vocabulary,
    load,
    load_config,
    load_tokenizer,
)
from onestage.policy.saving import save_model
from onestage.policy.starting import needs_folder, started
from onestage.recipe import Recipe, RecipeError
from onestage.references import cache_of, check_reference, fill_cache, load_other
from onestage.selfcheck import check_laws, require, sample
from onestage.signals import StoppingOnSignals
from onestage.streams.encoded import Encoded
from onestage.training import Hooks, train
from onestage.watcher import Watcher
from onestage.wiring import (
    Say,
    judge,
    make_accelerator,
    model_source,
    read_data,
    silent,
)


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    self_check: bool = True,
    say: Say = print,
    watcher: Watcher | None = None,
) -> Path:
    """Do what a recipe says, in the run folder `out`; returns the folder of the trained model.

    Everything that can be refused is refused before the first step. Stopped by a signal, it saves a
    checkpoint and returns where that lies.
    """
    session = Session(complete(recipe, say), out, resume=resume, say=say, watcher=watcher)
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
        watcher: Watcher | None = None,
    ) -> None:
        self.recipe, self.out = recipe, out
        self.watcher = watcher or Watcher()
        self.accelerator = make_accelerator(recipe.train, out)
        self.main = self.accelerator.is_main_process
        self.say = say if self.main else silent
        self.logbook = Logbook(out, resume=resume) if self.main else None
        self._lookout: Lookout | None = None
        self.checkpoints = Checkpoints(out, recipe.train.save_total_limit)
        if recipe.stages:
            raise RecipeError("a recipe with stages is several runs: onestage.run_stages does them")
        self.resuming = resume
        choices(recipe)  # a mistyped objective or schedule is refused before data are read
        schedule_of(recipe)
        self.streams = make_streams(recipe)
        source = model_source(recipe)
        check_trained(source)
        self.tokenizer, config = load_tokenizer(source), load_config(source)
        check_vocabulary(self.tokenizer, config)
        check_reference(recipe, self.tokenizer, config)
        with self.accelerator.main_process_first():
            self.data = read_data(recipe, self.tokenizer, self.say)
        judge(recipe, self.data)
        check_rewards(self.streams, self.data)
        self.plan = make_plan(recipe, self.data)
        self.loaded = self._load()
        needed = self.plan.terms.needs_reference
        self.other = load_other(recipe, self.accelerator.device, self.tokenizer, needed=needed)
        self.reference = (self.other or self.loaded).fingerprint
        cache = cache_of(recipe, self.reference) if needed else None
        other = self.other.policy if self.other else None
        self.run = make_run(
            recipe, self.streams, self.accelerator, self.loaded, self.plan, cache, other, self.say
        )
        if self.main:
            _require_room(out, self.loaded.model)
        self._describe(resume)

    def _load(self) -> Loaded:
        source, folder = model_source(self.recipe), self.out / "start"
        if needs_folder(source):
            with self.accelerator.main_process_first():
                keep = self.resuming or not self.main
                source = started(source, self.tokenizer, folder, keep=keep)
        loaded = load(source, self.accelerator.device, self.tokenizer)
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
        self.lookout()  # told against the model as it starts, so before resuming
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
        draws, looks = schedule.draws(steps), schedule.looks(steps)
        if any(guard.then == "raise" for guard in self.recipe.guard):
            draws = dict.fromkeys(draws, steps)  # nobody knows how often a raised term is drawn
        return self.run.feeds.planned(draws, looks, probes_of(self.recipe, steps))

    def held_out(self) -> Iterator[Encoded]:
        """The records of the evaluation losses that have responses."""
        return (r for r in chain.from_iterable(self.data.held_out.values()) if not r.asks)

    def fill_reference(self) -> None:
        """Compute the reference log-probabilities that the cache does not have yet.

        Another model that is the reference is dropped here where it has said all it will be asked.
        """
        policy = self.other.policy if self.other else self.run.policy
        fill_cache(self.run, self.visited(), policy, self.say)
        if self.other and not wants_reference(self.recipe, self.plan.terms):
            del policy
            self.other = None
            release_memory()  # a device keeps what was freed unless told

    def check_laws(self) -> None:
        """The step-0 self-check on records of every stream and kind."""
        first = [record for records in self._planned() for record in islice(records, 64)]
        other = None if self.reference == self.loaded.fingerprint else self.recipe.reference
        first += self.run.feeds.trial()
        verdicts = check_laws(self.run, sample(first), self.tokenizer, other)
        for verdict in verdicts:
            found = "holds" if verdict.holds else "BROKEN"
            self.say(f"law {verdict.law}: {found} ({verdict.detail})")
        require(verdicts)

    def lookout(self) -> Lookout:
        """What watches the run; made at the first call, which must be before the first step."""
        if self._lookout is None:
            self._lookout = Lookout(self.recipe, self.run, self.data, self.say)
        return self._lookout

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
        run.feeds.refill(training.get("waiting", []))
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
        options = self.recipe.model_dump(mode="json", include={"objective", "train"})
        self.accelerator.init_trackers("onestage", {"recipe": str(options)})
        lookout = self.lookout()
        hooks = Hooks(
            log=self._log,
            measure=lambda names: measure(self.run, names),
            evaluate=lookout.evaluate,
            probe=lookout.probe,
            save=self._save,
            progress=lambda loss: self.watcher.step(self.run, loss),
        )
        self.watcher.begin(self.run)
        first = lookout.first() if self.run.step == 0 else {}
        if first:
            self._log({"step": 0, **first})
        try:
            with StoppingOnSignals(self.run, self.say):
                train(self.run, hooks)
        finally:
            self.watcher.end()
            self.run.feeds.close()
        saved = self.out / "model"
        if not self.run.done:
            self.say(f"stopped after step {self.run.step}; go on with --resume")
            saved = self.checkpoints.folder / "last"
        elif self.main:
            self._save_model(saved)
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:
            tracker.finish()
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
            self.logbook.samples(line["step"], self.run.feeds.examples())
            self.watcher.line(line)
        numbers = {key: value for key, value in line.items() if key != "step"}
        self.accelerator.log(numbers, step=line["step"])

    def _save(self, best: bool) -> None:
        run = self.run
        if not self.main:
            return
        progress = {
            "fingerprint": self.loaded.fingerprint,
            "reference": self.reference,
            "data": self._contents(),
            "feeds": run.feeds.state(),
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
        waiting = run.feeds.waiting_records()
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
