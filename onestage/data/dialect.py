"""What a chat template writes around a reply: its prompt, and what ends a turn.

Found once for a tokenizer, by showing the template conversations of our own whose words stand in no
template. What closes a turn is what stands behind a reply wherever the reply stands, as the last word or
before another turn; what only the end of a conversation has may be the end token of a text (Phi 3), or
the next turn's opening, which some templates write whether it is asked for or not (Command R7B).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from os.path import commonprefix
from typing import Any, Literal

from onestage.data.messages import Message
from onestage.data.spoken import forms, in_parts

Apply = Callable[[Sequence[Message], bool], str]
"""The chat template: messages, and whether a generation prompt is wanted, to text."""

REPLY = "Zq7Xv"
"""A reply that no template holds and no rule of a template looks at."""

ASKED_ON = "Wj3Yk"
"""What is said behind that reply."""

THOUGHT = "Kd9Tm"
"""What is thought before that reply."""

CLOCK = re.compile(r"strftime_now\(\s*(['\"])(.+?)\1")
"""Where a template asks what day it is: in group 2, how the day is written."""


class TemplateError(ValueError):
    """A record that the chat template does not render faithfully."""


class Dropped(TemplateError):
    """A part of a message, named, that is not in its rendering."""


class Displaced(TemplateError):
    """Another turn stands where a reply should."""


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
    always: str = ""
    """What it writes at the end of every conversation, though no generation prompt was asked for."""

    others: tuple[str, ...] = ()
    """How turns of the user and of the system begin, from a token on."""
    own: str = ""
    """How the assistant's do."""
    inside: tuple[str, ...] = ()
    """Tokens that end a tool call, and not the turn that it is in."""

    thinks: str = ""
    """The token that ends a turn, where it ends what is thought before a reply, too."""

    days: tuple[str, ...] = ()
    """How it writes the day on which it is used (formats of `strftime`)."""

    def closed(self, apply: Apply) -> Apply:
        """The template without the generation prompt that nobody asked for."""
        if not self.always:
            return apply
        return lambda turns, prompt: apply(turns, prompt).removesuffix(
            "" if prompt else self.always
        )


def dialect_of(tokenizer: Any, apply: Apply) -> Dialect:
    """What the template writes around a reply, from conversations of our own."""
    tokens = _any_of(token.content for token in tokenizer.added_tokens_decoder.values())
    names = tokenizer.all_special_tokens
    days = tuple(found[1] for found in CLOCK.findall(str(tokenizer.chat_template or "")))
    plain = Dialect(tokens=tokens, special=_any_of(names), days=days)
    ways: tuple[Literal["text", "parts"], ...] = ("text", "parts")
    # Some templates refuse a conversation without a system message.
    for system, content in product((False, True), ways):
        around = _around(replace(plain, content=content), apply, tokenizer.eos_token, system)
        if around is None:
            continue
        call_end, of_turn = _call_end(around, around.closed(apply))
        ends = [_last_token(tokenizer, around.marker)]
        ends += [_last_token(tokenizer, call_end)] if of_turn else []
        known = tuple(dict.fromkeys(end for end in ends if end is not None))
        special = _any_of([*names, around.marker])
        inside = () if of_turn or not call_end else (call_end,)
        thinks = _thought_end(around, around.closed(apply))
        return replace(around, special=special, ends=known, inside=inside, thinks=thinks)
    return plain


def _around(plain: Dialect, apply: Apply, eos: str | None, system: bool) -> Dialect | None:
    """Prompt, header, tail and marker; None where the template does not render our conversation."""
    *asked, reply, again = _conversation(plain.content, system)
    try:
        before, opening = apply(asked, False), apply(asked, True)
        whole = apply([*asked, reply], False)
    except TemplateError:
        return None
    if REPLY not in whole:
        return None
    openers = _openers(plain, before, eos)
    known = replace(plain, always=_always(plain, before, whole, openers))
    before = before.removesuffix(known.always)
    head, _, tail = whole.removesuffix(known.always).rpartition(REPLY)
    prompt = opening[alike(before, opening) :]
    header = "" if prompt else head[alike(before, head) :]
    header = header if header.strip() else ""
    going_on = _going_on([*asked, reply, again], apply)
    marker = tail[: _marked(plain, tail, going_on, openers)]
    asked_on = going_on.removeprefix(marker)
    ours = prompt or header or known.always
    others, own = _headers(known, asked_on, ours, known.closed(apply))
    return replace(
        known, prompt=prompt, header=header, tail=tail, marker=marker, others=others, own=own
    )


def _conversation(content: str, system: bool) -> list[Message]:
    said: list[Message] = [
        *([{"role": "system", "content": "Be kind."}] if system else []),
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": REPLY},
        {"role": "user", "content": ASKED_ON},
    ]
    return in_parts(said) if content == "parts" else said


def _told(content: str) -> list[Message]:
    said: list[Message] = [{"role": "system", "content": REPLY}, {"role": "user", "content": "Hi"}]
    return in_parts(said) if content == "parts" else said


def _openers(plain: Dialect, before: str, eos: str | None) -> set[str]:
    """The tokens that every conversation begins with: no turn can end on one of them."""
    found, place = set(), 0
    while token := plain.tokens.match(before, place):
        found.add(token.group())
        place = token.end()
    return found - {eos}


