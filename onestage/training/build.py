"""From a recipe to a run, in one order: look, read, plan, refuse, load, build.

`Draft` is everything up to the weights. It keeps one list of what would refuse the run, which `onestage
check`, `train` and every stage share: `check` prints it, `build` raises it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from onestage import models
from onestage.config import RecipeError, plugins_of, source_of
from onestage.data.kept import usable
from onestage.data.kinds import KINDS
from onestage.models import Model
from onestage.models.masters import Masters
from onestage.models.penalty import DeltaL1
from onestage.objectives import _laws as objective_laws
from onestage.rollout import build as rollout
from onestage.rollout import engines
from onestage.rollout.hints import _laws as hint_laws
from onestage.rollout.problems import Problems
from onestage.runfolder import RunFolder, Say, default_cache, silent
from onestage.schedules import _laws as schedule_laws
from onestage.training import asked, choices, heads, idle, kept_suite
from onestage.training import optimizer as optimizers
from onestage.training.agreeing import all_do, by_main, read_by, require_same
from onestage.training.arriving import read_together
from onestage.training.callbacks import Callback
from onestage.training.devices import devices_of, policy_of, require_ranks
from onestage.training.distributed import of_launcher
from onestage.training.parts import (
    Given,
    answers_of,
    average_of,
    callbacks_of,
    checkpointed,
    compared_with,
    load,
    make_accelerator,
    strange,
)
from onestage.training.plan import Plan, make_plan
from onestage.training.read import (
    Data,
    check_options,
    check_problems,
    check_rows,
    make_encoder,
    read_data,
)
from onestage.training.recipe import Recipe
from onestage.training.resuming import Changes, changes_of
from onestage.training.run import Run
from onestage.training.stages import StageRun
from onestage.training.terms import Terms

CACHED = ("tokens", "reference", "optimum")
"""What a run keeps in the cache: encoded data, the reference's log-probabilities, measured f*."""


