"""Records to text, with the characters of each response marked.

Chat: the whole conversation is rendered once by the tokenizer's own template, and each assistant
turn is found in it by rendering what comes before it as a generation prompt. Plain strings: prompt,
response, end token, in TRL's way. Nothing is tokenised here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from onestage.data.record import Message, Record, Turns

Span = tuple[int, int]


NO_TEMPLATE = (
    "the record is made of messages but the tokenizer has no chat template; "
    "set model.chat_template to a Jinja file, or give prompt and completion as strings"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Text of one completion in its context, and the responses' characters [start, end) in it."""

    text: str
    spans: tuple[Span, ...]
    special: bool
    """Whether the tokenizer is to add its own special tokens (plain strings), or the template
    already holds them (chat)."""


class TemplateError(ValueError):
    """A record that the chat template does not render faithfully."""


def render(record: Record, tokenizer: Any) -> list[Rendered]:
    """One `Rendered` for each completion of the record.

    Raises `TemplateError` where a response cannot be found again in what the template made of it.
    """
    if record.kind == "text":
        text = str(record.completions[0])
        return [Rendered(_ended(text, tokenizer), ((0, len(_ended(text, tokenizer))),), True)]
    if not record.is_chat:
        return [_plain(str(record.prompt), str(text), tokenizer) for text in record.completions]
    if not tokenizer.chat_template:
        raise TemplateError(NO_TEMPLATE)
    return [_chat(record, completion, tokenizer) for completion in record.completions]


def generation_prompt(record: Record, tokenizer: Any) -> tuple[str, bool]:
    """The text that a model is to continue, and whether the tokenizer is to add special tokens."""
    if isinstance(record.prompt, str):
        return record.prompt, True
    if not tokenizer.chat_template:
        raise TemplateError(NO_TEMPLATE)
    return _apply(tokenizer, record.prompt, record.template, prompt=True), False


def response_text(record: Record, solution: str, tokenizer: Any) -> str:
    """The text of a checkable problem's worked answer with its end token: the completion, if it has
    one, else the solution. Raises `TemplateError` where it does not begin with the solution."""
    answers = record.completions or (
        (solution,)
        if isinstance(record.prompt, str)
        else (({"role": "assistant", "content": solution},),)
    )
    (rendered,) = render(replace(record, completions=answers), tokenizer)
    text = rendered.text[slice(*rendered.spans[-1])]
    if not text.startswith(solution):
        raise TemplateError(f"the worked answer {text[:60]!r} does not begin with the solution")
    return text


def _ended(text: str, tokenizer: Any) -> str:
    end = tokenizer.eos_token or ""
    return text if end and text.endswith(end) else text + end


def _plain(prompt: str, completion: str, tokenizer: Any) -> Rendered:
    text = prompt + _ended(completion, tokenizer)
    return Rendered(text, ((len(prompt), len(text)),), True)


def _chat(record: Record, completion: Turns, tokenizer: Any) -> Rendered:
    before: Sequence[Message] = () if isinstance(record.prompt, str) else record.prompt
    turns = [*before, *(turn for turn in completion if not isinstance(turn, str))]
    text = _apply(tokenizer, turns, record.template, prompt=False)
    spans: list[Span] = []
    for index in range(len(before), len(turns)):
        if turns[index]["role"] == "assistant":
            cursor = spans[-1][1] if spans else 0
            spans.append(_turn(tokenizer, turns, index, text, cursor, record.template))
    return Rendered(text, tuple(spans), False)


def _apply(tokenizer: Any, turns: Sequence[Message], extra: Any, *, prompt: bool) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(turn) for turn in turns], tokenize=False, add_generation_prompt=prompt, **extra
        )
    except Exception as error:  # Jinja's own errors and whatever a template raises
        roles = [turn["role"] for turn in turns]
        raise TemplateError(f"the chat template refuses roles {roles}: {error}") from error
    return text


def _turn(
    tokenizer: Any, turns: Sequence[Message], index: int, text: str, cursor: int, extra: Any
) -> Span:
    """Characters of an assistant turn, its end-of-turn token included."""
    content = str(turns[index].get("content") or "").strip()
    opening = _apply(tokenizer, turns[:index], extra, prompt=True) if index else ""
    closed = text
    if index + 1 < len(turns):
        closed = _apply(tokenizer, turns[: index + 1], extra, prompt=False)
    if opening and text.startswith(opening) and text.startswith(closed):
        start, end = len(opening), _end_of_turn(tokenizer, text, len(opening), len(closed))
    else:  # a template that renders earlier turns differently, or does nothing for an empty prompt
        start = text.find(content, cursor)
        if start < 0:
            raise TemplateError(f"the chat template drops the response {content[:60]!r}")
        end = start + len(content)
        for token in tokenizer.all_special_tokens:
            if text.startswith(token, end):
                end += len(token)
                break
    if content not in text[start:end] or start >= end:
        raise TemplateError(
            f"the chat template drops or rewrites the response {content[:60]!r}: "
            f"it renders {text[start:end][:60]!r}"
        )
    return start, end


def _end_of_turn(tokenizer: Any, text: str, start: int, end: int) -> int:
    """Leave out white space that the template puts behind the end-of-turn token."""
    stripped = len(text[:end].rstrip())
    ends_special = any(text.endswith(token, 0, stripped) for token in tokenizer.all_special_tokens)
    return stripped if ends_special and stripped > start else end
