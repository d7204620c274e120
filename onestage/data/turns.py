"""Where an assistant's turns stand in a conversation: by construction, not by looking for their text.

A turn is what the chat template adds behind the prompt that the model will answer: the turns before it,
rendered as a generation prompt, are the beginning of the rendering that ends with the turn. So a reply
that repeats the user, or stands in the question, cannot be taken for another place. What a template does
around a reply (`Dialect`) is found once, on a conversation of our own.

Some templates render a turn otherwise when others follow it (thinking is dropped from history, the last
turn ends on another marker). Then the turns become several texts, each with the context that the model
sees when it speaks; texts that begin alike cost their beginning once, as all paths of a forest do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from os.path import commonprefix
from typing import Any, Literal

from onestage.data.messages import Message
from onestage.data.spoken import forms, in_parts, unspoken

Span = tuple[int, int]
Apply = Callable[[Sequence[Message], bool], str]
"""The chat template: messages, and whether a generation prompt is wanted, to text."""

REPLY = "Zq7Xv"
"""A reply that no template holds and no rule of a template looks at."""


class TemplateError(ValueError):
    """A record that the chat template does not render faithfully."""


class Dropped(TemplateError):
    """A part of a message, named, that is not in its rendering."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a template writes around a reply."""

    prompt: str = ""
    """The generation prompt."""
    header: str = ""
    """What stands between the turns before and the reply where there is no generation prompt."""
    tail: str = ""
    """All that follows the last reply."""
    marker: str = ""
    """Of the tail: up to and with the end marker. Empty where the template writes none."""
    tokens: re.Pattern[str] = field(default=re.compile(r"(?!)"))
    """The tokenizer's added tokens, which markers are made of."""
    ends: tuple[int, ...] = ()
    """Ids of the tokens that end a reply or a tool call; none where the marker is several tokens."""
    content: Literal["text", "parts"] = "text"
    """Whether the template reads a message's content as a text or as a list of its parts."""
    special: re.Pattern[str] = field(default=re.compile(r"(?!)"))
    """Its special tokens and the end marker: what no row should hold as text."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A text, its assistant turns that are to be scored, and which of them each span is."""

    text: str
    spans: tuple[Span, ...]
    turns: tuple[int, ...]


def dialect_of(tokenizer: Any, apply: Apply) -> Dialect:
    """What the template writes around a reply, from two conversations of our own."""
    tokens = _any_of(token.content for token in tokenizer.added_tokens_decoder.values())
    names = tokenizer.all_special_tokens
    plain = Dialect(tokens=tokens, special=_any_of(names))
    ways: tuple[Literal["text", "parts"], ...] = ("text", "parts")
    for content in ways:
        around = _around(plain, apply, content)
        if around is None:
            continue
        ends = [
            _last_token(tokenizer, around.marker),
            _last_token(tokenizer, _call_end(plain, apply)),
        ]
        known = tuple(dict.fromkeys(end for end in ends if end is not None))
        return replace(around, special=_any_of([*names, around.marker]), ends=known)
    return plain


def _around(plain: Dialect, apply: Apply, content: Literal["text", "parts"]) -> Dialect | None:
    """Prompt, header, tail and marker; None where the template does not render our conversation."""
    asked: list[Message] = [{"role": "user", "content": "Hi"}]
    if content == "parts":
        asked = in_parts(asked)
    try:
        before, opening = apply(asked, False), apply(asked, True)
        closed = apply([*asked, _reply(content)], False)
    except TemplateError:
        return None
    head, found, tail = closed.rpartition(REPLY)
    if not found:
        return None
    prompt = opening[_alike(before, opening) :]
    header = "" if prompt else head[_alike(before, head) :]
    first = plain.tokens.search(tail)
    # Without a token of its own, a marker is the text of the tail.
    end = first.end() if first else len(tail.rstrip())
    while following := plain.tokens.match(tail, end):
        end = following.end()  # the reply and the turn may each have an end of their own
    marker = tail[:end]
    header = header if header.strip() else ""
    return replace(plain, prompt=prompt, header=header, tail=tail, marker=marker, content=content)


def _reply(content: str) -> Message:
    reply: Message = {"role": "assistant", "content": REPLY}
    return in_parts([reply])[0] if content == "parts" else reply


def _call_end(plain: Dialect, apply: Apply) -> str:
    """The token that ends a tool call; empty where the template renders none or ends it otherwise."""
    function = {"name": REPLY, "arguments": {"city": "Paris"}}
    turn = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    for form in forms([{"role": "user", "content": "Hi"}, turn]):
        try:
            closed = apply(form, False).rstrip()
        except TemplateError:
            continue
        last = list(plain.tokens.finditer(closed))[-1:]
        if REPLY in closed and last and last[0].end() == len(closed):
            return last[0].group()
    return ""


def _last_token(tokenizer: Any, marker: str) -> int | None:
    """The id of a marker's last token, if that is an added one."""
    if not marker:
        return None
    ids = tokenizer(marker, add_special_tokens=False, verbose=False).input_ids
    return ids[-1] if ids and ids[-1] in tokenizer.added_tokens_decoder else None