class Draft:
    """A run on paper: what can be known of it, and refused, before any weights are loaded. Made by
    looking at the recipe and the model's own files; `read` reads the data and makes the plan."""

    def __init__(
        self,
        recipe: Recipe,
        stage: StageRun | None = None,
        first: Model | None = None,
        given: Given | None = None,
    ) -> None:
        """`first`: the model of the whole recipe, for a stage whose own is not made yet: its tokenizer
        and its shape are that one's. `given`: a model that is there without a folder."""
        self.recipe, self.stage, self.first, self.given = recipe, stage, first, given
        self.cache = Path(recipe.cache_dir).expanduser() if recipe.cache_dir else default_cache()
        self.conflicts: list[Exception] = []
        self.tokenizer: Any = None
        self.config: Any = None
        self.data: Data | None = None
        self.plan: Plan | None = None
        self.problems: dict[str, Problems] = {}
        self.callbacks: list[Callback] = []
        self.taught: dict[str, bool] = {}
        self._look()

    def _look(self) -> None:
        recipe, task = self.recipe, self.recipe.model.task
        with self._noting():
            longest = recipe.rollout.max_completion_length
            chosen = choices.objectives_of(recipe.objective, recipe.data, longest)
            self.taught = choices.taught_by(chosen, recipe.data)
            choices.check_needs(chosen, recipe.model)
        with self._noting():
            if task == "reward":
                choices.check_judge(recipe.data, recipe.reference, recipe.probe)
        with self._noting():
            choices.schedule_of(recipe.schedule)
        with self._noting():
            optimizers.check(recipe.train)
        with self._noting():
            choices.check_sharding(recipe.distributed, recipe.model, recipe.train)
            choices.check_saving(recipe.model, recipe.train)
            heads.check(recipe.model)
        with self._noting():
            choices.check_kept(recipe.keep, recipe.distributed)
        with self._noting():
            self.callbacks = callbacks_of(recipe.train)
        with self._noting():
            self.problems = rollout.problems_of(recipe.data)
        with self._noting():
            if self.problems:
                rollout.check_engine(recipe.rollout)
        with self._noting():
            self._look_at_model()

    def _look_at_model(self) -> None:
        model, seen = self.recipe.model, self.first or self.recipe.model
        if self.given:
            self.tokenizer, self.config = self.given.tokenizer, self.given.model.config
            return
        if not (self.stage and self.stage.starts_from_stage):
            models.check_trained(model if self.first is None or self.first.name else self.first)
        self.tokenizer, self.config = models.tokenizer_of(seen), models.config_of(seen)
        asked.check(self.recipe.evaluate, self.tokenizer, model.task)
        kept_suite.check(self.recipe.keep, self.tokenizer, model.task)
        models.check_vocabulary(self.tokenizer, self.config)
        models.check_shape(model, self.config)
        made, reference = self._made_here(self.recipe.reference), self.recipe.reference
        if not made and (other := models.reference_of(model, reference)) is not None:
            models.check_reference(other, self.tokenizer, self.config)

    def _made_here(self, reference: str) -> bool:
        """Whether a reference is the model of an earlier stage, which is not there yet."""
        out = self.stage.folder.parent if self.stage and self.first else None
        return out is not None and Path(reference).is_relative_to(out)

    def read(
        self, say: Say = silent, warn: Say | None = None, accelerator: Accelerator | None = None
    ) -> None:
        """Read the data (or find them encoded), and plan; does nothing where no token can be counted.

        `warn`: told of a damaged cache, also by who says nothing of the data themselves; `accelerator`:
        of a run, so that one process of each node encodes what none has, and its others find it."""
        recipe = self.recipe
        if self.tokenizer is None:
            return
        encoder, room = None, recipe.rollout.max_completion_length
        with self._noting():
            encoder = make_encoder(recipe.train, self.tokenizer, room, self.taught)
        if encoder is None:
            return
        self.cache = usable(self.cache, CACHED, warn or say)
        data, train = recipe.data, recipe.train
        asked = (data, recipe.watched, encoder, self.cache, say, warn or say)
        together = (data, self.problems, train, say)
        self.data = read_together(accelerator, lambda t: read_data(*asked, t), *together)
        with self._noting():
            check_rows(self.data, recipe.train, self.config)
            check_problems(self.data, recipe.data)
            check_options(self.data, recipe.data)
        with self._noting():
            self.plan = make_plan(recipe, self.data)
            self._check_reference(self.plan.terms)
            choices.check_terms(self.plan.terms, recipe.rollout, recipe.distributed)
        with self._noting():
            rollout.check(self.problems, self.data.train, self.data.held_out)
        with self._noting():
            self._check_strangers()

    def _check_reference(self, terms: Terms) -> None:
        """Refuse a reference that nobody compares with, and in a stage one that is not said."""
        stage, used = self.stage, {name for pair in terms.term_of for name in pair}
        for key in stage.own_map if stage else ():
            if key not in used:
                what = "kind" if key in KINDS else "stream"
                raise RecipeError(
                    f"objective.{key}: the data of this stage ({', '.join(self.stores.train)}) hold no "
                    f"record of that {what}"
                )
        if "reference" not in terms.needs and self.recipe.reference != "start":
            which, what = ("", "this stage") if stage else (f" {self.recipe.reference}", "the run")
            raise RecipeError(f"reference{which}: no objective of {what} uses a reference")
        if stage and "reference" in terms.needs and not stage.says_reference:
            needing = sorted(n for n, o in terms.objectives.items() if "reference" in o.needs)
            raise RecipeError(
                f"objective {', '.join(needing)} compares with a reference; say which. reference: start "
                "(this stage's start model), first (the recipe's), or an earlier stage's name"
            )

    def _check_strangers(self) -> None:
        """Refuse other people's classes that break a law which the run takes for granted, in words.

        Not tried: `sign`, since an objective may mean to unlearn, and rewards, which may cost money.
        """
        if self.plan is None:
            return
        weights = self.plan.schedule.weights
        rule = replace(choices.schedule_of(self.recipe.schedule).rule, weights=weights)
        tried: list[tuple[Any, list[str]]] = [
            *(
                (o, objective_laws.laws(o, skip=("sign",)))
                for o in strange(self.plan.terms.objectives.values())
            ),
            *((s, schedule_laws.laws(s)) for s in strange([rule])),
            *((h, hint_laws.laws(h)) for h in strange(one.hint for one in self.problems.values())),
        ]
        for one, broken in tried:
            if broken:
                name, laws = type(one).__name__, "\n  ".join(broken)
                raise RecipeError(f"{name} ({source_of(type(one))}) breaks its contract:\n  {laws}")

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """What is wrong goes on the list, once, and the look goes on."""
        try:
            yield
        except (ValueError, OSError, ImportError) as error:
            if str(error) not in map(str, self.conflicts):
                self.conflicts.append(error)

    def refuse(self) -> None:
        """Raise what is on the list: the error itself where there is one, else all of them in lines."""
        if not self.conflicts:
            return
        self.close()
        if len(self.conflicts) == 1:
            raise self.conflicts[0]
        raise RecipeError("\n".join(map(str, self.conflicts))) from self.conflicts[0]

    def close(self) -> None:
        """Let go of what the rewards hold."""
        rollout.close(self.problems)

    @property
    def stores(self) -> Data:
        """The data, after `read`."""
        assert self.data is not None
        return self.data

    @property
    def planned(self) -> Plan:
        """The plan, after `read` and where nothing was refused."""
        assert self.plan is not None
        return self.plan

    def plugins(self) -> dict[str, dict[str, str | None]]:
        """Other people's classes that decide what is trained, with where they are from and a digest."""
        mine: list[Any] = [*self.planned.terms.objectives.values(), self.planned.schedule]
        for one in self.problems.values():
            mine += [one.hint, *(reward for _, _, reward in one.rewards)]
        kinds = [type(one) for one in mine]
        if self.problems:
            kinds.append(engines.PLUGINS.check(self.recipe.rollout.engine))
        return plugins_of(kinds)


