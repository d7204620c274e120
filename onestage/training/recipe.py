"""The recipe: everything a run is told, checked before anything happens.

A section is declared once, in the room whose functions it is the argument of; the sections of
training stand here. YAML, Python and `--set section.key=value` are one schema, whose names follow
transformers and TRL where those have one. An unknown key is refused with the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from onestage.config import Choice, RecipeError, Section, checked, override, read_yaml
from onestage.data.given import has_splits
from onestage.data.kinds import KINDS
from onestage.data.stream import Stream
from onestage.models import Model
from onestage.rollout.rollout import Rollout
from onestage.runfolder.secrets import secrets
from onestage.training.distributed import Distributed
from onestage.training.imports import refuse_foreign
from onestage.training.imports._called import OURS, STUDY
from onestage.training.keep import Keep
from onestage.training.questions import Evaluate, Verdict

Clip = Literal["auto", "step", "common"]


class Probe(Section):
    """Measurements that never change training, taken before step 0, every `steps`, and at the end."""

    steps: int = Field(default=50, ge=1)
    gradients: bool = True
    """Norm, share and pairwise cosine of the objectives' gradients, each on a batch of its own."""
    retention: list[Stream] = []
    """Held-out text or prompts with answers, on which loss and KL to the start model are taken."""
    task_tokens: int = Field(default=2048, ge=0)
    """Scored tokens of each term's records on which the KL to the start model is taken."""

    @model_validator(mode="after")
    def _watched(self) -> Probe:
        names = [stream.name for stream in self.retention]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"probe.retention: names must differ, found {twice} more than once")
        for stream in self.retention:
            odd = stream.model_fields_set & {
                *("weight", "per_step", "eval_path", "eval_limit", "eval_split"),
                *("reward", "hint", "feedback"),
            }
            if odd:
                raise ValueError(
                    f"probe.retention: {stream.name} is never trained on, {sorted(odd)} would do nothing"
                )
        return self


class Guard(Section):
    """A threshold on something the probe measures, and what to do above it."""

    measure: str
    """As in the metrics: `retention/NAME/kl`, `retention/NAME/loss_increase`, `task/TERM/kl`, ..."""
    above: float
    then: Literal["warn", "stop", "raise"] = "warn"
    term: str | None = None
    """Of `raise`: the term whose weight is raised, at every probe that finds too much."""
    factor: float = Field(default=2.0, gt=1)
    """Of `raise`."""

    @model_validator(mode="after")
    def _complete(self) -> Guard:
        if (self.then == "raise") != (self.term is not None):
            raise ValueError("guard: `then: raise` needs a term, and only it takes one")
        return self


class Optimum(Section):
    """The best value f* of each term, for optimality gaps and for MAXRIGHT."""

    given: dict[str, float] = {}
    """On held-out rows: what gaps are told against."""
    on_training: dict[str, float] = {}
    """On training rows, by whose losses MAXRIGHT decides; default: `given`."""
    steps: int | None = Field(default=None, ge=1)
    """Measure the others by runs of one term, so many steps long; cached by content."""


