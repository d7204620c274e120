"""Records to text, with the characters of each response marked.

Chat: the whole conversation is rendered once by the tokenizer's own template, and each assistant
turn is found in it by rendering what comes before it as a generation prompt. Plain strings: prompt,
response, end token, in TRL's way. Nothing is tokenised here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Any

from onestage.data.kinds import FEEDBACK
from onestage.data.messages import Message, Turns
from onestage.data.record import Record

Span = tuple[int, int]

NOTHING: Mapping[str, Any] = MappingProxyType({})

NO_TEMPLATE = (
    "the record is made of messages but the tokenizer has no chat template; "
    "set model.chat_template to a Jinja file, or give prompt and completion as strings"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text to be tokenised, and the characters [start, end) of what matters in it."""

    text: str
    spans: tuple[Span, ...]
    """Of each response; of each sentence of a worked answer."""
    special: bool
    """Whether the tokenizer is to add its own special tokens (plain strings), or the template
    already holds them (chat)."""


class TemplateError(ValueError):
    """A record that the chat template does not render faithfully."""


def render(record: Record, tokenizer: Any) -> list[Rendered]:
    """The texts of a record: one for each completion in its context. Of a problem: its prompt, and the
    worked answer alone if it has one.

    Raises `TemplateError` where a response cannot be found again in what the template made of it.
    """
    layout = FEEDBACK[record.kind].layout
    if layout == "problem":
        prompt = render_prompt(record.prompt, tokenizer, record.template)
        worked = record.completions or record.solution
        return [prompt, _worked(record, tokenizer)] if worked else [prompt]
    if layout == "windows":
        text = _ended(str(record.completions[0]), tokenizer)
        return [Rendered(text, ((0, len(text)),), True)]
    return _responses(record, record.completions, tokenizer)


def render_prompt(prompt: Turns, tokenizer: Any, template: Mapping[str, Any] = NOTHING) -> Rendered:
    """What a model is to continue: a text as it is, messages through the chat template with `template`
    as its extra arguments. Raises `TemplateError`."""
    if isinstance(prompt, str):
        return Rendered(prompt, (), True)
    return Rendered(_apply(tokenizer, prompt, template, prompt=True), (), False)


def render_whole(text: Turns, tokenizer: Any) -> Rendered:
    """A text or a conversation as it stands, to be read and not continued. Raises `TemplateError`."""
    if isinstance(text, str):
        return Rendered(text, (), True)
    return Rendered(_apply(tokenizer, text, NOTHING, prompt=False), (), False)


def _responses(record: Record, completions: Sequence[Turns], tokenizer: Any) -> list[Rendered]:
    if not all(isinstance(turns, str) for turns in completions):
        return [_chat(record, completion, tokenizer) for completion in completions]
    return [_plain(str(record.prompt), str(text), tokenizer) for text in completions]


def _worked(record: Record, tokenizer: Any) -> Rendered:
    """A problem's worked answer with its end token: the completion, if it has one, else the solution.
    Its spans are the solution's sentences. Raises `TemplateError` where it does not begin with them."""
    solution = "".join(record.solution)
    answer: Turns = solution
    if record.completions:
        answer = record.completions[0]
    elif not isinstance(record.prompt, str):
        answer = ({"role": "assistant", "content": solution},)
    (rendered,) = _responses(record, [answer], tokenizer)
    text = rendered.text[slice(*rendered.spans[-1])]
    if not text.startswith(solution):
        raise TemplateError(f"the worked answer {text[:60]!r} does not begin with the solution")
    edges = [0, *accumulate(len(sentence) for sentence in record.solution)]
    return Rendered(text, tuple(pairwise(edges)), False)


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


def _apply(
    tokenizer: Any, turns: Sequence[Message], extra: Mapping[str, Any], *, prompt: bool
) -> str:
    if not tokenizer.chat_template:
        raise TemplateError(NO_TEMPLATE)
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
    # By what comes before it, since its text may stand in the conversation twice.
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
