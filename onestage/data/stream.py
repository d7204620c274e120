"""A stream: where rows of feedback come from and what they mean. A recipe's `data` is a list of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from onestage.config import Choice, Section
from onestage.data._row_advice import nearest_name
from onestage.data.given import Place
from onestage.data.kinds import COLUMNS, FEEDBACK, Kind, stated_kind
from onestage.data.scores import checked_range

NAMES = (
    *("kind", "weight", "id", "tools", "chat_template_kwargs"),
    *COLUMNS,
    *("instruction", "input", "output", "system", "history", "annotator"),
)
"""Our names for columns. A row's `source` column is not among them: the stream's name is it."""

FOREIGN = frozenset(("kto_tag", "rejected_response", "rejected_messages"))
"""Feedback of other tools, by their names: a row that has it is no demonstration."""

SPLIT = "split"
"""A column that says which rows are for training; it is looked at, and not heeded."""

REFUSED = FOREIGN | {"images", "videos", "audios"}
"""What a row is refused for, so that it is read from a table as well."""


class Stream(Section):
    """Rows and how to read them, as in `Stream("pairs.jsonl", weight=2)`.

    Raises pydantic's ValidationError, a ValueError, for options that cannot be understood. Whether the
    rows are there is known when they are read.
    """

    LOOKED_AT_ELSEWHERE = frozenset({"ratings"})

    name: str
    """The stream's name, in metrics and in the objective map."""
    path: Place
    """A file (.jsonl, .json, .parquet, .csv, .tsv, .xlsx, .txt; text also .gz), a folder, a glob, an
    address (s3://, gs://, hf://), or a hub data set. In Python also a list of dicts or a
    `datasets.Dataset`."""
    kind: Kind | None = None
    """Default: inferred for each row from its columns."""
    columns: dict[str, str] = {}
    """Our column name -> the file's."""
    weight: float | None = Field(default=None, ge=0)
    """Part in the mixture. When any stream has one, the others count 1; else parts go by size."""
    per_step: int | None = Field(default=None, ge=1)
    """Exactly this many records of the stream in every step."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many records; refused rows do not count."""
    eval_path: Place | None = None
    """Held-out rows of the same shape, for evaluation losses."""
    eval_limit: int | None = Field(default=None, ge=1)
    split: str = "train"
    """Of a hub data set."""
    eval_split: str | None = None
    """Of a hub data set: evaluate on this split of the same path."""
    subset: str | None = None
    """Configuration name of a hub data set; of a workbook (.xlsx), the sheet."""
    encoding: str | None = None
    """Of a file of text that is not in UTF-8: utf-16, latin-1, cp1252, shift_jis, ..."""
    delimiter: str | None = None
    """What separates the cells of a .csv (else a comma) or .tsv (else a tab)."""
    streaming: bool = False
    """Read a hub data set without downloading it whole first."""
    portion: int | None = Field(default=None, ge=1)
    """Read and encode this many rows at a time, the first before the run begins and the others when
    those before them have been drawn: of data that are still arriving, or would take long to encode."""
    as_messages: bool = False
    """Turn plain prompts and completions into messages, so that the chat template is applied."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """Declared range of given scores, mapped linearly to [0, 1]."""
    unlabelled: Literal["drop", "demonstration", "refuse"] = "drop"
    """What becomes of a response whose `label`, `score` or rating is null: it is left out and counted,
    imitated as a demonstration, or refused as a bad row."""
    ratings: dict[str, float] | None = None
    """Rating columns and their weights, which together make the score; `score_range` is then the
    range of each rating."""
    wishes: list[str] = []
    """Rating columns whose values stand in the prompt, so that a user can wish for them
    (`onestage sample --wish helpfulness=4`)."""
    reward: Choice = None
    """What judges the policy's answers to `check` records: a name, a table `{name: countdown, ...}` of
    its options, or a list of them, each with a `weight` (default 1). In Python also a reward itself."""
    hint: Choice = "none"
    """How much of a worked solution is given away: a rule's name or a table of its options. In Python
    also a rule itself."""
    feedback: Literal["group", "pair"] = "group"
    """What becomes of a group of answers: all of them with their rewards, or the best and the worst."""

    def __init__(self, path: Any = None, /, **options: Any) -> None:
        """`Stream(path, ...)` is named after its file; with keys alone it must have a name."""
        if path is not None:
            options = {"name": name_of(path), "path": path, **options}
        super().__init__(**options)

    @field_validator("kind", mode="before")
    @classmethod
    def _known_kind(cls, value: Any) -> Any:
        return None if value is None else stated_kind(value)

    @field_validator("score_range", mode="wrap")
    @classmethod
    def _increasing(cls, value: Any, read: Any) -> tuple[float, float]:
        try:
            return checked_range(read(value))
        except ValidationError:
            return checked_range(value)  # says in one sentence what is wrong

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                "a".encode(value)  # `base64` and the like are known, but no encodings of text
        except (LookupError, ValueError):
            raise ValueError(
                f"no encoding {value!r}; usual ones are utf-16, latin-1, cp1252, gb18030, shift_jis"
            ) from None
        return value

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        value = "\t" if value in ("tab", "\\t") else value
        if value is not None and (len(value) != 1 or value in '\r\n"' or value.isalnum()):
            raise ValueError(f"must be one sign such as ';', '|' or tab, found {value!r}")
        return value

    @model_validator(mode="after")
    def _columns_are_known(self) -> Stream:
        for ours in self.columns:
            if ours not in NAMES:
                near = nearest_name(ours, NAMES)
                hint = f"did you mean {near!r}?" if near else "allowed: " + ", ".join(NAMES)
                raise ValueError(f"columns of {self.name!r}: no column {ours!r} to name; {hint}")
        taken = list(self.columns.values())
        twice = {column for column in taken if taken.count(column) > 1}
        if twice:
            raise ValueError(f"columns of {self.name!r}: {min(twice)!r} is given two meanings")
        for column, weight in (self.ratings or {}).items():
            if not 0 < abs(weight) < float("inf"):
                raise ValueError(f"rating {column!r} must have a finite weight, found {weight!r}")
        if len(set(self.wishes)) < len(self.wishes):
            raise ValueError(f"wishes of {self.name!r}: a column stands there twice, {self.wishes}")
        if self.weight is not None and self.per_step is not None:
            raise ValueError(
                f"{self.name!r}: give weight or per_step: a fixed count leaves nothing to weigh"
            )
        if self.eval_limit is not None and not (self.eval_path or self.eval_split):
            raise ValueError(f"{self.name!r}: eval_limit needs eval_path or eval_split")
        return self

    @property
    def names(self) -> Mapping[str, str]:
        """The source's column -> our name."""
        return _names(tuple(self.columns.items()), tuple(self.ratings or ()))

    @property
    def needed(self) -> frozenset[str]:
        """The source's columns that can matter: a reader may leave the others on disk. Empty: all do,
        because a reward may look at any column of a problem."""
        if self.reward is not None or (self.kind and FEEDBACK[self.kind].asked):
            return frozenset()
        return frozenset((*self.names, *(self.ratings or ()), *self.wishes, *REFUSED, SPLIT))

    @property
    def held_out(self) -> Stream | None:
        """The stream of its evaluation rows, if it has any."""
        if not self.eval_path and not self.eval_split:
            return None
        place = {"path": self.eval_path or self.path, "split": self.eval_split or "train"}
        return self.model_copy(update={**place, "limit": self.eval_limit, "portion": None})


@lru_cache(maxsize=256)
def _names(columns: tuple[tuple[str, str], ...], ratings: tuple[str, ...]) -> Mapping[str, str]:
    # A column that was renamed, or stands for another, loses its own meaning; ratings replace `score`.
    taken = {*dict(columns), *dict(columns).values(), *ratings, *(("score",) if ratings else ())}
    return {theirs: ours for ours, theirs in columns} | {n: n for n in NAMES if n not in taken}


def name_of(path: Any) -> str:
    """A file's name up to its first point; `data` of rows that have none."""
    named = str(path) if isinstance(path, str | Path) else ""
    return Path(named).name.split(".")[0] or "data"
