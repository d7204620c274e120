"""What will be trained on and what is wrong with it, gathered before any weights are loaded.

What would refuse a run is the same list that `train` refuses by (`Draft.conflicts`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from onestage.data.inspect import Findings, examine
from onestage.data.kinds import FEEDBACK
from onestage.data.reading import read
from onestage.data.record import Record
from onestage.data.store import write
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.models import Lora
from onestage.models.estimate import Estimate, estimate
from onestage.models.footprint import footprint
from onestage.models.rates import slow_precision
from onestage.models.source import text_part_note
from onestage.rollout.build import judge_worked
from onestage.runfolder import Say, silent, taken
from onestage.training import kept_suite
from onestage.training.build import Draft
from onestage.training.choices import IN_PARTS
from onestage.training.heads import device_here, racing
from onestage.training.idle import idle
from onestage.training.parts import Given
from onestage.training.pipeline import drafts
from onestage.training.plan import stages_of
from onestage.training.read import make_encoder
from onestage.training.recipe import Train, load_recipe
from onestage.training.scale import Machines, Scaled, Work

LOOKED_INTO = 1 << 27
"""Bytes of a file, at most, that is opened once more for its first row."""


@dataclass(frozen=True)
class Checked:
    """What was found of one run, or of one data file."""

    stage: str
    """Its name; empty where the recipe is one run."""
    findings: Findings
    tokenizer: Any
    cost: Estimate | None
    """What it will take; None where it cannot be run."""
    refused: int = 0
    """Rows of a data file that cannot be used; a recipe says itself what becomes of them."""
    scaled: Scaled | None = None
    """What it would take on machines that were asked about."""

    @property
    def good(self) -> bool:
        """Whether nothing would refuse it."""
        return not self.findings.errors and not self.refused


def check_recipe(
    recipe: Any,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    say: Say = silent,
    machines: Machines | None = None,
    given: Given | None = None,
) -> Iterator[Checked]:
    """Everything about a recipe's data and plan, run by run. `out`: the folder it would be trained
    in; `machines`: on which it is estimated besides; `given`: a model that is there without a folder."""
    whole = load_recipe(recipe, overrides)
    runs = stages_of(whole, out or Path("."))
    drafted = drafts(whole.model, runs, say) if whole.stages else [_drafted(whole, say, given)]
    for stage, draft in zip(runs, drafted, strict=True):
        lora = stage.lora if whole.stages else whole.model.lora
        try:
            found = Checked(stage.name, *_checked(draft, lora, taken(out) if out else None))
            scaled = _scaled(draft, lora, machines) if machines and found.cost else None
            yield replace(found, scaled=scaled)
        finally:
            draft.close()


def _drafted(whole: Any, say: Say, given: Given | None) -> Draft:
    draft = Draft(whole, given=given)
    draft.read(say)
    return draft


def _checked(
    draft: Draft, lora: Lora | None, taken: str | None
) -> tuple[Findings, Any, Estimate | None]:
    recipe, found = draft.recipe, Findings()
    if draft.data is not None:
        room = recipe.rollout.max_completion_length
        encoder = make_encoder(recipe.train, draft.tokenizer, room, draft.taught)
        streams = {stream.name: stream for stream in recipe.data}
        found = examine(draft.data.train, draft.data.held_out, streams, encoder)
    found.errors += [str(conflict) for conflict in draft.conflicts]
    if taken:
        found.errors.append(taken)
    if found.errors:
        return found, draft.tokenizer, None
    _judge_worked(draft, found)
    found.notes += [] if draft.given else text_part_note(draft.first or recipe.model)
    cost = _cost(draft, lora)
    found.warnings += idle(draft)
    found.warnings += _slow(cost.computed, recipe.train)
    found.notes += _untemplated(draft)
    found.notes += racing(recipe.model)
    found.warnings += kept_suite.doubts(recipe.keep, draft.tokenizer)
    averaged = recipe.train.average != "none"
    found.notes += kept_suite.notes(
        recipe.keep, cost.steps, averaged, draft.tokenizer, cost.seconds
    )
    return found, draft.tokenizer, cost


def _slow(computed: torch.dtype, train: Train) -> list[str]:
    """What is said of a precision that this processor is slow in."""
    said = slow_precision(computed, device_here())
    cure = "leave out train.bf16" if train.bf16 else "model.dtype: float32"
    return [f"{said} ({cure})"] if said else []


def _autocast(train: Train) -> torch.dtype | None:
    """What is computed in where it is not what the weights are held in."""
    return torch.bfloat16 if train.bf16 else None


def _untemplated(draft: Draft) -> list[str]:
    """Streams of plain text beside a chat template, which is not put around them: often it is meant to
    be."""
    plain = [stream.name for stream in draft.recipe.data if _is_plain(stream)]
    if not (plain and draft.tokenizer.chat_template):
        return []
    return [
        f"{', '.join(plain)}: plain prompts and answers, and the model's chat template is not put "
        "around them; with as_messages: true it is"
    ]


def _is_plain(stream: Stream) -> bool:
    """Whether the first row of a file that is at hand is a plain prompt."""
    if not isinstance(stream.path, str) or stream.as_messages:
        return False
    file = Path(stream.path)
    if not file.is_file() or file.stat().st_size > LOOKED_INTO:
        return False
    first = next((one for one in read(stream) if isinstance(one, Record)), None)
    return first is not None and not first.is_chat and FEEDBACK[first.kind].layout != "windows"


def _judge_worked(draft: Draft, found: Findings) -> None:
    """Whether the rewards call the data's own worked answers right."""
    at = draft.recipe.rollout.success_at
    judged = judge_worked(draft.problems, draft.stores.train, draft.tokenizer, success_at=at)
    for name, (right, count) in judged.items():
        if right < count:
            found.warnings.append(
                f"{name}: of the first {count} worked answers the reward calls {right} right; if it "
                "does not like those, it will hardly like the policy's: look at their form"
            )
        elif count:
            found.notes.append(f"{name}: the reward calls the first {count} worked answers right")