def _alike(left: str, right: str) -> int:
    """How many characters two texts begin with alike."""
    return len(commonprefix([left, right]))  # noqa: RUF071 - of characters, as it should be


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    # White space may be a token, too (Gemma); it marks nothing.
    longest_first = sorted({text for text in texts if text.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def spoken(turns: Sequence[Message], first: int, apply: Apply, dialect: Dialect) -> list[Spoken]:
    """The assistant turns from number `first` on, in as few texts as their contexts allow.

    Turns whose `weight` is 0 are context only. Raises `TemplateError` where the template drops or
    rewrites a part of what is scored, or where its place cannot be proved.
    """
    problems: list[TemplateError] = []
    for form in forms(turns):
        try:
            return _spoken(form, first, apply, dialect)
        except TemplateError as problem:
            problems.append(problem)
    # What is dropped says more than what a template stumbles over in another spelling.
    raise next((one for one in problems if isinstance(one, Dropped)), problems[0])


def _spoken(turns: Sequence[Message], first: int, apply: Apply, dialect: Dialect) -> list[Spoken]:
    whole = apply(turns, False)
    scored = [
        number
        for number in range(first, len(turns))
        if turns[number]["role"] == "assistant" and turns[number].get("weight", 1)
    ]
    found: list[Spoken] = []
    for number in reversed(scored):
        text, span = _turn(turns, number, whole, apply, dialect)
        said = text[slice(*span)]
        # The generation prompt may hold the beginning of what was said, such as <think>.
        lost = unspoken(turns[number], said) and unspoken(turns[number], dialect.prompt + said)
        if lost:
            raise Dropped(
                f"the chat template drops or rewrites {lost}: it renders "
                f"{said[:60]!r}; take it out of the row, or set model.chat_template to "
                "a template that renders it"
            )
        if not said:
            raise TemplateError("the chat template renders nothing for an assistant turn")
        # A later text that begins with this turn and its context holds it too.
        if found and found[-1].text.startswith(text[: span[1]]):
            later = found.pop()
            spans, numbers = (span, *later.spans), (number, *later.turns)
            found.append(Spoken(later.text, spans, numbers))
        else:
            last = number == len(turns) - 1
            found.append(Spoken(text if last else text[: span[1]], (span,), (number,)))
    return found[::-1]


def _turn(
    turns: Sequence[Message], number: int, whole: str, apply: Apply, dialect: Dialect
) -> tuple[str, Span]:
    """The text of a conversation that ends with a turn, and the turn's characters in it."""
    closed = whole if number + 1 == len(turns) else apply(turns[: number + 1], False)
    opening = _opening(turns[:number], apply)
    if opening and closed.startswith(opening):
        # All that stands before is the rendering of the earlier turns; all behind is this turn's.
        start = len(opening)
        start += len(dialect.header) * closed.startswith(dialect.header, start)
    else:
        closed, start = _without_prompt(turns, number, closed, opening, apply, dialect)
    return closed, (start, max(start, _end(closed, start, dialect)))


def _opening(turns: Sequence[Message], apply: Apply) -> str:
    """What the model continues; empty where the template makes no prompt of these turns."""
    if not turns:
        return ""
    try:
        return apply(turns, True)
    except TemplateError:
        return ""


def _without_prompt(
    turns: Sequence[Message],
    number: int,
    closed: str,
    opening: str,
    apply: Apply,
    dialect: Dialect,
) -> tuple[str, int]:
    """Text and start of a turn whose rendering does not go on from its generation prompt.

    The same conversation with another reply shows what belongs to the turns before and what to the
    reply. Where the earlier turns themselves are rendered otherwise once the turn is there, the turn is
    put behind the prompt that the model will really see.
    """
    answered = apply([*turns[:number], {"role": "assistant", "content": REPLY}], False)
    head, found, _ = answered.rpartition(REPLY)
    if not found:
        raise TemplateError("the chat template drops the reply of an assistant turn")
    shared = _alike(head, closed)
    if not opening:
        before = apply(turns[:number], False) if number else ""
        _check_history(shared, _alike(before, head))
        return closed, shared
    prompt = dialect.prompt if opening.endswith(dialect.prompt) else ""
    before = opening.removesuffix(prompt)
    if head.startswith(before):
        _check_history(shared, len(before))
        return closed, min(_alike(opening, closed), shared)
    place = closed.rfind(prompt, 0, shared) if prompt else -1
    if place < 0:
        raise TemplateError(
            "the chat template renders earlier turns otherwise once an assistant turn follows, and "
            "its generation prompt is not in what it renders; set model.chat_template to another"
        )
    return opening + closed[place + len(prompt) :], len(opening)


def _check_history(shared: int, known: int) -> None:
    if shared < known:
        raise TemplateError(
            "the chat template renders the turns before an assistant turn otherwise for each reply, "
            "so the reply's place cannot be proved; set model.chat_template to another template"
        )


def _end(text: str, start: int, dialect: Dialect) -> int:
    """One past the turn's end marker, without what the template writes behind it."""
    if dialect.tail and text.endswith(dialect.tail):
        end = len(text) - len(dialect.tail) + len(dialect.marker)
        if end > start:
            return end
    # A turn that ends otherwise than a plain reply, such as a tool call.
    stripped = text.rstrip()
    closing = [m.end() for m in dialect.tokens.finditer(stripped, start)]
    marked = closing and closing[-1] == len(stripped)
    return len(stripped) if marked and len(stripped) > start else len(text)


def ends_marked(text: str, span: Span, dialect: Dialect) -> bool:
    """Whether a turn ends with a marker: the template's own, or a token of the tokenizer."""
    said = text[slice(*span)]
    if dialect.marker and said.endswith(dialect.marker):
        return True
    last = [m.end() for m in dialect.tokens.finditer(said)]
    return bool(last) and last[-1] == len(said)
