"""TODO."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from onestage.config import Section
from onestage.data.record import Kind


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
