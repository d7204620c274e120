"""From a recipe to the parts of a run: the one place where names become objects."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType
from transformers import Trainer, get_scheduler
from transformers.training_args import OptimizerNames

from onestage.nearest import nearest
from onestage.options import DataOptions, TrainOptions
from onestage.policy.loading import Lora, ModelSource, adapter_base
from onestage.policy.policy import Policy
from onestage.recipe import Recipe, RecipeError
from onestage.records.columns import Columns
from onestage.records.reading import Source
from onestage.streams.encoding import Encoder
from onestage.streams.sources import open_store, tokenizer_digest
from onestage.streams.store import Store

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Data:
    """The stores of a run, by stream; `held_out` where a stream has evaluation rows."""

    train: dict[str, Store]
    held_out: dict[str, Store]
    retention: dict[str, Store] = field(default_factory=dict)
    """What is only watched, by the probe."""

    def table(self) -> dict[str, Any]:
        """The data table, as written to `data.json`."""
        parts = {"train": self.train, "eval": self.held_out}
        if self.retention:
            parts["retention"] = self.retention
        return {
            part: {name: asdict(store.table) for name, store in stores.items()}
            for part, stores in parts.items()
        }


def cache_folder(recipe: Recipe) -> Path:
    """Where encoded data and reference log-probabilities are kept between runs."""
    return Path(recipe.cache_dir).expanduser() if recipe.cache_dir else default_cache()


def default_cache() -> Path:
    """Where everything is kept between runs that is told nothing else."""
    return Path(os.environ.get("ONESTAGE_CACHE") or "~/.cache/onestage").expanduser()


def model_source(recipe: Recipe) -> ModelSource:
    options = recipe.model.model_dump(exclude={"lora"})
    lora = recipe.model.lora
    return ModelSource(
        **options, lora=Lora(**lora.model_dump()) if lora else None, seed=recipe.train.seed
    )


def reference_source(recipe: Recipe) -> ModelSource | None:
    """The model that losses compare with, where it is not the one the run starts from."""
    if recipe.reference == "start":
        return None
    mine = model_source(recipe)
    other = replace(
        mine, name=recipe.reference, config=None, tokenizer=None, chat_template=None, lora=None
    )
    other = replace(other, adapter="same", gradient_checkpointing=False)
    shared = (adapter_base(other) or other.name) in (mine.name, adapter_base(mine))
    return other if shared else replace(other, revision=None)


def source_of(stream: DataOptions, *, held_out: bool) -> Source:
    """How to read a stream's training or held-out rows."""
    columns = Columns(
        source=stream.name,
        kind=stream.kind,
        rename=stream.columns,
        score_range=stream.score_range,
        ratings=stream.ratings or {},
        facts=stream.reward is not None,
    )
    source = Source(
        path=stream.path,
        columns=columns,
        limit=stream.limit,
        split=stream.split,
        config=stream.subset,
        streaming=stream.streaming,
        as_messages=stream.as_messages,
    )
    if not held_out:
        return source
    return replace(
        source,
        path=stream.eval_path or stream.path,
        limit=stream.eval_limit,
        split=stream.eval_split or "train",
    )


def make_encoder(recipe: Recipe, tokenizer: Any) -> Encoder:
    """How the recipe's records become token ids. `overflow: error` is judged later (`judge`)."""
    cut = recipe.train.overflow == "truncate_prompt"
    room = recipe.rollout.max_completion_length
    return Encoder(tokenizer, recipe.train.max_length, "truncate_prompt" if cut else "drop", room)


def read_data(recipe: Recipe, tokenizer: Any, say: Say) -> Data:
    """Read, check and encode every stream (or find it encoded). Judges nothing: see `judge`."""
    encoder = make_encoder(recipe, tokenizer)
    cache, digest = cache_folder(recipe), tokenizer_digest(tokenizer)
    found = Data({}, {}, {})
    wanted = [("", stream, False, found.train) for stream in recipe.data]
    wanted += [
        (" (held out)", stream, True, found.held_out)
        for stream in recipe.data
        if stream.eval_path or stream.eval_split
    ]
    watched = recipe.probe.retention if recipe.probe else []
    wanted += [(" (retention)", stream, False, found.retention) for stream in watched]
    for note, stream, held_out, stores in wanted:
        # only problems need room for a completion: another length must not encode the rest anew
        fitting = encoder if stream.reward is not None else replace(encoder, room=0)
        store, known = open_store(source_of(stream, held_out=held_out), fitting, cache, digest)
        stores[stream.name] = store
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in store.table.records.items())
        say(
            f"data {stream.name}{note}: {kinds or 'no records'}; "
            f"{store.table.tokens:,} tokens{' (encoded before)' if known else ''}"
        )
    return found


