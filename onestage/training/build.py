"""From a recipe to a run, in one order: look, read, refuse, plan, load, build.

`Draft` is everything up to the weights. It keeps one list of what would refuse the run, which `onestage
check`, `train` and every stage share: `check` prints it, `build` raises it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from onestage import models
from onestage.config import RecipeError, plugins_of
from onestage.data.feeds import Feeds
from onestage.data.kinds import FEEDBACK, KINDS
from onestage.models import Loaded, Model
from onestage.models.average import Average
from onestage.models.penalty import DeltaL1
from onestage.models.policy import Policy
from onestage.models.reference import InitialWeights, ReferenceCache
from onestage.models.start import needs_folder, prepare
from onestage.rollout import build as rollout
from onestage.rollout.feeds import OnlineFeeds
from onestage.rollout.problems import Problems
from onestage.rollout.rollout import Rollout
from onestage.runfolder import RunFolder, Say, default_cache, silent
from onestage.training import callbacks as looking_on
from onestage.training import optimizer as optimizers
from onestage.training.callbacks import Callback
from onestage.training.callbacks.tracker import Tracker
from onestage.training.choices import check_judge, check_needs, objectives_of, schedule_of
from onestage.training.plan import Plan, make_plan
from onestage.training.read import Data, check_problems, check_rows, make_encoder, read_data
from onestage.training.recipe import Recipe, Train
from onestage.training.run import Run
from onestage.training.sampled import Reference, Remember
from onestage.training.stages import StageRun
from onestage.training.terms import Terms


@dataclass(frozen=True)
class Given:
    """A model that is in memory already."""

    model: Any
    tokenizer: Any


class Draft:
    """A run on paper: what can be known of it, and refused, before any weights are loaded.

    Made by looking at the recipe and the model's own files; `read` reads the data and makes the plan.
    """

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
        self._look()

    def _look(self) -> None:
        recipe, task = self.recipe, self.recipe.model.task
        with self._noting():
            longest = recipe.rollout.max_completion_length
            chosen = objectives_of(recipe.objective, recipe.data, longest)
            check_needs(chosen, recipe.model)
        with self._noting():
            if task == "reward":
                check_judge(recipe.data, recipe.reference, recipe.probe)
        with self._noting():
            schedule_of(recipe.schedule)
        with self._noting():
            optimizers.check(recipe.train)
        with self._noting():
            callbacks_of(recipe.train)
        with self._noting():
            self.problems = rollout.problems_of(recipe.data)
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
        models.check_vocabulary(self.tokenizer, self.config)
        models.check_lora(model, self.config)
        other = None
        if not self._made_here(self.recipe.reference):
            other = models.reference_of(model, self.recipe.reference)
        if other is not None:
            models.check_reference(other, self.tokenizer, self.config)

    def _made_here(self, reference: str) -> bool:
        """Whether a reference is the model of an earlier stage, which is not there yet."""
        out = self.stage.folder.parent if self.stage and self.first else None
        return out is not None and Path(reference).is_relative_to(out)

    def read(self, say: Say = silent) -> None:
        """Read the data (or find them encoded), and plan; does nothing where no token can be counted."""
        recipe = self.recipe
        if self.tokenizer is None:
            return
        encoder = make_encoder(recipe.train, self.tokenizer, recipe.rollout.max_completion_length)
        watched = recipe.probe.retention if recipe.probe else []
        self.data = read_data(recipe.data, watched, encoder, self.cache, say)
        with self._noting():
            check_rows(self.data, recipe.train)
            check_problems(self.data, recipe.data)
        with self._noting():
            self.plan = make_plan(recipe, self.data)
            self._check_reference(self.plan.terms)
        with self._noting():
            rollout.check(self.problems, self.data.train, self.data.held_out)

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
            raise RecipeError(
                f"reference {self.recipe.reference}: no objective of the run uses a reference"
            )
        if stage and "reference" in terms.needs and not stage.says_reference:
            needing = sorted(n for n, o in terms.objectives.items() if "reference" in o.needs)
            raise RecipeError(
                f"objective {', '.join(needing)} compares with a reference; say which. reference: start "
                "(this stage's start model), first (the recipe's), or an earlier stage's name"
            )

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
        return plugins_of(mine)


def build(
    recipe: Recipe,
    out: Path,
    *,
    stage: StageRun | None = None,
    resume: bool = False,
    say: Say = print,
    callbacks: Sequence[Callback] = (),
    given: Given | None = None,
) -> Run:
    """A run, ready to go, and its folder with a description. Everything refusable is refused first.

    Raises `RecipeError`, `OutputError`, or the error of what could not be read.
    """
    accelerator = make_accelerator(recipe.train)
    main, train = accelerator.is_main_process, recipe.train
    say = say if main else silent
    folder = RunFolder(out, resume=resume) if main else None
    draft = Draft(recipe, stage, given=given)
    draft.refuse()
    with accelerator.main_process_first():
        draft.read(say)
    draft.refuse()
    plan, tokenizer = draft.planned, draft.tokenizer
    if folder and resume:
        folder.require_plugins(draft.plugins())
    start = out / "start"
    if given:
        loaded = _given(recipe.model, given, start, train.seed)
    else:
        loaded = _load(recipe.model, tokenizer, accelerator, start, resume, train.seed, say)
    policy = Policy(loaded.model, tokenizer)
    if "value" in plan.terms.needs:
        policy.add_value_head()
    compared = "reference" in plan.terms.needs
    other = _other(recipe.model, recipe.reference, tokenizer, accelerator) if compared else None
    fingerprint = (other or loaded).fingerprint
    compared_policy = Policy(other.model, tokenizer) if other else None
    asks_reference = _asks_reference(draft.problems, plan.terms)
    optimizer, learning_rate = optimizers.make(train, policy, plan.steps)
    run = Run(
        options=train,
        out=out,
        accelerator=accelerator,
        data=draft.stores,
        plan=plan,
        loaded=loaded,
        policy=policy,
        reference=_cache(draft.cache, fingerprint, train) if compared else None,
        compared_with=fingerprint,
        other=compared_policy,
        feeds=_feeds(
            recipe.rollout,
            draft,
            policy,
            compared_policy if asks_reference else None,
            accelerator,
            say,
        ),
        optimizer=optimizer,
        learning_rate=learning_rate,
        clipping=optimizers.clipping(train, plan.schedule),
        penalty=DeltaL1(train.delta_l1, loaded.model) if train.delta_l1 else None,
        average=_average(train, policy, plan.steps),
        folder=folder,
        say=say,
        callbacks=[*callbacks, *callbacks_of(train)] if main else [],
        probe=recipe.probe,
        guards=recipe.guard,
        optimum=recipe.optimum,
        told=str(recipe.model_dump(mode="json", include={"objective", "train"})),
        reference_name=recipe.reference,
        asks_reference=asks_reference,
        resuming=resume,
    )
    run.describe(recipe.model_dump(mode="json", exclude_defaults=True), draft.plugins())
    return run


def make_accelerator(options: Train) -> Accelerator:
    """Devices and precision; refused where onestage could not honour the set-up."""
    AcceleratorState._reset_state()  # an earlier run of this process may have had other precision
    accelerator = Accelerator(mixed_precision="bf16" if options.bf16 else "no")
    allowed = {DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU}
    if accelerator.distributed_type not in allowed:
        raise RecipeError(
            f"accelerate is set up for {accelerator.distributed_type.value}; onestage runs on one "
            "process or on several with replicated weights (multi-GPU, multi-CPU)"
        )
    return accelerator


def callbacks_of(options: Train) -> list[Callback]:
    """Who looks on by the recipe's wish; `RecipeError` for a name or option that is unknown."""
    given = [options.report_to] if isinstance(options.report_to, str) else options.report_to
    try:
        found: list[Callback] = [Tracker(to=name) for name in given if name != "none"]
    except ValueError as error:
        raise RecipeError(f"train.report_to: {error}") from error
    try:
        return found + [looking_on.PLUGINS.make(one) for one in options.callbacks]
    except ValueError as error:
        raise RecipeError(f"train.callbacks: {error}") from error


