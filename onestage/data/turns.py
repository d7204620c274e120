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
from collections.abc import Sequence
from dataclasses import dataclass

from onestage.data.dialect import REPLY, Apply, Dialect, Displaced, Dropped, TemplateError, alike
from onestage.data.messages import Message
from onestage.data.spoken import forms, holds, unspoken

Span = tuple[int, int]

TAG = re.compile(r"<[^\s<>]*>|\[[^\s\[\]]*\]")
"""What looks like a marker, whether the tokenizer has a token for it or not."""
SPACED = re.compile(rf"\s*({TAG.pattern})")


@dataclass(frozen=True, slots=True)
class Spoken:
    """A text, its assistant turns that are to be scored, and which of them each span is."""

    text: str
    spans: tuple[Span, ...]
    turns: tuple[int, ...]
    elsewhere: tuple[str, ...] = ()
    """Notes on replies that stand behind another prompt than the model is asked with."""


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
    # These say more than what a template stumbles over in another spelling.
    told = (one for kind in (Displaced, Dropped) for one in problems if isinstance(one, kind))
    raise next(told, problems[0])


def _spoken(turns: Sequence[Message], first: int, apply: Apply, dialect: Dialect) -> list[Spoken]:
    whole = apply(turns, False)
    scored = [
        number
        for number in range(first, len(turns))
        if turns[number]["role"] == "assistant" and turns[number].get("weight", 1)
    ]
    found: list[Spoken] = []
    for number in reversed(scored):
        text, span, elsewhere = _turn(turns, number, whole, apply, dialect)
        said = text[slice(*span)]
        # The generation prompt may hold the beginning of what was said, such as <think>.
        if lost := unspoken(turns[number], said):
            asked = _asked_with(turns[:number], apply, dialect)
            lost = unspoken(turns[number], asked + said)
        if lost:
            raise Dropped(
                f"the chat template drops or rewrites {lost}: behind {asked[-30:]!r} it renders "
                f"{said[:60]!r}; take it out of the row, or set model.chat_template to "
                "a template that renders it"
            )
        if not said:
            raise TemplateError("the chat template renders nothing for an assistant turn")
        if other := _other_turn(turns[number], said, dialect):
            raise Displaced(
                f"where this reply should stand the chat template has another turn, which begins with "
                f"{other!r}; set model.chat_template to another template"
            )
        # A later text that begins with this turn and its context holds it too.
        if found and found[-1].text.startswith(text[: span[1]]):
            later = found.pop()
            spans, numbers = (span, *later.spans), (number, *later.turns)
            notes = (*elsewhere, *later.elsewhere)
            found.append(Spoken(later.text, spans, numbers, notes))
        else:
            text = text if number == len(turns) - 1 else text[: span[1]]
            found.append(Spoken(text, (span,), (number,), elsewhere))
    return found[::-1]


def _turn(
    turns: Sequence[Message], number: int, whole: str, apply: Apply, dialect: Dialect
) -> tuple[str, Span, tuple[str, ...]]:
    """The text of a conversation that ends with a turn, the turn's characters in it, and what is to be
    said of the prompt in front of it."""
    closed = whole if number + 1 == len(turns) else apply(turns[: number + 1], False)
    opening = _opening(turns[:number], apply)
    elsewhere: tuple[str, ...] = ()
    if opening and closed.startswith(opening):
        # All that stands before is the rendering of the earlier turns; all behind is this turn's.
        start = len(opening)
        if not opening.endswith(dialect.prompt):
            again = turns[number - 1]["role"] == "assistant"
            start = _behind_prompt(turns[:number], closed, start, again, apply, dialect)
        start += len(dialect.header) * closed.startswith(dialect.header, start)
    else:
        closed, start = _without_prompt(turns, number, closed, opening, apply, dialect)
        elsewhere = _elsewhere(opening, closed, start)
    end = _end(closed, start, turns[:number], apply, dialect)
    return closed, (start, max(start, end)), elsewhere