def _always(plain: Dialect, before: str, whole: str, openers: set[str]) -> str:
    """What ends a question as it ends a reply, from a token on that opens a turn. Behind a reply a
    token that closes it comes first."""
    shared = alike(before[::-1], whole[::-1])
    tail = whole.rpartition(REPLY)[2]
    closing = [match for match in plain.tokens.finditer(tail) if match.group() not in openers]
    for match in plain.tokens.finditer(tail):
        late = match.start() >= max(len(tail) - shared, 1)
        if late and match.group() in openers and closing and closing[0].start() < match.start():
            return tail[match.start() :]
    rest = tail[closing[-1].end() if closing else len(tail) :]
    # A prompt in words: what follows the last closing token, if it stands in front of the reply, too.
    same = tail[max(len(tail) - shared, len(tail) - len(rest)) :]
    asked = whole.rpartition(REPLY)[0].rstrip().endswith(rest.strip())
    return same if rest.strip() and same.strip() == rest.strip() and asked else ""


def _going_on(turns: Sequence[Message], apply: Apply) -> str:
    """What stands between our reply and what is said next; empty where the template refuses that."""
    try:
        return apply(turns, True).rpartition(REPLY)[2].partition(ASKED_ON)[0]
    except TemplateError:
        return ""


def _marked(plain: Dialect, tail: str, going_on: str, openers: set[str]) -> int:
    """How many characters of the tail are the end marker, and what stands in front of it."""
    first = plain.tokens.search(tail)
    if not first:
        return len(tail.rstrip())  # without a token of its own, a marker is the text of the tail
    end, shared = first.end(), alike(tail, going_on)
    while (following := plain.tokens.match(tail, end)) and following.group() not in openers:
        if end <= shared and _is_over(plain, going_on[end:], openers):
            break  # what follows is the end of the conversation (Phi 4)
        end = following.end()  # the reply and the turn may each have an end of their own
    for match in plain.tokens.finditer(tail, end):
        if match.end() > shared or match.group() in openers:
            break
        end = match.end()  # a channel's end, its name, and then the turn's end
    return end


def _is_over(plain: Dialect, behind: str, openers: set[str]) -> bool:
    """Whether a turn has ended where others follow it: no token that could end it stands behind."""
    following = plain.tokens.match(behind.lstrip())
    return following is None or following.group() in openers


def _headers(
    plain: Dialect, going_on: str, reply: str, apply: Apply
) -> tuple[tuple[str, ...], str]:
    """How turns of the user and of the system begin, and the assistant's; empty where no token does it.

    going_on: what stands behind the end of a reply and in front of the user's words; reply: what stands
    in front of a reply.
    """
    asked, own = plain.tokens.search(going_on), plain.tokens.search(reply)
    if not asked:
        return (), ""
    headers = [going_on[asked.start() :].strip()]
    try:
        head = apply(_told(plain.content), False).partition(REPLY)[0]
    except TemplateError:
        head = ""
    place = head.rfind(asked.group())
    if place >= 0:
        headers.append(head[place:].strip())
    ours = reply[own.start() :].strip() if own else ""
    return tuple(dict.fromkeys(one for one in headers if not ours.startswith(one))), ours


def _call_end(plain: Dialect, apply: Apply) -> tuple[str, bool]:
    """The token that ends a tool call, and whether it ends the turn, too; empty where the template
    renders none or ends it otherwise. What stands behind each of two calls ends none of their turn."""
    one, two = _calls(plain, apply, 1), _calls(plain, apply, 2)
    if one is None:
        return "", False
    token = one[1]
    inside = False
    if two is not None and two[1] == token:
        first, found, _ = two[0].partition(f"{REPLY}1")[2].partition(f"{REPLY}2")
        inside = bool(found) and token in first
    behind = plain.prompt + plain.tail[len(plain.marker) :]
    return token, not inside and token not in behind


def _calls(plain: Dialect, apply: Apply, number: int) -> tuple[str, str] | None:
    """A turn of so many tool calls as it is rendered, and the token that it ends on; None where it is
    not rendered, or ends on none."""
    calls = [
        {
            "type": "function",
            "id": f"call0000{n}",
            "function": {"name": f"{REPLY}{n}", "arguments": {"city": "Paris"}},
        }
        for n in range(1, number + 1)
    ]
    for form in forms(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": calls}]
    ):
        try:
            closed = apply(form, False).rstrip()
        except TemplateError:
            continue
        last = list(plain.tokens.finditer(closed))[-1:]
        if f"{REPLY}1" in closed and last and last[0].end() == len(closed):
            return closed, last[0].group()
    return None


def _thought_end(plain: Dialect, apply: Apply) -> str:
    """The token that ends a turn if it stands between what is thought and the reply, too."""
    last = [*plain.tokens.finditer(plain.marker)][-1:]
    asked, reply = _conversation(plain.content, False)[:2]
    for form in forms([asked, {**reply, "reasoning_content": THOUGHT}]) if last else ():
        try:
            _, thought, behind = apply(form, False).rpartition(THOUGHT)
        except TemplateError:
            continue
        if thought:
            return last[0].group() if last[0].group() in behind.partition(REPLY)[0] else ""
    return ""


def _last_token(tokenizer: Any, marker: str) -> int | None:
    """The id of a marker's last token, if that is an added one."""
    if not marker:
        return None
    ids = tokenizer(marker, add_special_tokens=False, verbose=False).input_ids
    return ids[-1] if ids and ids[-1] in tokenizer.added_tokens_decoder else None


def alike(left: str, right: str) -> int:
    """How many characters two texts begin with alike."""
    return len(commonprefix([left, right]))  # noqa: RUF071 - of characters, as it should be


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    # White space may be a token, too (Gemma); it marks nothing.
    longest_first = sorted({text for text in texts if text.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
