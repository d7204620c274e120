"""Conversations as ShareGPT writes them: `from` and `value`, with calls and their results as turns.

Also Alpaca's `history`, pairs of what was asked and answered before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onestage.data._row_error import RowError, shown
from onestage.data.messages import Message, messages_of, text_of
from onestage.data.parts import joined

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}

CALLS = ("function_call", "tool_call")
"""Who speaks where an assistant calls a function: `value` is the JSON of its name and arguments."""


def sharegpt_messages(value: object, system: object = None) -> tuple[Message, ...]:
    """`conversations` of {from, value} (or of {role, content}), with an optional system text."""
    if not isinstance(value, (list, tuple)):
        raise RowError(f"`conversations` must be a list of messages, found {shown(value)}")
    messages = messages_of([_message(turn) for turn in value], "conversations")
    return with_system(messages, system, "conversations")


def with_system(messages: tuple[Message, ...], system: object, name: str) -> tuple[Message, ...]:
    """The messages of a column `name` behind the text of a `system` column, as ShareGPT and Anthropic
    write it: a text, or its parts. RowError where the messages begin with another one."""
    if not system:
        return messages
    said = (
        joined(system, "system") if isinstance(system, (list, tuple)) else text_of(system, "system")
    )
    if messages[0]["role"] != "system":
        return ({"role": "system", "content": said}, *messages)
    if messages[0]["content"] != said:
        raise RowError(f"found both a `system` column and another system message in `{name}`")
    return messages


def alpaca_turns(system: object, history: object) -> list[Message]:
    """What stands before an Alpaca instruction: `system`, and `history`, pairs of what was said."""
    turns: list[Message] = []
    if system:
        turns.append({"role": "system", "content": text_of(system, "system")})
    if history and not isinstance(history, (list, tuple)):
        raise RowError(f"`history` must be a list of pairs, found {shown(history)}")
    for index, pair in enumerate(history or ()):  # type: ignore[arg-type, var-annotated]
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RowError(
                f"`history[{index}]` must be a pair of question and answer, found {shown(pair)}"
            )
        for role, said in zip(("user", "assistant"), pair, strict=True):
            turns.append({"role": role, "content": text_of(said, f"history[{index}]")})
    return turns


def called(value: object, name: str) -> list[dict[str, Any]]:
    """Tool calls out of the JSON of one, or of a list of several: `{"name": ..., "arguments": ...}`."""
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise RowError(f"{name} must be the JSON of a call: {error}") from None
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, Mapping) and "name" in call for call in calls):
        raise RowError(f"{name} must be a call with `name` and `arguments`, found {shown(value)}")
    return [
        {
            "type": "function",
            "function": {"name": call["name"], "arguments": call.get("arguments", {})},
        }
        for call in calls
    ]


def _message(turn: object) -> object:
    if not isinstance(turn, Mapping) or turn.get("role") is not None:
        return turn
    speaker = turn.get("from")
    speaker = (
        speaker.lower() if isinstance(speaker, str) else speaker
    )  # NeMo writes User, Assistant
    rest = {key: held for key, held in turn.items() if key not in ("from", "value", "role")}
    if speaker in CALLS:
        calls = called(turn.get("value"), f"`conversations`: the value of a {speaker}")
        return {"role": "assistant", "content": None, "tool_calls": calls, **rest}
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        allowed = ", ".join((*ROLES, *CALLS))
        raise RowError(f"`conversations` must be from one out of {allowed}, found {shown(speaker)}")
    return {"role": role, "content": turn.get("value"), **rest}
