"""`onestage check`: gather what the doctor needs from a recipe or a data file, and print it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from onestage.cli._findings import show
from onestage.data.inspect import Findings, examine
from onestage.data.reading import read
from onestage.data.record import Refusal
from onestage.data.store import write
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.models import Lora, adapter_base, check_vocabulary, config_of, tokenizer_of
from onestage.models.estimate import Estimate, estimate
from onestage.rollout import build as rollout
from onestage.rollout.problems import Problems
from onestage.runfolder import Say
from onestage.training.pipeline import check_stage
from onestage.training.plan import make_plan
from onestage.training.read import Data, judge, make_encoder, read_data
from onestage.training.recipe import Recipe, load_recipe
from onestage.training.stages import Stage, plan


def check_recipe(file: Path, overrides: Sequence[str], console: Console, say: Say) -> bool:
    """Print everything about a recipe's data and plan; returns whether it could be trained."""
    recipe = load_recipe(file, overrides)
    tokenizer, config = tokenizer_of(recipe.model), config_of(recipe.model)
    check_vocabulary(tokenizer, config)
    if not recipe.stages:
        return _check_run(recipe, None, tokenizer, config, console, say)
    good = True
    for stage in plan(recipe, file.parent, from_adapter=adapter_base(recipe.model) is not None):
        console.rule(f"stage {stage.name}")
        good &= _check_run(stage.recipe, stage, tokenizer, config, console, say)
    return good


def _check_run(
    recipe: Recipe, stage: Stage | None, tokenizer: Any, config: Any, console: Console, say: Say
) -> bool:
    """Print everything about one run, which may be a stage of several."""
    data = read_data(recipe, tokenizer, say)
    problems = rollout.problems_of(recipe.data)
    try:
        found = _findings(recipe, stage, data, problems, tokenizer)
    finally:
        rollout.close(problems)
    lora = stage.lora if stage else recipe.model.lora
    cost = None if found.errors else _cost(recipe, data, config, lora)
    show(console, found, tokenizer, cost)
    return not found.errors


def _findings(
    recipe: Recipe,
    stage: Stage | None,
    data: Data,
    problems: Mapping[str, Problems],
    tokenizer: Any,
) -> Findings:
    sources = {stream.name: stream for stream in recipe.data}
    found = examine(data.train, data.held_out, sources, make_encoder(recipe, tokenizer))
    found.errors += _errors(recipe, stage, data, problems)
    if not found.errors:
        _judge_worked(recipe, problems, data, tokenizer, found)
    return found


def _judge_worked(
    recipe: Recipe, problems: Mapping[str, Problems], data: Data, tokenizer: Any, found: Findings
) -> None:
    """Whether the rewards call the data's own worked answers right."""
    worked = rollout.judge_worked(
        problems, data.train, tokenizer, success_at=recipe.rollout.success_at
    )
    for name, (right, count) in worked.items():
        if right < count:
            found.warnings.append(
                f"{name}: of the first {count} worked answers the reward calls {right} right; if it "
                "does not like those, it will hardly like the policy's: look at their form"
            )
        elif count:
            found.notes.append(f"{name}: the reward calls the first {count} worked answers right")


def _errors(
    recipe: Recipe, stage: Stage | None, data: Data, problems: Mapping[str, Problems]
) -> list[str]:
    """What would refuse the run before its first step."""
    errors = []
    if stage is not None:
        try:
            check_stage(stage, data, problems)
        except ValueError as error:
            errors.append(f"stages.{stage.name}: {error}")
        return errors
    steps = (
        lambda: judge(recipe, data),
        lambda: make_plan(recipe, data),
        lambda: rollout.check(problems, data.train, data.held_out),
    )
    for step in steps:
        try:
            step()
        except ValueError as error:
            errors.append(str(error))
    return errors


def _cost(recipe: Recipe, data: Data, config: Any, lora: Lora | None) -> Estimate:
    plan = make_plan(recipe, data)
    found = estimate(
        config,
        steps=plan.steps,
        tokens=int(plan.tokens()),
        tokens_per_row=recipe.train.row_budget,
        lora_r=lora.r if lora else None,
        bytes_per_weight=_bytes_per_weight(recipe),
        checkpointing=recipe.model.gradient_checkpointing,
    )
    return replace(found, schedule=plan.describe())


def _bytes_per_weight(recipe: Recipe) -> float:
    if recipe.model.load_in_4bit:
        return 0.55
    return 2.0 if recipe.model.dtype in ("bfloat16", "float16") else 4.0


def check_data(stream: Stream, tokenizer: str | None, max_length: int, console: Console) -> bool:
    """Print everything about one data file; without a tokenizer, what needs no tokens."""
    if tokenizer is None:
        return _check_rows(stream, console)
    from transformers import AutoTokenizer

    encoder = Encoder(AutoTokenizer.from_pretrained(tokenizer), max_length)
    with tempfile.TemporaryDirectory() as folder:
        name = stream.name
        store = write(encoder.encode_all(read(stream)), name, Path(folder) / "store")
        found = examine({name: store}, {}, {name: stream}, encoder)
        if not len(store):
            found.errors.append("no record is left")
        show(console, found, encoder.tokenizer, None)
    return not found.errors and not store.table.refused


def _check_rows(stream: Stream, console: Console) -> bool:
    """Kinds and refused rows, counted in characters."""
    kinds: dict[str, list[int]] = {}
    refused: list[Refusal] = []
    ties = 0
    for item in read(stream):
        if isinstance(item, Refusal):
            ties += item.tie
            refused += [] if item.tie else [item]
            continue
        size = len(str(item.prompt)) + sum(len(str(part)) for part in item.completions)
        kinds.setdefault(item.kind, []).append(size)
    for kind, sizes in kinds.items():
        console.print(
            f"{len(sizes):,} {kind} records, {sum(sizes):,} characters, longest {max(sizes):,}"
        )
    console.print(f"{len(refused):,} rows refused, {ties:,} ties left out")
    for row in refused[:20]:
        console.print(f"  {row.where}: {row.reason}", markup=False)
    console.print("give --tokenizer to see tokens, marked examples and duplicates", style="dim")
    return bool(kinds) and not refused
