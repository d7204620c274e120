"""The sections of a recipe: every option, its type, its default and what it means.

Names follow transformers and TRL where those have one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onestage.records.record import Kind
from onestage.schedules.clipping import Clip

ObjectiveChoice = str | dict[str, Any]
ScheduleChoice = str | dict[str, Any]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LoraOptions(Section):
    r: int = Field(16, ge=1)
    """Rank."""
    alpha: float = Field(32, gt=0)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class ModelOptions(Section):
    name: str | None = None
    """A folder or hub id; a folder that holds an adapter is trained further."""
    config: dict[str, Any] | str | None = None
    """A fresh model instead: `model_type` and the arguments of its transformers config, or a
    `config.json` (or the folder or hub id that has one)."""
    tokenizer: str | None = None
    """A folder or hub id; default: the model's own."""
    task: Literal["causal", "reward"] = "causal"
    """What is trained: a language model, or a reward model (a classifier with one label) on one."""
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
        if self.task == "reward" and self.load_in_4bit:
            raise ValueError("model.task: reward needs whole weights: remove model.load_in_4bit")
        if self.adapter == "stack" and self.lora is None:
            raise ValueError("model.adapter: stack trains a new adapter: add model.lora")
        return self


class DataOptions(Section):
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
    reward: str | dict[str, Any] | list[str | dict[str, Any]] | None = None
    """What judges the policy's answers to `check` records: a name, a table `{name: countdown, ...}` of
    its options, or a list of them, each with a `weight` (default 1)."""
    hint: str | dict[str, Any] = "none"
    """How much of a worked solution is given away: a rule's name or a table of its options."""
    feedback: Literal["group", "pair"] = "group"
    """What becomes of a group of answers: all of them with their rewards, or the best and the worst."""


class ProbeOptions(Section):
    """Measurements that never change training, taken before step 0, every `steps`, and at the end."""

    steps: int = Field(50, ge=1)
    gradients: bool = True
    """Norm, share and pairwise cosine of the objectives' gradients, each on a batch of its own."""
    retention: list[DataOptions] = []
    """Held-out text or prompts with answers, on which loss and KL to the start model are taken."""
    task_tokens: int = Field(2048, ge=0)
    """Scored tokens of each term's records on which the KL to the start model is taken."""

    @model_validator(mode="after")
    def _watched(self) -> ProbeOptions:
        names = [stream.name for stream in self.retention]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"probe.retention: names must differ, found {twice} more than once")
        for stream in self.retention:
            odd = stream.model_fields_set & {
                *("weight", "per_step", "eval_path", "eval_limit", "eval_split")
            }
            if odd:
                raise ValueError(
                    f"probe.retention: {stream.name} is never trained on, {sorted(odd)} would do nothing"
                )
        return self


class GuardOptions(Section):
    """A threshold on something the probe measures, and what to do above it."""

    measure: str
    """As in the metrics: `retention/NAME/kl`, `retention/NAME/loss_increase`, `task/TERM/kl`, ..."""
    above: float
    then: Literal["warn", "stop", "raise"] = "warn"
    term: str | None = None
    """Of `raise`: the term whose weight is raised, at every probe that finds too much."""
    factor: float = Field(2.0, gt=1)
    """Of `raise`."""

    @model_validator(mode="after")
    def _complete(self) -> GuardOptions:
        if (self.then == "raise") != (self.term is not None):
            raise ValueError("guard: `then: raise` needs a term, and only it takes one")
        return self


class OptimumOptions(Section):
    """The best value f* of each term, for optimality gaps and for MAXRIGHT."""

    given: dict[str, float] = {}
    """On held-out rows: what gaps are told against."""
    on_training: dict[str, float] = {}
    """On training rows, by whose losses MAXRIGHT decides; default: `given`."""
    steps: int | None = Field(None, ge=1)
    """Measure the others by runs of one term, so many steps long; cached by content."""


class RolloutOptions(Section):
    """How the policy answers `check` records."""

    engine: str | dict[str, Any] = "transformers"
    """A name, or a table of it and its options."""
    num_generations: int = Field(8, ge=1)
    """Completions of a problem (G)."""
    max_completion_length: int = Field(256, ge=1)
    temperature: float = Field(1.0, ge=0)
    """Of sampling only; losses always use log-probabilities at temperature 1."""
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    steps_per_generation: int = Field(1, ge=1)
    """Batches of problems that are answered together, by the same policy."""
    num_iterations: int = Field(1, ge=1)
    """How often these batches are gone through before new ones are answered."""
    policy: Literal["current", "start"] = "current"
    """Who answers: the policy as it is, or as it was before the run (iterative DPO)."""
    missing_eos_penalty: float = Field(0.0, ge=0)
    """Taken off the reward of a completion that did not end within the limit."""
    success_at: float = 1.0
    """A completion with this reward or more counts as right."""
    on_failure: Literal["zero", "stop"] = "zero"
    """When a reward cannot be found (it raises, takes too long, is no number): count it as nothing, or
    stop the run."""
    alarm_after: int = Field(20, ge=1)
    """Rollouts that taught nothing (none right, rewards equal) after which you are told what to do."""
    eval_temperature: float = Field(0.0, ge=0)
    """Of evaluations; 0 is greedy."""
    eval_generations: int = Field(1, ge=1)


class TrainOptions(Section):
    max_steps: int | None = Field(None, ge=1)
    num_train_epochs: float | None = Field(None, gt=0)
    """Used when max_steps is not given; then 1 by default."""
    max_tokens: int | None = Field(None, ge=1)
    """End the run after the step that reaches so many tokens, if that comes before max_steps. What
    only sees max_steps (learning rates, `sequential`, `tail`) goes by steps all the same."""
    batch_size: int = Field(32, ge=1)
    """Records in a step, over all streams and processes; of each term, where terms draw their own."""
    learning_rate: float = Field(5e-5, gt=0)
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] = {}
    warmup_ratio: float = Field(0.0, ge=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    """Used instead of warmup_ratio when positive."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are clipped to this norm; 0 turns it off."""
    clip: Clip = "auto"
    """`step`: each step on its own. `common`: by a factor common to all terms, which keeps their
    weights. `auto`: common where a schedule draws one term a step at random (ALRIGHT)."""
    delta_l1: float = Field(0.0, ge=0)
    """Weight of an L1 penalty on what adapters add to the base (PAFT); part of the reported loss."""
    average: Literal["none", "ema", "tail"] = "none"
    """Average the iterates: `model/` is then the average, `model_last/` the last iterate."""
    average_decay: float = Field(0.999, gt=0, lt=1)
    """Of `ema`, per step."""
    average_start: float = Field(0.5, ge=0, lt=1)
    """Part of the run after which `tail` averaging begins."""
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
