"""A recipe carried out: its one run, or its stages one after another.

Each stage is an ordinary run, with an ordinary recipe (`stages` makes it), in a folder of its own.
`stages.json` is the ledger: what each was told, and whether it is done.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils import release_memory

from onestage import models
from onestage.config import RecipeError, read_yaml
from onestage.models import Model
from onestage.models.lent import lent
from onestage.models.start import prepare
from onestage.runfolder import (
    EVALUATIONS,
    OutputError,
    Say,
    digest_of,
    read_json,
    silent,
    taken,
    write_json,
    write_text,
)
from onestage.runfolder.following import begun, finished
from onestage.training.agreeing import all_do, by_main, main_first, require_same, tell_all, told
from onestage.training.build import Draft, build
from onestage.training.callbacks import Callback
from onestage.training.checkpoints import Checkpoints
from onestage.training.devices import arranged
from onestage.training.distributed import of_launcher
from onestage.training.first_stage import FirstStage
from onestage.training.lock import held, holder_of, require_seen
from onestage.training.optimum import complete
from onestage.training.parts import Given, make_accelerator
from onestage.training.plan import stages_of
from onestage.training.resuming import told_apart
from onestage.training.same_run import CheckpointError
from onestage.training.signals import sigterm_put_back
from onestage.training.stages import StageRun
from onestage.training.stopped import among_ranks
from onestage.training.whole import told_what_is_whole


def carry_out(
    recipe: Any,
    out: Path,
    *,
    resume: bool = False,
    allow_changed: Sequence[str] = (),
    self_check: bool = True,
    say: Say = print,
    callbacks: Sequence[Callback] = (),
    given: Given | None = None,
    first_stages: Path | None = None,
) -> Path:
    """Do what a recipe says, in the run folder `out`; returns the folder of the trained model.

    Everything that can be refused is refused before the first step, of all stages before the first of
    them (but for what only a stage's model can tell). Stopped by a signal, it saves a checkpoint and
    returns where that lies; `resume` goes on from there, with the recipe it was begun with but for the
    keys that `allow_changed` names. `first_stages`: a folder where the first stage of a chain is looked
    for, and kept for others, in one process (`first_stage`).
    """
    runs = stages_of(recipe, out)
    if given and (recipe.stages or (recipe.optimum and recipe.optimum.steps)):
        raise RecipeError(
            "a model that is loaded already is trained in place, once: for stages, and for an f* that "
            "is measured by runs of its own, save it and name its folder"
        )

    accelerator = make_accelerator(recipe.train, recipe.distributed)
    main = accelerator.is_main_process
    say = say if main else silent

    def go(stage: StageRun, resume: bool) -> Path:
        resume = resume and _goes_on(stage.folder, accelerator, say)
        now = _completed(stage, accelerator, say)
        about = stage if recipe.stages else None
        run = build(
            now,
            stage.folder,
            stage=about,
            resume=resume,
            allow_changed=allow_changed,
            say=say,
            callbacks=callbacks,
            given=given,
        )
        return run.go(self_check=self_check)

    if allow_changed and not resume:
        raise RecipeError("--allow-changed is of a run that goes on: add --resume")
    with ExitStack() as around:
        if given:
            around.enter_context(lent(given.model, given.tokenizer))
        around.enter_context(sigterm_put_back())
        around.enter_context(among_ranks(accelerator))
        if accelerator.num_processes > 1:
            require_same(accelerator, told(recipe))
            lying = arranged(recipe.distributed, os.environ)
            require_same(
                accelerator, lying, "the same launcher's file, and each node as many ranks"
            )
        if resume:
            _require_begun(out, runs, accelerator)
        around.enter_context(told_what_is_whole(out))
        # All have looked before the main process writes.
        by_main(accelerator, lambda: around.enter_context(held(out, say)))
        if of_launcher(recipe.distributed, os.environ).sharding != "none":
            _, holders = tell_all(accelerator, lambda: None, lambda _: holder_of(out))
            all_do(accelerator, lambda: require_seen(out, holders[0]))
        if not recipe.stages:
            saved = go(runs[0], resume)
        else:
            alone = accelerator.num_processes == 1 and not callbacks
            once = first_stages if alone else None
            saved = _Stages(recipe.model, runs, out, accelerator, say, once).go(
                go, recipe.model_dump(mode="json", exclude_defaults=True), resume
            )
    if accelerator.num_processes > 1:
        # What reduces gradients holds on to the group, and a rank whose group ends while another talks,
        # or before those are gone, may abort at its very end (seen once: SIGABRT after the last line).
        gc.collect()
        accelerator.wait_for_everyone()
    accelerator.state.destroy_process_group()
    return saved


def _require_begun(out: Path, runs: Sequence[StageRun], accelerator: Any) -> None:
    """Raise `CheckpointError` where nothing was begun in a folder, and `RecipeError` where ranks see
    other things there: then it is not one folder."""
    seen = {f"list of what was saved in {run.folder}": _saved(run.folder) for run in runs}
    require_same(accelerator, seen, "an --out that lies on one disk, which all nodes see")
    if not begun(out):
        found = (
            "no checkpoint, and no run, in" if runs[0].folder == out else "no stages were begun in"
        )
        raise CheckpointError(f"--resume: {found} {out}; leave --resume out to begin")


def _saved(folder: Path) -> list[str]:
    """Checkpoints, and the model of a run that is done."""
    done = [folder / "model"] if (folder / "model").is_dir() else []
    return [one.name for one in Checkpoints(folder).all() + done]


def _goes_on(folder: Path, accelerator: Any, say: Say) -> bool:
    """Whether the run in a folder has a checkpoint to go on from; what one that has none left there is
    removed, so that it starts over. Raises `CheckpointError` where it is done."""
    if (folder / "stages.json").exists():
        raise CheckpointError(f"--resume: {folder} holds stages, and the recipe has none")
    saved, trained, started = bool(Checkpoints(folder).all()), folder / "model", begun(folder)
    done = finished(folder)
    accelerator.wait_for_everyone()  # all have looked before anything is removed
    if saved:
        return True
    if done:
        gone = "" if trained.is_dir() else ", or was: it has been moved or removed since"
        raise CheckpointError(
            f"--resume: no checkpoint in {folder}, where the run is done: its model is {trained}{gone}; "
            "choose another --out to train again"
        )
    if started and accelerator.is_main_process:
        say(f"{folder}: the run was ended before its first checkpoint, so it starts over")
        for name in ("metrics.jsonl", "samples.jsonl", EVALUATIONS):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(folder / "start", ignore_errors=True)
    accelerator.wait_for_everyone()
    return False


def _completed(stage: StageRun, accelerator: Any, say: Say) -> Any:
    """The stage's recipe with what it asks to be measured before the run: f* of the terms."""
    optimum = stage.recipe.optimum
    if optimum is None or optimum.steps is None:
        return stage.recipe
    draft = Draft(stage.recipe, stage)
    draft.read(warn=say, accelerator=accelerator)
    draft.refuse()

    def alone(recipe: Any, folder: Path) -> Path:
        return build(recipe, folder, say=silent).go(self_check=False)

    try:
        return complete(draft, alone, say)
    finally:
        draft.close()


class _Stages:
    """The stages of a recipe, done in order; those that are done are found again."""

    def __init__(
        self,
        model: Model,
        runs: Sequence[StageRun],
        out: Path,
        accelerator: Any,
        say: Say,
        first_stages: Path | None,
    ) -> None:
        self.model, self.runs, self.out, self.accelerator = model, runs, out, accelerator
        self.main = accelerator.is_main_process
        self.say: Say = say if self.main else silent
        self.first_stages = first_stages

    def go(
        self, do: Callable[[StageRun, bool], Path], told: Mapping[str, Any], resume: bool
    ) -> Path:
        """All that are left; returns the model of the last, or the checkpoint at which one was
        stopped."""
        by_main(self.accelerator, lambda: self._require_folder(resume))
        found = drafts(self.model, self.runs, warn=self.say, accelerator=self.accelerator)
        for draft in found:
            all_do(self.accelerator, draft.refuse)
            draft.close()
        kept: FirstStage | None = None
        if self.first_stages and self.model.config is None:
            kept = FirstStage.of(found[0], self.first_stages)
        by_main(self.accelerator, lambda: self._begin(told))
        if self.model.config is not None:
            keep, seed = resume or not self.main, self.runs[0].recipe.train.seed
            where = (self.model, models.tokenizer_of(self.model), self.out / "start")
            main_first(self.accelerator, partial(prepare, *where, keep=keep, seed=seed))
        for number, stage in enumerate(self.runs, 1):
            self.say(f"stage {number} of {len(self.runs)}, {stage.name}")
            if resume and (stage.folder / "model").is_dir():
                self.say("done before")
                if stage.recipe.keep and not (stage.folder / "keep.json").is_file():
                    self.say("its bounds have no certificate: it was interrupted before that")
                continue
            first = kept if number == 1 else None
            if first and first.take(stage.folder, self.say):
                self._record()
                continue
            new, began = not stage.folder.exists(), time.perf_counter()
            reached = do(stage, resume)
            # Of this stage's model, before the next one is loaded.
            release_memory()
            if reached != stage.folder / "model":
                return reached
            if first and new:
                first.keep(stage.folder, time.perf_counter() - began, self.say)
            by_main(self.accelerator, self._record)
        made = self.runs[-1].folder / "model"
        by_main(self.accelerator, lambda: _link(self.out / "model", made))
        return self.out / "model"

    def _begin(self, told: Mapping[str, Any]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / "recipe.yaml", yaml.safe_dump(dict(told), sort_keys=False))
        self._record()

    def _require_folder(self, resume: bool) -> None:
        """Raise where the folder holds another run, or stages that are not these."""
        out = self.out
        if not resume:
            held = taken(out)
            if held:
                raise OutputError(held)
            return
        now, file = self._facts(), out / "stages.json"
        if not file.is_file() and taken(out):
            raise CheckpointError(f"--resume: no stages were begun in {out}, which holds a run")
        for number, before in enumerate(read_json(file) if file.is_file() else ()):
            if not before["done"]:
                continue
            changed = "it is another stage, or none"
            if number < len(now) and now[number]["folder"] == before["folder"]:
                same = now[number]["recipe"] == before["recipe"]
                changed = "" if same else self._changed(self.runs[number])
            if changed:
                raise CheckpointError(
                    f"stage {before['name']} in {out} is done, but the recipe says something else of "
                    f"it now ({changed}); put it back, or choose another --out"
                )

    def _changed(self, stage: StageRun) -> str:
        """What a done stage would do otherwise today, in a line."""
        told = stage.recipe.model_dump(mode="json", exclude_defaults=True)
        was = read_yaml(stage.folder / "recipe.yaml", "recipe", told)
        # Its f* were measured for it.
        return told_apart(
            *({k: v for k, v in one.items() if k != "optimum"} for one in (was, told))
        )

    def _facts(self) -> list[dict[str, Any]]:
        """What `stages.json` says; a recipe's digest does not depend on where the folder lies."""
        facts = []
        for stage in self.runs:
            told = stage.recipe.model_dump_json(exclude={"cache_dir", "description"})
            facts.append(
                {
                    "name": stage.name,
                    "folder": stage.folder.name,
                    "recipe": digest_of(told.replace(str(self.out.resolve()), ".")),
                    "done": (stage.folder / "model").is_dir(),
                }
            )
        return facts

    def _record(self) -> None:
        write_json(self.out / "stages.json", self._facts())


def drafts(
    model: Model,
    runs: Sequence[StageRun],
    say: Say = silent,
    warn: Say | None = None,
    accelerator: Any = None,
) -> list[Draft]:
    """The drafts of some stages, data included; errors on their lists name the stage. `model`: the whole
    recipe's; `warn`, `accelerator`: as for `Draft.read`."""
    found = []
    for stage in runs:
        draft = Draft(stage.recipe, stage, first=model)
        draft.read(say, warn, accelerator)
        draft.conflicts = [RecipeError(f"stages.{stage.name}: {one}") for one in draft.conflicts]
        found.append(draft)
    return found


def _link(link: Path, target: Path) -> None:
    """Point `link` at a folder beside it, whatever it pointed to before."""
    draft = link.with_name(f".{link.name}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, link.parent.resolve()))
    os.replace(draft, link)
