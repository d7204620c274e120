"""Whether a chat template renders all parts of a message, and the forms in which it may want them.

The field has several spellings of one thing: a tool call's arguments are a mapping or its JSON, its
content is empty, null or absent, reasoning has three names. Templates read some of them and pass over
the rest without a word. So a message is offered as it was given, then in the other spellings, and what
is rendered is compared with what was said, part by part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from onestage.data.messages import Message

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which templates look for what was thought before the answer."""


def forms(turns: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The conversation as it was given, and then in other spellings of the same."""
    yield turns
    calling = any(turn.get("tool_calls") for turn in turns)
    thinking = [name for name in REASONING if any(turn.get(name) for turn in turns)]
    if not calling and not thinking:
        return
    # Its own content first: with another one a template may end the turn otherwise.
    contents = ("as given", None, "", "absent") if calling else ("as given",)
    arguments = ("mapping", "text") if calling else ("as given",)
    names = (*thinking[:1], *(n for n in REASONING if n not in thinking)) if thinking else ("",)
    for name, content, argument in product(names, contents, arguments):
        yield [_respelled(turn, content, argument, name) for turn in turns]


def in_parts(turns: Sequence[Message]) -> list[Message]:
    """The messages with their content as a list of one part, as multimodal models' templates read it."""
    return [
        {**turn, "content": [{"type": "text", "text": turn["content"]}]}
        if isinstance(turn.get("content"), str)
        else turn
        for turn in turns
    ]


def unspoken(turn: Message, said: str) -> str:
    """What of an assistant's message is not in its rendering, by name; empty where all of it is."""
    content = turn.get("content") or ""
    if not holds(said, content):
        return f"the response {content.strip()[:60]!r}"
    for name in REASONING:
        thought = turn.get(name)
        if isinstance(thought, str) and not holds(said, thought):
            return f"`{name}` {thought.strip()[:60]!r}"
    for call in turn.get("tool_calls") or ():
        lost = _uncalled(call, said)
        if lost:
            return lost
    return ""


def holds(text: str, part: str) -> bool:
    """Whether a text has a part in it, as it is, inside JSON, or with other white space."""
    part = part.strip()
    if part in text:
        return True
    if _quoted(part, True) in text or _quoted(part, False) in text:
        return True
    return "".join(part.split()) in "".join(text.split())


def _quoted(part: str, ascii_only: bool) -> str:
    return json.dumps(part, ensure_ascii=ascii_only)[1:-1]


def _respelled(turn: Message, content: Any, arguments: str, reasoning: str) -> Message:
    if turn["role"] != "assistant":
        return turn
    changed = dict(turn)
    thought = next((changed.pop(name) for name in REASONING if changed.get(name)), None)
    if thought is not None:
        changed[reasoning] = thought
    if changed.get("tool_calls"):
        changed["tool_calls"] = [_call(call, arguments) for call in changed["tool_calls"]]
        if not changed.get("content") and content != "as given":
            changed["content"] = content
            if content == "absent":
                del changed["content"]
    return changed


def _call(call: Any, arguments: str) -> Any:
    """A tool call with its arguments as a mapping, or as the JSON text of one."""
    if not isinstance(call, Mapping):
        return call
    if "function" in call:
        return {**call, "function": _call(call["function"], arguments)}
    given = call.get("arguments")
    if arguments == "text" and isinstance(given, Mapping):
        return {**call, "arguments": json.dumps(given, ensure_ascii=False)}
    if arguments == "mapping" and isinstance(given, str):
        try:
            read = json.loads(given)
        except ValueError:
            return call
        return {**call, "arguments": read} if isinstance(read, dict) else call
    return call


def _uncalled(call: Any, said: str) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or name not in said:
        return f"the tool call {name!r}"
    if isinstance(arguments, str):
        return "" if arguments.strip() in said else f"the arguments of the tool call {name!r}"
    for value in _leaves(arguments):
        spelled = {str(value), json.dumps(value, ensure_ascii=False), json.dumps(value)}
        if not any(one in said or holds(said, one) for one in spelled):
            return f"the argument {value!r} of the tool call {name!r}"
    return ""


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield key
            yield from _leaves(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _leaves(held)
    else:
        yield value