class Train(Section):
    max_steps: int | None = Field(default=None, ge=1)
    num_train_epochs: float | None = Field(default=None, gt=0)
    """Used when max_steps is not given; then 1 by default."""
    max_tokens: int | None = Field(default=None, ge=1)
    """End the run after the step that reaches so many tokens, if that comes before max_steps. What
    only sees max_steps (learning rates, `sequential`, `tail`) goes by steps all the same."""
    batch_size: int = Field(default=32, ge=1)
    """Records in a step, over all streams and processes; of each term, where terms draw their own."""
    learning_rate: float = Field(default=5e-5, gt=0)
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] = {}
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    warmup_steps: int = Field(default=0, ge=0)
    """Used instead of warmup_ratio when positive."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are clipped to this norm; 0 turns it off."""
    clip: Clip = "auto"
    """`step`: each step on its own. `common`: by a factor common to all terms, which keeps their
    weights. `auto`: common where a schedule draws one term a step at random (ALRIGHT)."""
    delta_l1: float = Field(default=0.0, ge=0)
    """Weight of an L1 penalty on what adapters add to the base (PAFT); part of the reported loss."""
    average: Literal["none", "ema", "tail"] = "none"
    """Average the iterates: `model/` is then the average, `model_last/` the last iterate."""
    average_decay: float = Field(default=0.999, gt=0, lt=1)
    """Of `ema`, per step."""
    average_start: float = Field(default=0.5, ge=0, lt=1)
    """Part of the run after which `tail` averaging begins."""
    optim: str = "adamw_torch_fused"
    """An optimiser by its transformers name."""
    optim_args: str | None = None
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    seed: int = 42
    bf16: bool = False
    """Compute in bfloat16 (autocast); weights stay as model.dtype has them."""
    max_length: int = Field(default=1024, ge=2)
    """Longest path in tokens, special tokens included."""
    overflow: Literal["error", "drop", "truncate_prompt"] = "error"
    """What happens to a record that is longer."""
    bad_rows: Literal["error", "skip"] = "error"
    """What happens when a source holds rows that cannot be read: stop, or leave them out, counted."""
    tokens_per_row: int | None = Field(default=None, ge=2)
    """Tokens in one forward pass; default max(max_length, 1024) on the CPU, max(max_length, 4096) on
    accelerators."""
    dataset_num_proc: int = Field(default=1, ge=1)
    """Processes that encode the data, on each node."""
    logging_steps: int = Field(default=10, ge=1)
    eval_steps: int | None = Field(default=None, ge=1)
    save_steps: int | None = Field(default=None, ge=1)
    save_total_limit: int | None = Field(default=None, ge=1)
    """Checkpoints kept, the best one not counted."""
    async_save: bool = False
    """Whether checkpoints are written while training goes on, from a copy in the host's memory."""
    report_to: str | list[str] = []
    """Accelerate trackers: tensorboard, wandb, trackio, ..."""
    callbacks: list[Choice] = []
    """Who looks on besides: `mypackage:Mine`, or a table of it and its options."""
    _device: str = PrivateAttr("cpu")

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if self.max_steps is not None and self.num_train_epochs is not None:
            raise ValueError("give max_steps or num_train_epochs, not both")
        if self.tokens_per_row is not None and self.tokens_per_row < self.max_length:
            raise ValueError(
                f"train.tokens_per_row ({self.tokens_per_row}) must be at least "
                f"train.max_length ({self.max_length}): a row must hold the longest path"
            )
        return self

    def on(self, device: str) -> Train:
        """The same on a device of this type (`cpu`, `cuda`, ...), by which some defaults go."""
        made = self.model_copy()
        made._device = device
        return made

    @property
    def row_budget(self) -> int:
        """Tokens in one forward pass."""
        # An accelerator does little while a kernel starts: short rows leave it idle.
        return self.tokens_per_row or max(self.max_length, 1024 if self._device == "cpu" else 4096)

    @property
    def row_told(self) -> str:
        """How long a row is, and who says so."""
        by = "" if self.tokens_per_row else f", by default on {self._device}"
        return f"rows of up to {self.row_budget:,} tokens (train.tokens_per_row{by})"


class Stage(BaseModel):
    """A run of `stages`. Beside these keys, any section of the recipe, for this stage only."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Of its folder."""
    streams: list[str] | None = Field(default=None, min_length=1)
    """The streams of `data` it trains on; default: all."""
    adapter: Literal["same", "merge", "stack"] | None = None
    """What becomes of the adapter that the stage before leaves (as `model.adapter`)."""
    reference: str | None = None
    """`start` (the stage's own start model), `first` (the model the whole recipe started from), an
    earlier stage's name, or a folder or hub id."""


