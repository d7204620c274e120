"""The recipe: everything a run is told, checked before anything happens.

YAML, Python and `--set section.key=value` share these names, which follow transformers and TRL where
those have one. An unknown key is refused with the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from onestage.nearest import nearest
from onestage.records.record import KINDS, Kind

ObjectiveChoice = str | dict[str, Any]


class RecipeError(ValueError):
    """A recipe that cannot be run: says what was given and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LoraOptions(_Section):
    r: int = Field(16, ge=1)
    """Rank."""
    alpha: float = Field(32, gt=0)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class ModelOptions(_Section):
    name: str | None = None
    """A folder or hub id; a folder that holds an adapter is trained further."""
    config: dict[str, Any] | str | None = None
    """A fresh model instead: `model_type` and the arguments of its transformers config, or a
    `config.json` (or the folder or hub id that has one)."""
    tokenizer: str | None = None
    """A folder or hub id; default: the model's own."""
    revision: str | None = None
    lora: LoraOptions | None = None
    """Train low-rank adapters; absent: all weights."""
    adapter: Literal["same", "merge", "stack"] = "same"
    """What becomes of the adapter in `name`: trained further (then no `lora`), merged into its base,
    or kept as it is under a new one (`lora`)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision the weights are held in."""
    load_in_4bit: bool = False
    gradient_checkpointing: bool = False
    attn_implementation: str | None = None
    chat_template: str | None = None
    """A Jinja file (or the template itself) instead of the tokenizer's own."""
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> ModelOptions:
        if (self.name is None) == (self.config is None):
            raise ValueError("give exactly one of model.name and model.config")
        if self.config is not None and self.tokenizer is None:
            raise ValueError("model.config makes a fresh model and needs model.tokenizer")
        going_on = self.adapter == "same" and "adapter" in self.model_fields_set
        if self.load_in_4bit and self.lora is None and not going_on:
            raise ValueError("model.load_in_4bit trains adapters only: add model.lora")
        if self.adapter != "same" and self.config is not None:
            raise ValueError(f"model.adapter: {self.adapter} needs model.name, an adapter folder")
        if self.adapter == "stack" and self.lora is None:
            raise ValueError("model.adapter: stack trains a new adapter: add model.lora")
        return self


class DataOptions(_Section):
    name: str
    """The stream's name, in metrics and in the objective map."""
    path: str
    """A file (.jsonl, .json, .parquet, also .gz), a folder, a glob, or a hub data set."""
    kind: Kind | None = None
    """Default: inferred for each row from its columns."""
    columns: dict[str, str] = {}
    """Our column name -> the file's."""
    weight: float | None = Field(None, ge=0)
    """Part in the mixture. When any stream has one, the others count 1; else parts go by size."""
    per_step: int | None = Field(None, ge=1)
    """Exactly this many records of the stream in every step."""
    limit: int | None = Field(None, ge=1)
    """At most this many records."""
    eval_path: str | None = None
    """Held-out rows of the same shape, for evaluation losses."""
    eval_limit: int | None = Field(None, ge=1)
    split: str = "train"
    """Of a hub data set."""
    eval_split: str | None = None
    """Of a hub data set: evaluate on this split of the same path."""
    subset: str | None = None
    """Configuration name of a hub data set."""
    streaming: bool = False
    """Read a hub data set without downloading it whole first."""
    as_messages: bool = False
    """Turn plain prompts and completions into messages, so that the chat template is applied."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """Declared range of given scores, mapped linearly to [0, 1]."""
    ratings: dict[str, float] | None = None
    """Rating columns and their weights, which together make the score; `score_range` is then the
    range of each rating."""


class TrainOptions(_Section):
    max_steps: int | None = Field(None, ge=1)
    num_train_epochs: float | None = Field(None, gt=0)
    """Used when max_steps is not given; then 1 by default."""
    batch_size: int = Field(32, ge=1)
    """Records in a step, over all streams and processes."""
    learning_rate: float = Field(5e-5, gt=0)
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] = {}
    warmup_ratio: float = Field(0.0, ge=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    """Used instead of warmup_ratio when positive."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are clipped to this norm; 0 turns it off."""
    optim: str = "adamw_torch_fused"
    """An optimiser by its transformers name."""
    optim_args: str | None = None
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    seed: int = 42
    bf16: bool = False
    """Compute in bfloat16 (autocast); weights stay as model.dtype has them."""
    max_length: int = Field(1024, ge=2)
    """Longest path in tokens, special tokens included."""
    overflow: Literal["error", "drop", "truncate_prompt"] = "error"
    """What happens to a record that is longer."""
    bad_rows: Literal["error", "skip"] = "error"
    """What happens when a source holds rows that cannot be read: stop, or leave them out, counted."""
    tokens_per_row: int | None = Field(None, ge=2)
    """Tokens in one forward pass; default max(max_length, 1024)."""
    logging_steps: int = Field(10, ge=1)
    eval_steps: int | None = Field(None, ge=1)
    save_steps: int | None = Field(None, ge=1)
    save_total_limit: int | None = Field(None, ge=1)
    """Checkpoints kept, the best one not counted."""
    report_to: str | list[str] = []
    """Accelerate trackers: tensorboard, wandb, trackio, ..."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainOptions:
        if self.max_steps is not None and self.num_train_epochs is not None:
            raise ValueError("give max_steps or num_train_epochs, not both")
        if self.tokens_per_row is not None and self.tokens_per_row < self.max_length:
            raise ValueError(
                f"train.tokens_per_row ({self.tokens_per_row}) must be at least "
                f"train.max_length ({self.max_length}): a row must hold the longest path"
            )
        return self

    @property
    def row_budget(self) -> int:
        return self.tokens_per_row or max(self.max_length, 1024)


class StageOptions(BaseModel):
    """A run of `stages`. Beside these keys, any section of the recipe, for this stage only."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Of its folder."""
    streams: list[str] | None = Field(None, min_length=1)
    """The streams of `data` it trains on; default: all."""
    adapter: Literal["same", "merge", "stack"] | None = None
    """What becomes of the adapter that the stage before leaves (as `model.adapter`)."""
    reference: str | None = None
    """`start` (the stage's own start model), `first` (the model the whole recipe started from), an
    earlier stage's name, or a folder or hub id."""