def _read(draft: Draft, accelerator: Accelerator, say: Say) -> Draft:
    """The draft with data and plan, after all that can be refused was."""
    all_do(accelerator, draft.refuse)
    draft.read(say, accelerator=accelerator)
    all_do(accelerator, draft.refuse)
    require_same(accelerator, read_by(draft.stores, draft.plugins()))
    idle.tell(draft, say)
    return draft


def build(
    recipe: Recipe,
    out: Path,
    *,
    stage: StageRun | None = None,
    resume: bool = False,
    allow_changed: Sequence[str] = (),
    say: Say = print,
    callbacks: Sequence[Callback] = (),
    given: Given | None = None,
) -> Run:
    """A run, ready to go, and its folder with a description. Everything refusable is refused first.

    `stage`: which stage of a whole recipe it is; `given`: the model to start from, where it is in
    memory; `allow_changed`: keys that may be other ones than the run in `out` was begun with. Raises
    `RecipeError`, `OutputError`, `CheckpointError`, or the error of what could not be read.
    """
    spread = of_launcher(recipe.distributed, os.environ)
    main = (accelerator := make_accelerator(recipe.train, spread)).is_main_process
    require_ranks(spread, accelerator.num_processes)
    train = recipe.train.on(accelerator.device.type)
    # First: a folder that is taken, or cannot be written, is known before any data are read.
    folder = by_main(accelerator, lambda: RunFolder(out, resume=resume))
    say = say if main else silent
    whole, told = (recipe.model_dump(mode="json", exclude_defaults=own) for own in (False, True))
    changes = changes_of(out, told, whole, allow_changed) if resume else Changes(told)
    draft = _read(Draft(recipe, stage, given=given), accelerator, say)
    if resume:
        by_main(accelerator, lambda: folder.require_plugins(draft.plugins()))
    plan, model = draft.planned, checkpointed(recipe.model, spread)
    asked.begin(recipe.evaluate)
    where = (draft.tokenizer, accelerator, out, resume, train.seed, spread.sharding, say)
    loaded = load(model, given, *where)
    policy = policy_of(loaded, spread, accelerator, plan.terms)
    compared = compared_with(
        recipe.model, recipe.reference, loaded, plan, draft.cache, train, accelerator, spread, say
    )
    masters = Masters(policy)
    optimizer, learning_rate = optimizers.make(train, policy, masters, plan.steps)
    answers = answers_of(
        *(recipe.rollout, draft.problems, plan, policy, compared, draft.stores.arriving),
        *(train, accelerator, say),
    )
    run = Run(
        options=train,
        out=out,
        accelerator=accelerator,
        devices=devices_of(accelerator, policy, masters),
        data=draft.stores,
        plan=plan,
        loaded=loaded,
        policy=policy,
        compared=compared,
        feeds=replace(plan.feeds, answers=answers),
        answers=answers,
        masters=masters,
        optimizer=optimizer,
        learning_rate=learning_rate,
        made=optimizers.settings(optimizer),
        clipping=optimizers.clipping(train, plan.schedule),
        penalty=DeltaL1(train.delta_l1, loaded.model) if train.delta_l1 else None,
        average=average_of(train, policy, masters, plan.steps),
        folder=folder,
        say=say,
        callbacks=[*callbacks, *draft.callbacks] if main else [],
        probe=recipe.probe,
        guards=recipe.guard,
        optimum=recipe.optimum,
        evaluate=recipe.evaluate,
        head=recipe.model.head,
        told=str({name: whole[name] for name in ("objective", "train")}),
        resuming=resume,
        changes=changes,
    )
    all_do(accelerator, lambda: run.describe(draft.plugins()))
    return run