class Recipe(Section):
    """Everything a run is told."""

    CALLED = OURS

    model: Model
    """A section, or a folder or hub id alone."""
    data: list[Stream] = Field(min_length=1)
    """A list of streams, or a table of them by name; a stream may be a path alone."""
    objective: Choice = "uft"
    """A name, a table `{name: dpo, beta: 0.1}`, or a map from kind or stream name to either."""
    schedule: Choice = "proportional"
    """A name, or a table `{name: alright, weights: {dpo: 0.25, sft: 0.75}}` with its options."""
    probe: Probe | None = None
    guard: list[Guard] = []
    keep: list[Keep] = []
    """How much may be forgotten. See docs/forgetting.md."""
    optimum: Optimum | None = None
    evaluate: Evaluate | None = None
    verdict: Verdict = Verdict()
    rollout: Rollout = Rollout()
    train: Train = Train()
    distributed: Distributed = Distributed()
    reference: str = "start"
    """The model that losses compare with: `start`, the one the run starts from, or a folder or hub id
    of another with the same vocabulary."""
    stages: list[Stage] | None = Field(default=None, min_length=1)
    """Runs one after another, each from the model of the one before. See docs/stages.md."""
    cache_dir: str | None = None
    """Encoded data and reference log-probabilities; default $ONESTAGE_CACHE or ~/.cache/onestage."""
    description: str = ""
    """For people: what the recipe is, hardware, time, the number to expect."""

    @field_validator("model", mode="before")
    @classmethod
    def _named_model(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("data", mode="before")
    @classmethod
    def _named_streams(cls, value: Any) -> Any:
        return (
            [_stream(name, one) for name, one in value.items()]
            if isinstance(value, dict)
            else value
        )

    @model_validator(mode="after")
    def _no_secrets(self) -> Recipe:
        # Rows that are given in Python are no text here: what they say is the user's own.
        for found in secrets(self.model_dump(exclude_unset=True)):
            raise ValueError(found)
        return self

    @model_validator(mode="after")
    def _bounds(self) -> Recipe:
        kept = [keep.name for keep in self.keep]
        if len(set(kept)) < len(kept):
            raise ValueError(f"keep: names must differ, found {kept}")
        for keep in self.keep:
            if keep.of and not keep.on_suite and self.model.task == "reward":
                raise ValueError(
                    f"keep {keep.name}: a reward model gives no log-probabilities of a text; keep the "
                    "loss of a stream (what: loss)"
                )
            told = [s for s in self.data if s.name == keep.stream and s.held_out]
            if keep.stream and not told:
                raise ValueError(
                    f"keep {keep.name}: no stream of data has that name and held-out rows (eval_path or "
                    "eval_split)"
                )
        return self

    @property
    def watched(self) -> list[Stream]:
        """What is read to be measured and not to be trained on."""
        kept = [stream for keep in self.keep for stream in keep.streams()]
        return [*(self.probe.retention if self.probe else ()), *kept]

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        names = [stream.name for stream in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data: stream names must differ, found {twice} more than once")
        evaluated = any(stream.eval_path or stream.eval_split for stream in self.data)
        if self.train.eval_steps and not evaluated:
            raise ValueError("train.eval_steps needs a stream with eval_path or eval_split")
        if self.evaluate and self.evaluate.best == "loss" and not self.train.eval_steps:
            raise ValueError("evaluate.best: loss needs held-out rows and train.eval_steps")
        if self.evaluate:
            self.evaluate.check_beside(self.train.average != "none", bool(self.keep))
        if self.guard and self.probe is None:
            raise ValueError("guard: watches what the probe measures; add a probe section")
        hinted = [s.name for s in self.data if s.hint != "none" or s.feedback == "pair"]
        unjudged = sorted({s.name for s in self.data if s.reward is None} & set(hinted))
        if unjudged:
            raise ValueError(
                f"data: {unjudged} have a hint or feedback: pair but no reward; only answers of the "
                "policy are hinted and paired"
            )
        clash = sorted(set(names) & set(KINDS))
        if clash and isinstance(self.objective, dict) and set(clash) & set(self.objective):
            raise ValueError(f"data: {clash} name both a stream and a kind in the objective map")
        return self


def _stream(name: str, given: Any) -> Any:
    """A stream of a table: its section, or what its path is."""
    if isinstance(given, Stream):
        return given.model_copy(update={"name": name})
    whole = not isinstance(given, dict) or has_splits(given)
    return {"name": name, "path": given} if whole else {"name": name, **given}


def load_recipe(given: Any, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by its file, its content, or as it is, with `section.key=value` overrides (values are
    YAML)."""
    if isinstance(given, Recipe):
        return given
    content = given
    if isinstance(given, str | Path):
        content = read_yaml(Path(given), "recipe", Recipe.model_fields)
        refuse_foreign(content, given)
    for one in overrides:
        override(content, one)
    return parse_recipe(content)


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """Check a recipe given as plain data."""
    if "methods" in content:
        raise RecipeError(STUDY)  # in the place of a line for each of its keys
    return checked(Recipe, dict(content), RecipeError)
