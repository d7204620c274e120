"""Prompts to be answered: out of the rows that training reads, and rendered as training renders them.

A row of any kind has one: of a conversation, all in front of the answer that it ends with. What the
chat template is told beside the messages (`tools`, `chat_template_kwargs`) belongs to it: without it, a
model that was trained behind it is asked something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.data._row_error import RowError
from onestage.data.beside import read_system
from onestage.data.files import SUFFIXES, TEXT_SUFFIXES
from onestage.data.kinds import FEEDBACK
from onestage.data.lines import lines_of
from onestage.data.messages import Message, Turns, messages_of, prompt_of
from onestage.data.parts import refuse_media, unfold
from onestage.data.raw import RawRow
from onestage.data.reading import raw_rows
from onestage.data.record import Record, Refusal
from onestage.data.rows import BESIDE_PLAIN, arguments_of, read_alpaca, record_of
from onestage.data.sharegpt import sharegpt_messages, with_system
from onestage.data.stream import Stream
from onestage.data.template import render_prompt

BESIDE = {
    "system": ("instruction", "conversations", "messages", "prompt"),
    "history": ("instruction",),
    "input": ("instruction",),
}
"""Columns (by our names) that are read beside one of others alone."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked."""

    turns: Turns
    template: Mapping[str, Any] = field(default_factory=dict)
    """Extra arguments of the chat template, as a `Record` has them."""
    notes: tuple[str, ...] = ()
    """What its row says and no prompt is made of."""

    @staticmethod
    def of(record: Record) -> Prompt:
        """Of a conversation, without the answer that it ends with. RowError where nothing is left."""
        if FEEDBACK[record.kind].layout == "windows":
            raise RowError("found `text`, which has no prompt")
        turns = record.prompt
        if not turns and record.is_chat:
            turns = record.completions[0][:-1]
            if not turns:
                raise RowError("the conversation begins with its answer: nobody asks anything")
        return Prompt(turns, record.template)

    @staticmethod
    def given(given: str | Sequence[Message] | Mapping[str, Any] | Prompt) -> Prompt:
        """A text, messages, or a row. Raises `ValueError` for what is no prompt."""
        if isinstance(given, Prompt):
            return given
        if isinstance(given, Mapping):
            return _prompt(RawRow("a prompt", given), Stream(name="prompts", path="prompts"))
        return Prompt(given if isinstance(given, str) else messages_of(given, "a prompt"))

    def row(self) -> dict[str, Any]:
        """Columns that give this prompt when they are read."""
        beside = {name: held for name, held in self.template.items() if name != "tools"}
        told = {"prompt": self.turns}
        if "tools" in self.template:
            told["tools"] = self.template["tools"]
        return {**told, "chat_template_kwargs": beside} if beside else told


def prompts_of(path: str, as_messages: bool = False) -> list[Prompt]:
    """The prompts of rows (a file, a folder, a hub data set), or of a file of plain text, one a line.

    as_messages: plain prompts as a user's message, as a stream with `as_messages` has them. Raises
    ValueError with the place of a prompt that cannot be read, or where there is none.
    """
    stream = Stream(path, as_messages=as_messages)
    named = path.lower()
    if named.endswith(TEXT_SUFFIXES) or not (named.endswith(SUFFIXES) or _is_elsewhere(path)):
        rows = (RawRow(path, {"prompt": text}) for _, text in lines_of(Path(path).expanduser()))
        found = [_prompt(row, stream) for row in rows]
    else:
        found = [_prompt(row, stream) for row in raw_rows(stream)]
    if not found:
        raise ValueError(f"{path} holds no prompt")
    return found


def _is_elsewhere(path: str) -> bool:
    """Whether a path without an ending of ours is no file of text: a folder, a pattern, a data set."""
    return not Path(path).expanduser().is_file()


def noted(tokenizer: Any, prompts: Sequence[Prompt]) -> dict[str, int]:
    """What prompts say and a model is not asked, or what looks like a mistake: of how many. Raises
    `TemplateError`, a ValueError, for a prompt that the chat template refuses."""
    found: Counter[str] = Counter()
    for prompt in prompts:
        found.update(prompt.notes)
        found.update(render_prompt(prompt.turns, tokenizer, prompt.template).notes)
    return dict(found)


def _prompt(row: RawRow | Refusal, stream: Stream) -> Prompt:
    if isinstance(row, Refusal):
        raise ValueError(f"{row.where}: {row.reason}")
    try:
        return _of_record(row, stream) or _alone(row.columns, stream)
    except RowError as error:
        raise ValueError(f"{row.where}: {error}") from None
    except RecursionError:
        raise ValueError(f"{row.where}: nested too deeply to be a row of text") from None


def _of_record(row: RawRow, stream: Stream) -> Prompt | None:
    """Of a row that training could read; None of another, which may hold a prompt all the same."""
    try:
        record = record_of(row.columns, stream, row.where, row.unread)
        found = Prompt.of(record.as_messages() if stream.as_messages else record)
    except RowError:
        return None
    return Prompt(found.turns, found.template, _unread(row.columns))


def _alone(columns: Mapping[str, Any], stream: Stream) -> Prompt:
    """Of a row without an answer that could be learned, or with feedback that cannot be read."""
    found = {name: held for name, held in columns.items() if held is not None}
    refuse_media(columns)
    unfold(found)
    if "instruction" in found:
        read_alpaca(found)
    elif found.get("system"):
        read_system(found)
    turns = prompt_of(found["prompt"]) if "prompt" in found else prompt_of(_asked(found))
    if isinstance(turns, str) and stream.as_messages:
        turns = ({"role": "user", "content": turns},)
    template = arguments_of(found)
    if template and isinstance(turns, str):
        what = "tools" if "tools" in template else "chat_template_kwargs"
        raise RowError(f"found `{what}` {BESIDE_PLAIN}")
    return Prompt(turns, template, _unread(columns))


def _asked(columns: Mapping[str, Any]) -> Sequence[Message]:
    """A conversation without the assistant's last words."""
    if "messages" in columns:
        turns = messages_of(columns["messages"], "messages")
        turns = with_system(turns, columns.get("system"), "messages")
    elif "conversations" in columns:
        turns = sharegpt_messages(columns["conversations"], columns.get("system"))
    else:
        found = ", ".join(sorted(columns)) or "no column"
        raise RowError(f"expected an object with `prompt`, found {found}")
    return turns[:-1] if turns[-1]["role"] == "assistant" else turns


def _unread(columns: Mapping[str, Any]) -> tuple[str, ...]:
    said = {name for name, held in columns.items() if held not in (None, "", [], ())}
    return tuple(
        f"`{name}` is no part of the prompt: say it in a message of the prompt"
        for name, others in BESIDE.items()
        if name in said and said.isdisjoint(others)
    )
