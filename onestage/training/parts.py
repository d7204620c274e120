"""The parts of a run, each made from its own section of the recipe."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list

from onestage import models
from onestage.config import RecipeError
from onestage.data.kinds import FEEDBACK
from onestage.models import Loaded, Model
from onestage.models.average import Average
from onestage.models.beside import Beside
from onestage.models.endings import settings_of, settle_as
from onestage.models.features import Door
from onestage.models.layout import send_whole
from onestage.models.masters import Masters
from onestage.models.policy import Policy
from onestage.models.reference import InitialWeights, ReferenceCache
from onestage.models.source import text_part_note
from onestage.models.start import needs_folder, prepare
from onestage.models.weights import Held
from onestage.objectives import DIVERGENCES
from onestage.rollout import build as rollout
from onestage.rollout.problems import Problems
from onestage.rollout.rollout import Rollout
from onestage.rollout.stock import Stock
from onestage.runfolder import Say
from onestage.training import callbacks as looking_on
from onestage.training.agreeing import all_do, main_first
from onestage.training.callbacks import Callback
from onestage.training.callbacks.tracker import Tracker
from onestage.training.devices import policy_of
from onestage.training.distributed import Distributed, Sharding, of_launcher
from onestage.training.plan import Plan
from onestage.training.recipe import Train
from onestage.training.references import Compared
from onestage.training.sampled import Reference, Remembering
from onestage.training.terms import Terms

OURS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG")
"""What a launcher's file asks of sharding, in the environment: `devices` does it, not accelerate."""
LAUNCHED = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"}
"""What accelerate launch sets for several processes."""
STARTED = {"WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}
"""What a process that is one of several is told, by torchrun or by mpirun."""
WHOLE = Distributed()
"""Weights whole on each device."""
WAIT = timedelta(hours=2)
"""How long messages wait for a rank that is long at something, such as writing a large model to a slow
disk: by themselves cards give up after ten minutes. Who is gone is noticed elsewhere (`stopped`)."""
PATIENT = InitProcessGroupKwargs(timeout=WAIT)
BOTH_MEMORIES = InitProcessGroupKwargs(backend="cpu:gloo,cuda:nccl", timeout=WAIT)
"""Parts that lie in the host's memory are added up there."""


@dataclass(frozen=True)
class Given:
    """A model that is in memory already."""

    model: Any
    tokenizer: Any


def make_accelerator(options: Train, asked: Distributed = WHOLE) -> Accelerator:
    """Devices and precision; refused where onestage could not honour the set-up."""
    section = of_launcher(asked, os.environ)
    AcceleratorState._reset_state()  # an earlier run of this process may have had other precision
    wanted = int(os.environ.get("WORLD_SIZE") or 1)
    _require_all_started(os.environ)
    # Of torchrun's processes on the CPU accelerate sees only one, unless it is told.
    cpu = "LOCAL_RANK" in os.environ and torch.accelerator.current_accelerator() is None
    local, cards = int(os.environ.get("LOCAL_WORLD_SIZE") or 1), torch.accelerator.device_count()
    if 0 < cards < local:
        raise RecipeError(
            f"{local} processes were started on a machine with {cards} devices (LOCAL_WORLD_SIZE): "
            f"start one for each, --nproc-per-node {cards}"
        )
    with _without(OURS):
        accelerator = Accelerator(
            mixed_precision="bf16" if options.bf16 else "no",
            cpu=cpu and wanted > 1,
            kwargs_handlers=[BOTH_MEMORIES if section.cpu_offload and not cpu else PATIENT],
        )
    if accelerator.num_processes == 1 < wanted:
        raise RecipeError(
            f"{wanted} processes were started (WORLD_SIZE), but accelerate sees only this one, so each "
            "would train a whole copy: start them with `accelerate launch`, or with torchrun and "
            "ACCELERATE_USE_CPU=true where they shall run on the CPU, or unset WORLD_SIZE"
        )
    allowed = {DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU}
    if accelerator.distributed_type not in allowed:
        raise RecipeError(
            f"accelerate is set up for {accelerator.distributed_type.value}; onestage runs on one "
            "process or on several (multi-GPU, multi-CPU), and shards by `distributed.sharding`"
        )
    return accelerator


def _require_all_started(environment: Mapping[str, str]) -> None:
    """Raise `RecipeError` for the one process that is left of several that a file asks for."""
    if environment.keys() >= LAUNCHED and not STARTED & environment.keys():
        raise RecipeError(
            "accelerate's configuration asks for several processes on the CPU, and accelerate launch "
            "starts those through mpirun alone (mpirun_config), so this is the only one; start them "
            "with torchrun --nproc-per-node N, or say num_processes: 1"
        )


@contextmanager
def _without(names: Iterable[str]) -> Iterator[None]:
    """The environment without some variables."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def callbacks_of(options: Train) -> list[Callback]:
    """Who looks on by the recipe's wish; `RecipeError` for a name or option that is unknown."""
    given = [options.report_to] if isinstance(options.report_to, str) else options.report_to
    try:
        found: list[Callback] = [Tracker(to=name) for name in given if name != "none"]
    except ValueError as error:
        raise RecipeError(f"train.report_to: {error}") from error
    try:
        named = [looking_on.PLUGINS.make(one) for one in options.callbacks]
        for one in named:
            looking_on.require_told(one)
        return found + named
    except ValueError as error:
        raise RecipeError(f"train.callbacks: {error}") from error


def load(
    model: Model,
    given: Given | None,
    tokenizer: Any,
    accelerator: Accelerator,
    out: Path,
    resume: bool,
    seed: int,
    sharding: Sharding,
    say: Say,
) -> Loaded:
    """The model to train: the one that is given, or the section's.

    What lies in no folder yet, but a saved adapter would refer to, is first written to `out/start`.
    """
    start, keep = out / "start", resume or not accelerator.is_main_process
    # The main process writes the folder; the others find it, as a run that is resumed does.
    if given:
        there = given
        return main_first(
            accelerator,
            lambda: models.given(
                there.model,
                there.tokenizer,
                lora=model.lora,
                base=start,
                keep=keep,
                seed=seed,
                gradient_checkpointing=model.gradient_checkpointing,
            ),
        )
    if needs_folder(model):
        for note in text_part_note(model):
            say(f"model: {note}")
        made = partial(prepare, model, tokenizer, start, keep=keep, seed=seed)
        model = main_first(accelerator, made)
    loaded = _read_once(model, tokenizer, accelerator, seed, sharding, Door.TRAINED)
    for note in loaded.notes:
        say(f"model: {note}")
    return loaded


def _read_once(
    model: Model,
    tokenizer: Any,
    accelerator: Accelerator,
    seed: int,
    sharding: Sharding,
    door: Door,
) -> Loaded:
    """A model with its weights. The main process alone reads them: where they will lie in parts it keeps
    them to send them to the others later, else it sends them now."""
    device = accelerator.device
    read = partial(models.load, model, device, tokenizer, seed, door)
    if accelerator.num_processes == 1 and sharding == "none":
        return read()
    # A base of 4 bits is made while it is read, on the device that it stays on.
    if model.load_in_4bit:
        return all_do(accelerator, read)
    main, whole = accelerator.is_main_process, sharding == "none"
    held: Held | None = None if main and whole else "cpu" if main else "meta"
    loaded = all_do(accelerator, lambda: read(held))
    if whole and not send_whole(loaded.model, device):
        loaded = all_do(accelerator, lambda: loaded if main else read())
    return _told(loaded)


def _told(loaded: Loaded) -> Loaded:
    """What the main process has found beside the weights: what the run starts from is called, and where
    answers end, which stands in a file that the others did not read."""
    facts = [loaded.fingerprint, settings_of(loaded.model)]
    fingerprint, settings = broadcast_object_list(facts)
    settle_as(loaded.model, settings)
    return replace(loaded, fingerprint=fingerprint)


def checkpointed(model: Model, spread: Distributed) -> Model:
    """The section, with activation checkpointing where either section asks for it."""
    asked = model.gradient_checkpointing or spread.activation_checkpointing
    return model.model_copy(update={"gradient_checkpointing": asked})


def compared_with(
    model: Model,
    name: str,
    loaded: Loaded,
    plan: Plan,
    cache: Path,
    train: Train,
    accelerator: Accelerator,
    spread: Distributed,
    say: Say,
) -> Compared:
    """The reference: the model the run starts from, or another, loaded beside it.

    `name`: as the recipe has it; `cache`: where its log-probabilities are kept between runs.
    """
    if "reference" not in plan.terms.needs:
        return Compared(name, loaded.fingerprint)
    section = models.reference_of(model, name)
    where = (loaded.tokenizer, accelerator, 0, spread.sharding, Door.ASKED)
    other = _read_once(section, *where) if section else None
    fingerprint = (other or loaded).fingerprint
    # Autocast gives other log-probabilities than full precision.
    suffix = "-autocast" if train.bf16 else ""
    kept = ReferenceCache(cache / "reference", fingerprint + suffix, say)
    return Compared(
        name, fingerprint, kept, policy_of(other, spread, accelerator) if other else None
    )


def average_of(train: Train, policy: Policy, masters: Masters, steps: int) -> Average | None:
    if train.average == "none":
        return None
    # At least the last step is averaged.
    start = min(round(train.average_start * steps), steps - 1) if train.average == "tail" else 0
    return Average(policy, masters, train.average, decay=train.average_decay, start=start)


def _asks_reference(
    problems: Mapping[str, Problems], arriving: Collection[str], terms: Terms
) -> bool:
    """Whether the reference is asked while the run goes on: about sampled responses, records that are
    still to come, or for whole distributions."""
    return bool(terms.needs & DIVERGENCES) or any(
        "reference" in terms.objectives[term].needs
        for (stream, kind), term in terms.term_of.items()
        if stream in arriving or (stream in problems and FEEDBACK[kind].asked)
    )


def _held(other: Policy) -> Reference:
    """A reference that always stands ready."""
    return lambda: nullcontext(other)


def answers_of(
    section: Rollout,
    problems: Mapping[str, Problems],
    plan: Plan,
    policy: Policy,
    compared: Compared,
    arriving: Collection[str],
    train: Train,
    accelerator: Accelerator,
    say: Say,
) -> Stock | None:
    """What answers the problems, where there are any. Whatever asks the reference while the run goes on
    shares it: `compared` is told how, and so is the policy that it stands beside. `arriving`: streams of
    which more is to come."""
    start = InitialWeights(policy).in_place if problems and section.policy == "start" else None
    if _asks_reference(problems, arriving, plan.terms):
        other = compared.policy
        compared.asked = _held(other) if other else start or InitialWeights(policy).in_place
        if plan.terms.needs & DIVERGENCES:
            policy.beside = Beside(compared.asked)
    if not problems:
        return None
    return rollout.make(
        section,
        problems,
        policy,
        policy.tokenizer,
        accelerator=accelerator,
        remember=Remembering(policy, plan.terms, compared.asked, accelerator, train.row_budget),
        worked=lambda record: "worked" in plan.terms.needs_of(record),
        taught=lambda record: "taught" in plan.terms.needs_of(record),
        start=start,
        seed=train.seed,
        say=say,
    )


def strange(objects: Iterable[Any]) -> list[Any]:
    """Those whose class is not ours."""
    return [one for one in objects if not type(one).__module__.startswith("onestage.")]