def _behind_prompt(
    before: Sequence[Message],
    closed: str,
    start: int,
    again: bool,
    apply: Apply,
    dialect: Dialect,
) -> int:
    """Where a reply begins whose template asks for none but writes the prompt of one in front of it.
    again: whether it follows the assistant's own words."""
    shared = alike(_answered(before, apply), closed)
    place = closed.rfind(dialect.prompt, start, shared)
    if place >= 0:
        return place + len(dialect.prompt)
    return shared if again and closed[start:shared].strip() else start


def _other_turn(turn: Message, said: str, dialect: Dialect) -> str:
    """How a turn of somebody else begins that stands in what is to be scored, or a next one of the
    assistant's at its end; empty where none does, or where the reply itself holds it."""
    own = str(dict(turn))
    for header in dialect.others:
        if header in said and header not in dialect.marker and header not in own:
            return header
    first = dialect.tokens.match(dialect.own)
    if first is None or first.group() in own or first.group() not in said:
        return ""
    # At the end of what is said, perhaps without the block that a prompt may hold.
    tail = said[said.rfind(first.group()) :].strip()
    begun = dialect.own.startswith(tail) and (tail == dialect.own or tail != first.group())
    return tail if begun else ""


def _elsewhere(opening: str, closed: str, start: int) -> tuple[str, ...]:
    """A note where what stands in front of a reply is not the prompt that a model is asked with."""
    if not opening or opening == closed[:start]:
        return ()
    parted = _tag_start(opening, alike(opening, closed[:start]))
    asked, there = opening[parted:][:40], closed[parted:start][:40]
    return (
        f"the chat template asks a model with {asked!r} in front of its reply and renders this reply "
        f"with {there!r} there: what is learned may not be what is asked",
    )


def _block(asked: str) -> str:
    """The mark that opens the block which a prompt closes again, such as one of empty thinking; "" if
    there is none, or it is left open for the model to think in."""
    tags = TAG.findall(asked)
    names = [_name(tag) for tag in tags]
    return tags[0] if len(tags) > 1 and tags[0] != tags[-1] and names[0] == names[-1] else ""


def _behind(block: str, text: str, place: int) -> int | None:
    """The place behind marks of a block that stand there with nothing in it; None where it is opened and
    holds something."""
    end, seen = place, []
    while (tag := SPACED.match(text, end)) and _name(tag[1]) == _name(block):
        seen.append(tag[1])
        end = tag.end()
    return None if seen == [block] else end


def _name(tag: str) -> str:
    """`think` of `<think>` and `</think>`, `THINKING` of `<|START_THINKING|>` and `<|END_THINKING|>`."""
    return re.sub(r"START|BEGIN|END|[^A-Za-z]", "", tag)


def _tag_start(text: str, place: int) -> int:
    """The place, or the beginning of the marker that it is in the middle of."""
    around = (m.start() for m in TAG.finditer(text) if m.start() < place < m.end())
    return next(around, place)


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
    head = _answered(turns[:number], apply)
    shared = alike(head, closed)
    if not opening:
        before = apply(turns[:number], False) if number else ""
        _check_history(shared, alike(before, head))
        return closed, shared
    prompt = _prompt(turns[:number], opening, apply, dialect)
    before = opening.removesuffix(prompt)
    if head.startswith(before):
        _check_history(shared, len(before))
        start = min(alike(opening, closed), shared)
        block = _block(opening[_tag_start(opening, start) :])
        behind = _behind(block, closed, _tag_start(closed, start)) if block else None
        if behind is not None:  # what the reply's own rendering has in its place goes on behind it
            return opening + closed[behind:], len(opening)
        # What the template writes in place of its prompt, and of no reply, is none of this reply.
        start = shared if closed[start:shared].strip() else start
        return closed, _tag_start(closed, start)
    place = _replaced(turns[:number], closed[:shared], opening, head, prompt, dialect.marker)
    if not place:
        raise TemplateError(
            "the chat template renders earlier turns otherwise once an assistant turn follows, and "
            "its generation prompt is not in what it renders; set model.chat_template to another"
        )
    return opening + closed[place:], len(opening)


def _asked_with(before: Sequence[Message], apply: Apply, dialect: Dialect) -> str:
    """The generation prompt of this conversation."""
    return _prompt(before, _opening(before, apply), apply, dialect)