class Recipe(_Section):
    model: ModelOptions
    data: list[DataOptions] = Field(min_length=1)
    objective: ObjectiveChoice = "uft"
    """A name, a table `{name: dpo, beta: 0.1}`, or a map from kind or stream name to either."""
    train: TrainOptions = Field(default_factory=lambda: TrainOptions.model_validate({}))
    reference: str = "start"
    """The model that losses compare with: `start`, the one the run starts from, or a folder or hub id
    of another with the same vocabulary."""
    stages: list[StageOptions] | None = Field(None, min_length=1)
    """Runs one after another, each from the model of the one before. See docs/stages.md."""
    cache_dir: str | None = None
    """Encoded data and reference log-probabilities; default $ONESTAGE_CACHE or ~/.cache/onestage."""
    description: str = ""
    """For people: what the recipe is, hardware, time, the number to expect."""

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        names = [stream.name for stream in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data: stream names must differ, found {twice} more than once")
        evaluated = any(stream.eval_path or stream.eval_split for stream in self.data)
        if self.train.eval_steps and not evaluated:
            raise ValueError("train.eval_steps needs a stream with eval_path or eval_split")
        clash = sorted(set(names) & set(KINDS))
        if clash and isinstance(self.objective, dict) and set(clash) & set(self.objective):
            raise ValueError(f"data: {clash} name both a stream and a kind in the objective map")
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe and apply `section.key=value` overrides (values are YAML)."""
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError as error:
        raise RecipeError(f"no recipe at {file}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{file}: a recipe is a mapping with the keys {list(Recipe.model_fields)}"
        )
    for override in overrides:
        _set(content, override)
    return parse_recipe(content)


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """Check a recipe given as plain data."""
    try:
        return Recipe.model_validate(dict(content))
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(problem) for problem in error.errors())) from error


def _set(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override!r}: expected section.key=value")
    *sections, last = key.split(".")
    target: Any = content
    for section in sections:
        if isinstance(target, list):
            target = _item(target, section, override)
            continue
        if isinstance(target.get(section), str) and section == "objective":
            target[section] = {"name": target[section]}
        target = target.setdefault(section, {})
        if not isinstance(target, dict | list):
            raise RecipeError(f"--set {override!r}: {section} is a value, not a section")
    parsed = _number(yaml.safe_load(value))
    if isinstance(target, list):
        target[_place(target, last, override)] = parsed
    else:
        target[last] = parsed


def _item(streams: list[Any], name: str, override: str) -> Any:
    return streams[_place(streams, name, override)]


def _place(streams: list[Any], name: str, override: str) -> int:
    """A stream or stage by its name or number."""
    for number, stream in enumerate(streams):
        if name == str(number) or (isinstance(stream, dict) and stream.get("name") == name):
            return number
    known = [stream.get("name") for stream in streams if isinstance(stream, dict)]
    what = "stage" if override.startswith("stages.") else "stream"
    raise RecipeError(f"--set {override!r}: no {what} {name!r}; there are {known}")


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        return f"{place}: unknown key{nearest(str(problem['loc'][-1]), known)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f", got {given!r}" if place and not isinstance(given, dict | list | BaseModel) else ""
    return f"{place}: {message}{shown}" if place else message


def _known_keys(place: Sequence[Any]) -> list[str]:
    section: Any = Recipe
    for part in place:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)
