"""What a recipe says of a model: the sections `model` and `model.lora`.

They are the arguments of this room's functions too. Nothing here reads a file, and nothing heavy is
imported, so that a recipe can be checked before any library of models is loaded.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from onestage.config import Section

ORIGIN = "onestage_origin.json"
"""In the folder of a start model, one that a run made itself: what it was made from."""

Task = Literal["causal", "reward"]
"""What a model says of a token: a distribution of the next one, or how good the text is so far."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
HEADS = ("onestage", "liger", "trl")
"""Whose head is computed with: ours, or another library's fused one."""
GIVES: dict[Task, frozenset[str]] = {
    "causal": frozenset(
        {
            *("logp", "entropy", "top_entropy", "value", "forward_kl", "reverse_kl", "js"),
            *("rivals", "mixed_logp"),
        }
    ),
    "reward": frozenset({"reward"}),
}
"""What the two sorts of models say of a token: what an objective may need (`objectives.Need`)."""


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), with PEFT's meaning of each name."""

    r: int = Field(default=16, ge=1, le=65536)
    """Rank."""
    alpha: float = Field(default=32, gt=0)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    preserve_rank: int | None = Field(default=None, ge=1)
    """So many of the strongest singular directions of each adapted weight stay as they are: the update
    is orthogonal to them on both sides (OPLoRA, arXiv 2510.13003)."""


class Model(Section):
    """Where a model comes from, and how it is held and trained."""

    name: str | None = None
    """A folder or hub id; a folder that holds an adapter is trained further."""
    config: dict[str, Any] | str | None = None
    """A fresh model instead: `model_type` and the arguments of its transformers config, or a
    `config.json` (or the folder or hub id that has one)."""
    tokenizer: str | None = None
    """A folder or hub id; default: the model's own."""
    task: Task = "causal"
    """What is trained: a language model, or a reward model (a classifier with one label) on one."""
    revision: str | None = None
    lora: Lora | None = None
    """Train low-rank adapters; absent: all weights."""
    adapter: Literal["same", "merge", "stack"] = "same"
    """What becomes of the adapter in `name`: trained further (then no `lora`), merged into its base,
    or kept as it is under a new one (`lora`)."""
    dtype: Precision = "auto"
    """Precision the model runs and is saved in. What is trained of it in less than float32 has float32
    masters."""
    load_in_4bit: bool = False
    gradient_checkpointing: bool = False
    attn_implementation: str | None = None
    head: Literal["auto", "onestage", "liger", "trl"] = "auto"
    """Whose fused head makes log-probabilities of hidden states: on a GPU the fastest of those that are
    installed, exact and need no more memory, measured when a run begins; else onestage's."""
    chat_template: str | None = None
    """A Jinja file (or the template itself) instead of the tokenizer's own."""
    trust_remote_code: bool = False

    @property
    def gives(self) -> frozenset[str]:
        """What the model will say of a token, known before it is loaded."""
        return GIVES[self.task]

    @property
    def uncut(self) -> str:
        """What of it cannot lie in parts on many devices, and what to do; nothing where all can."""
        if self.lora is not None and self.lora.preserve_rank is not None:
            return (
                "adapters that are kept off some directions (model.lora.preserve_rank); set sharding: "
                "none, or leave preserve_rank out"
            )
        return ""

    @field_validator("name", "config", "tokenizer")
    @classmethod
    def _somewhere(cls, value: Any) -> Any:
        # An empty path is the folder that one happens to be in.
        if isinstance(value, str) and not value.strip():
            raise ValueError("an empty text is no model or tokenizer; give a folder or a hub id")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
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
        if self.lora is not None and self.lora.preserve_rank is not None:
            self._require_directions()
        return self

    def _require_directions(self) -> None:
        """Raise `ValueError` where singular directions cannot be had of the weights that are adapted."""
        if self.load_in_4bit:
            raise ValueError(
                "model.lora.preserve_rank takes singular directions of whole weights, and those of "
                "model.load_in_4bit are packed; leave one of the two out"
            )
        if self.adapter == "stack":
            raise ValueError(
                "model.lora.preserve_rank keeps off directions of the base, and under model.adapter: "
                "stack an earlier adapter lies on it; take adapter: merge"
            )