def _load(
    model: Model,
    tokenizer: Any,
    accelerator: Accelerator,
    start: Path,
    resume: bool,
    seed: int,
    say: Say,
) -> Loaded:
    """The model to train. One that lies in no folder yet is first written to `start`."""
    if needs_folder(model):
        with accelerator.main_process_first():
            keep = resume or not accelerator.is_main_process
            model = prepare(model, tokenizer, start, keep=keep, seed=seed)
    loaded = models.load(model, accelerator.device, tokenizer, seed)
    for note in loaded.notes:
        say(f"model: {note}")
    return loaded


def _given(section: Model, given: Given, start: Path, seed: int) -> Loaded:
    """The model that was given; what a saved adapter would refer to is kept in `start`."""
    return models.given(
        given.model,
        given.tokenizer,
        lora=section.lora,
        base=start,
        seed=seed,
        gradient_checkpointing=section.gradient_checkpointing,
    )


def _other(model: Model, name: str, tokenizer: Any, accelerator: Accelerator) -> Loaded | None:
    """The reference, where it is not the model the run starts from."""
    other = models.reference_of(model, name)
    return models.load(other, accelerator.device, tokenizer) if other else None


def _cache(folder: Path, fingerprint: str, train: Train) -> ReferenceCache:
    # Autocast gives other log-probabilities than full precision.
    suffix = "-autocast" if train.bf16 else ""
    return ReferenceCache(folder / "reference", fingerprint + suffix)


def _average(train: Train, policy: Policy, steps: int) -> Average | None:
    if train.average == "none":
        return None
    start = round(train.average_start * steps) if train.average == "tail" else 0
    return Average(policy, train.average, decay=train.average_decay, start=start)


def _asks_reference(problems: Mapping[str, Problems], terms: Terms) -> bool:
    """Whether sampled responses are compared with the reference."""
    return any(
        "reference" in terms.objectives[term].needs
        for (stream, kind), term in terms.term_of.items()
        if stream in problems and FEEDBACK[kind].asked
    )


def _feeds(
    section: Rollout,
    draft: Draft,
    policy: Policy,
    other: Policy | None,
    accelerator: Accelerator,
    say: Say,
) -> Feeds:
    """The plan's feeds, answering where the recipe has problems. `other`: a reference that is not the
    model the run starts from."""
    plan, train = draft.planned, draft.recipe.train
    if not draft.problems:
        return plan.feeds
    start = InitialWeights(policy).in_place if section.policy == "start" else None
    reference: Reference | None = None
    if _asks_reference(draft.problems, plan.terms):
        first = start or InitialWeights(policy).in_place
        reference = first if other is None else lambda: nullcontext(other)
    answering = rollout.make(
        section,
        draft.problems,
        policy,
        draft.tokenizer,
        accelerator=accelerator,
        remember=Remember(policy, plan.terms, reference, accelerator, train.row_budget),
        worked=lambda record: "worked" in plan.terms.needs_of(record),
        start=start,
        seed=train.seed,
        say=say,
    )
    return OnlineFeeds(plan.feeds, answering, section.reuse)