def _prompt(before: Sequence[Message], opening: str, apply: Apply, dialect: Dialect) -> str:
    """The generation prompt behind these turns; a row's arguments for the template may make it another
    than the usual one."""
    if opening.endswith(dialect.prompt):
        return dialect.prompt
    said = apply(before, False)
    return opening[len(said) :] if opening.startswith(said) else ""


def _replaced(
    before: Sequence[Message], shared: str, opening: str, head: str, prompt: str, marker: str
) -> int:
    """Where in a rendering, which begins with `shared`, the prompt of a reply ends; 0 if that is not
    found. A prompt with the end of a turn behind it, or with what was said last (where a template makes
    one turn of two), is an earlier reply's."""
    if prompt:
        place, last = shared.rfind(prompt), before[-1].get("content")
        repeated = last.strip() if isinstance(last, str) else ""
        earlier = place < 0 or (marker and marker in shared[place:])
        earlier = earlier or not holds(shared[:place], repeated)
        if earlier or (repeated and repeated in shared[place + len(prompt) :]):
            return 0
        return place + len(prompt)
    place = _asked(before, opening, head)
    return place if place <= len(shared) else 0


def _asked(before: Sequence[Message], opening: str, head: str) -> int:
    """Where what was said last, rendered as in the prompt, ends in front of a reply; 0 if that is not
    found. Some templates write the system message into the last question, as long as it is the last
    (Mistral)."""
    head = head.rstrip()
    alike_from_behind = alike(opening[::-1], head[::-1])
    said = before[-1].get("content")
    found = isinstance(said, str) and said.strip() in head[len(head) - alike_from_behind :]
    return len(head) if found else 0


def _answered(before: Sequence[Message], apply: Apply) -> str:
    """What stands in front of a reply that no rule of a template looks at."""
    return _around(before, apply)[0]


def _around(before: Sequence[Message], apply: Apply) -> tuple[str, str]:
    """What stands in front of such a reply and behind it."""
    answered = apply([*before, {"role": "assistant", "content": REPLY}], False)
    head, found, tail = answered.rpartition(REPLY)
    if not found:
        raise TemplateError("the chat template drops the reply of an assistant turn")
    return head, tail


def _check_history(shared: int, known: int) -> None:
    if shared < known:
        raise TemplateError(
            "the chat template renders the turns before an assistant turn otherwise for each reply, "
            "so the reply's place cannot be proved; set model.chat_template to another template"
        )


def _end(text: str, start: int, before: Sequence[Message], apply: Apply, dialect: Dialect) -> int:
    """One past the turn's end marker, without what the template writes behind it."""
    marker = dialect.marker
    end = _marked(text, start, dialect.tail, marker)
    if not end or marker in text[start : end - len(marker)]:
        end = _marked(text, start, _tail(before, apply, marker), marker) or end
    if end:
        return end
    # A turn that ends otherwise than a plain reply, such as a tool call.
    stripped = text.removesuffix(dialect.tail[len(dialect.marker) :]).rstrip()
    closing = [m.end() for m in dialect.tokens.finditer(stripped, start)]
    marked = closing and closing[-1] == len(stripped)
    return len(stripped) if marked and len(stripped) > start else len(text)


def _marked(text: str, start: int, tail: str, marker: str) -> int:
    """One past the marker that a text's tail begins with; 0 where the text does not end so."""
    end = len(text) - len(tail) + len(marker)
    return end if tail and text.endswith(tail) and end > start else 0


def _tail(before: Sequence[Message], apply: Apply, marker: str) -> str:
    """What stands behind a plain reply of this conversation, of which a template may say something at
    the end; "" where that does not begin with the marker."""
    try:
        tail = _around(before, apply)[1] if marker else ""
    except TemplateError:
        return ""
    return tail if tail.startswith(marker) else ""


def ends_marked(text: str, span: Span, dialect: Dialect) -> bool:
    """Whether a turn ends with a marker: the template's own, or a token of the tokenizer."""
    said = text[slice(*span)]
    if dialect.marker and said.endswith(dialect.marker):
        return True
    last = [*dialect.tokens.finditer(said)][-1:]
    return bool(last) and last[0].end() == len(said) and last[0].group() not in dialect.inside