def _cost(draft: Draft, lora: Lora | None) -> Estimate:
    plan, model, train = draft.planned, draft.recipe.model, draft.recipe.train.on(device_here())
    found = estimate(
        draft.config,
        steps=plan.steps,
        tokens=int(plan.tokens()),
        tokens_per_row=train.row_budget,
        lora_r=lora.r if lora else None,
        dtype=model.dtype,
        four_bits=model.load_in_4bit,
        checkpointing=model.gradient_checkpointing,
        computed_in=_autocast(train),
    )
    return replace(found, schedule=f"{plan.describe()}; {train.row_told}")


def _scaled(draft: Draft, lora: Lora | None, machines: Machines) -> Scaled:
    plan, recipe = draft.planned, draft.recipe
    model, train, rollout = recipe.model, recipe.train.on("cuda"), recipe.rollout
    answers = train.batch_size * rollout.num_generations * rollout.steps_per_generation
    work = Work(
        row=train.row_budget,
        path=train.max_length,
        tokens=int(plan.tokens()),
        optimizer=train.optim,
        autocast=train.bf16,
        sampled=-(-answers // machines.gpus) * train.max_length if draft.problems else 0,
        reference="reference" in plan.terms.needs,
        whole=train.optim not in IN_PARTS,
    )
    spread = recipe.distributed
    checkpointing = model.gradient_checkpointing or spread.activation_checkpointing
    found = footprint(
        draft.config,
        lora=lora,
        dtype=model.dtype,
        four_bits=model.load_in_4bit,
        computed_in=_autocast(train),
    )
    return Scaled(found, work, machines, (spread.sharding, checkpointing))


def check_data(stream: Stream, tokenizer: Any, max_length: int) -> Checked:
    """Everything about one data file."""
    encoder, name = Encoder(tokenizer, max_length), stream.name
    with tempfile.TemporaryDirectory() as folder:
        reading = read(stream)
        store = write(encoder.encode_all(reading), name, Path(folder) / "store", reading)
        store.table.beside(stream)
        found = examine({name: store}, {}, {name: stream}, encoder)
        if not len(store):
            found.errors.append("no record is left")
        return Checked("", found, tokenizer, None, refused=store.table.refused)
