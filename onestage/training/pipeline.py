"""Stages: runs one after another, each from the model that the one before leaves.

Each stage is an ordinary run, with an ordinary recipe (`stage_plan` makes it), in a folder of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from accelerate.utils import release_memory
from torch import nn

from onestage.config import RecipeError
from onestage.data.kinds import KINDS
from onestage.models import (
    adapter_base,
    check_lora,
    check_reference,
    check_trained,
    check_vocabulary,
    config_of,
    reference_of,
    tokenizer_of,
)
from onestage.models.start import prepare
from onestage.rollout import build as rollout
from onestage.rollout.problems import Problems
from onestage.runfolder import (
    OutputError,
    Say,
    digest_of,
    read_json,
    silent,
    write_json,
    write_text,
)
from onestage.training.build import make_accelerator
from onestage.training.callbacks import Callback
from onestage.training.checkpoints import CheckpointError, Checkpoints
from onestage.training.optimizer import make_optimizer
from onestage.training.plan import choices, make_plan, schedule_of
from onestage.training.read import Data, judge, read_data
from onestage.training.recipe import Recipe
from onestage.training.run import Session, complete
from onestage.training.stages import Stage, plan


def check_stage(stage: Stage, data: Data, problems: Mapping[str, Problems]) -> None:
    """Raise `ValueError` for what a stage's data and objectives do not allow."""
    recipe = stage.recipe
    judge(recipe, data)
    plan = make_plan(recipe, data)
    terms = plan.terms
    used = {name for pair in terms.term_of for name in pair}
    for key in stage.own_map:
        if key not in used:
            what = "kind" if key in KINDS else "stream"
            raise RecipeError(
                f"objective.{key}: the data of this stage ({', '.join(data.train)}) hold no record "
                f"of that {what}"
            )
    if "reference" in terms.needs and not stage.says_reference:
        needing = sorted(name for name, o in terms.objectives.items() if "reference" in o.needs)
        raise RecipeError(
            f"objective {', '.join(needing)} compares with a reference; say which. reference: start "
            "(this stage's start model), first (the recipe's), or an earlier stage's name"
        )
    if "reference" not in terms.needs and recipe.reference != "start":
        raise RecipeError("reference: no objective of this stage uses a reference")
    stand_in: Any = SimpleNamespace(model=nn.Linear(1, 1), value_head=None)
    make_optimizer(recipe.train, stand_in, plan.steps)
    rollout.check(problems, data.train, data.held_out)


def read_stages(recipe: Recipe, stages: list[Stage], out: Path) -> None:
    """Check every stage, data included, before the first is begun. Raises `RecipeError`."""
    tokenizer, config = tokenizer_of(recipe.model), config_of(recipe.model)
    check_vocabulary(tokenizer, config)
    check_trained(stages[0].recipe.model if recipe.model.name else recipe.model)
    for stage in stages:
        try:
            choices(stage.recipe)
            schedule_of(stage.recipe)
            check_lora(stage.recipe.model, config)
            reference = reference_of(stage.recipe.model, stage.recipe.reference)
            if reference and not Path(stage.recipe.reference).is_relative_to(out.resolve()):
                check_reference(reference, tokenizer, config)
            with make_accelerator(stage.recipe.train).main_process_first():
                data = read_data(stage.recipe, tokenizer, silent)
            problems = rollout.problems_of(stage.recipe.data)
            try:
                check_stage(stage, data, problems)
            finally:
                rollout.close(problems)
        except ValueError as error:
            raise RecipeError(f"stages.{stage.name}: {error}") from error


def run_stages(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    self_check: bool = True,
    say: Say = print,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Do all stages of a recipe, in folders of `out`; returns the folder of the last one's model.

    Everything that can be refused without a stage's model is refused before the first one begins.
    Stopped by a signal, it returns where the checkpoint lies; `resume` skips what is done.
    """
    stages = plan(recipe, out, from_adapter=adapter_base(recipe.model) is not None)
    accelerator = make_accelerator(recipe.train)
    main = accelerator.is_main_process
    tell: Say = say if main else silent
    if main:
        _require_folder(out, stages, resume)
    read_stages(recipe, stages, out)
    if main:
        out.mkdir(parents=True, exist_ok=True)
        told = recipe.model_dump(mode="json", exclude_defaults=True)
        write_text(out / "recipe.yaml", yaml.safe_dump(told, sort_keys=False))
        _record(out, stages)
    if recipe.model.config is not None:
        with accelerator.main_process_first():
            tokenizer, keep = tokenizer_of(recipe.model), resume or not main
            prepare(recipe.model, tokenizer, out / "start", recipe.train.seed, keep=keep)
    saved = out / "model"
    for number, stage in enumerate(stages, 1):
        tell(f"stage {number} of {len(stages)}, {stage.name}")
        if resume and (stage.folder / "model").is_dir():
            tell("done before")
            continue
        going_on = resume and bool(Checkpoints(stage.folder).all())
        accelerator.wait_for_everyone()  # all have looked before anything is removed
        if main and resume and not going_on:
            shutil.rmtree(stage.folder, ignore_errors=True)  # begun, but nothing to go on from
        whole = complete(stage.recipe, tell)
        session = Session(whole, stage.folder, resume=going_on, say=say, callbacks=callbacks)
        reached = session.go(self_check=self_check)
        del session
        release_memory()
        if reached != stage.folder / "model":
            saved = reached
            break
        if main:
            _record(out, stages)
    else:
        if main:
            _link(saved, stages[-1].folder / "model")
    accelerator.wait_for_everyone()
    accelerator.state.destroy_process_group()
    return saved


def _require_folder(out: Path, stages: list[Stage], resume: bool) -> None:
    """Raise where the folder holds another run, or stages that are not these."""
    if not resume:
        used = [n for n in ("stages.json", "metrics.jsonl", "model") if (out / n).exists()]
        if used:
            raise OutputError(
                f"{out} already holds a run ({', '.join(used)}): continue it with --resume, or "
                "choose another --out"
            )
        return
    if not (out / "stages.json").is_file():
        raise CheckpointError(f"--resume: no stages were begun in {out}")
    now = _facts(out, stages)
    for number, before in enumerate(read_json(out / "stages.json")):
        same = number < len(now) and now[number]["recipe"] == before["recipe"]
        if before["done"] and not (same and now[number]["folder"] == before["folder"]):
            raise CheckpointError(
                f"stage {before['name']} in {out} is done, but the recipe says something else of it "
                "now; choose another --out"
            )


def _facts(out: Path, stages: list[Stage]) -> list[dict[str, Any]]:
    """What `stages.json` says; a recipe's digest does not depend on where the folder lies."""
    facts = []
    for stage in stages:
        told = stage.recipe.model_dump_json(exclude={"cache_dir", "description"})
        facts.append(
            {
                "name": stage.name,
                "folder": stage.folder.name,
                "recipe": digest_of(told.replace(str(out.resolve()), ".")),
                "done": (stage.folder / "model").is_dir(),
            }
        )
    return facts


def _record(out: Path, stages: list[Stage]) -> None:
    write_json(out / "stages.json", _facts(out, stages))


def _link(link: Path, target: Path) -> None:
    """Point `link` at a folder beside it, whatever it pointed to before."""
    draft = link.with_name(f".{link.name}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, link.parent.resolve()))
    os.replace(draft, link)