def judge(recipe: Recipe, data: Data) -> None:
    """Refuse data that the recipe does not allow, naming file, row and what to do."""
    stores = [*data.train.items(), *data.held_out.items(), *data.retention.items()]
    for name, store in stores:
        table, shown = store.table, "\n  ".join(store.table.reasons[:5])
        if table.overlong and recipe.train.overflow == "error":
            raise RecipeError(
                f"data {name}: {table.overlong} records are longer than train.max_length; raise it, "
                f"or set train.overflow to drop or truncate_prompt\n  {shown}"
            )
        if table.refused > table.overlong and recipe.train.bad_rows == "error":
            raise RecipeError(
                f"data {name}: {table.refused - table.overlong} rows cannot be used; mend them, or "
                f"set train.bad_rows to skip to leave them out\n  {shown}"
            )
        if not len(store):
            raise RecipeError(f"data {name}: no record is left to train on\n  {shown}")
    rewards = {stream.name: stream.reward for stream in recipe.data}
    for name, store in stores:
        asked = "check" in store.table.records
        if asked and rewards.get(name) is None:
            raise RecipeError(
                f"data {name}: holds problems to solve (check records); say what judges the answers "
                "with reward, or train on worked ones with kind: demonstration"
            )
        if not asked and rewards.get(name) is not None:
            raise RecipeError(f"data {name}: has a reward but no problem to solve (check records)")


def make_optimizer(options: TrainOptions, policy: Policy, steps: int) -> tuple[Any, Any]:
    """Optimiser and learning-rate schedule by their transformers names."""
    known = [str(name.value) for name in OptimizerNames]
    if options.optim not in known:
        raise RecipeError(f"train.optim: unknown {options.optim!r}{nearest(options.optim, known)}")
    # The few attributes of TrainingArguments that matter: making a whole one resets accelerate.
    arguments = SimpleNamespace(
        **options.model_dump(include={"optim_args", "learning_rate", "weight_decay"}),
        **options.model_dump(include={"adam_beta1", "adam_beta2", "adam_epsilon"}),
        optim=OptimizerNames(options.optim),
        optim_target_modules=None,
    )
    try:
        kind, arguments_of = Trainer.get_optimizer_cls_and_kwargs(
            arguments,  # type: ignore[arg-type]
            policy.model,
        )
    except (ValueError, ImportError) as error:
        raise RecipeError(f"train.optim {options.optim!r}: {error}") from error
    decayed = set(Trainer.get_decay_parameter_names(None, policy.model))  # type: ignore[arg-type]
    trained = [(n, p) for n, p in policy.model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in trained if n in decayed], "weight_decay": options.weight_decay},
        {"params": [p for n, p in trained if n not in decayed], "weight_decay": 0.0},
    ]
    if policy.value_head is not None:
        groups[1]["params"] += list(policy.value_head.parameters())  # type: ignore[operator]
    optimizer = kind([group for group in groups if group["params"]], **arguments_of)
    warmup = options.warmup_steps or math.ceil(options.warmup_ratio * steps)
    try:
        schedule = get_scheduler(
            options.lr_scheduler_type,
            optimizer,
            warmup,
            steps,
            scheduler_specific_kwargs=options.lr_scheduler_kwargs,
        )
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"train.lr_scheduler_type {options.lr_scheduler_type!r}: {error}"
        ) from error
    return optimizer, schedule


def make_accelerator(options: TrainOptions, out: Path) -> Accelerator:
    """Devices, precision and trackers; refused where onestage could not honour the set-up."""
    given = [options.report_to] if isinstance(options.report_to, str) else options.report_to
    trackers = [name for name in given if name != "none"]
    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    installed = [str(tracker) for tracker in get_available_trackers()]
    for name in trackers:
        if name not in known:
            raise RecipeError(f"train.report_to: unknown tracker {name!r}{nearest(name, known)}")
        if name not in installed:
            raise RecipeError(
                f"train.report_to: the package of {name} is not installed (installed: {installed})"
            )
    AcceleratorState._reset_state()  # an earlier run of this process may have had other precision
    accelerator = Accelerator(
        mixed_precision="bf16" if options.bf16 else "no",
        log_with=trackers or None,
        project_dir=str(out),
    )
    allowed = {DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU}
    if accelerator.distributed_type not in allowed:
        raise RecipeError(
            f"accelerate is set up for {accelerator.distributed_type.value}; onestage runs on one "
            "process or on several with replicated weights (multi-GPU, multi-CPU)"
        )
    return accelerator
