"""Text and messages: prompts and responses, checked and brought to one form.

A prompt or response is a string or a list of messages. Null keys of a message are dropped, because
chat templates tell a null from an absent key. Nulls in what a tool is called with are said on purpose
and stay; in Parquet, where every mapping has every key that any has, they are padding and the reader
drops them.

How much an assistant's turn counts may stand in its message: `weight`, or `train` or `loss` (true or
false). All become one `weight`, which no template sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onestage.data._row_error import RowError, shown
from onestage.data.parts import joined
from onestage.data.scores import row_weight

Message = Mapping[str, Any]
"""One turn of a conversation: at least `role` and `content`, as chat templates know it."""

Turns = str | tuple[Message, ...]
"""Plain text, or the turns of a conversation."""

SPEAKERS = (
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
    "ipython",
    "observation",
)

WISHES = ("weight", "train", "loss", "training", "loss_weight")
"""Keys of a message that say how much it counts, here and in other tools."""

OLD_CALLS = {
    "function_call": "give it as `tool_calls`: [{type: function, function: {name, arguments}}]",
    "audio": "onestage trains on text",
    "refusal": "give what the assistant said as `content`",
}
"""Keys of an assistant's message that would change what is trained on, and that no template reads."""


def text_of(value: object, name: str) -> str:
    """A string that a tokenizer can encode (lone surrogates, legal in JSON, crash it)."""
    if not isinstance(value, str):
        raise RowError(f"`{name}` must be text, found {shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            found = shown(value[error.start : error.end])
            raise RowError(f"`{name}` must be valid Unicode, found {found}") from None
    return value


def turns_of(value: object, name: str) -> Turns:
    """Text, or a non-empty list of messages."""
    if isinstance(value, str):
        return text_of(value, name)
    if isinstance(value, (list, tuple)):
        return messages_of(value, name)
    raise RowError(f"`{name}` must be text or a list of messages, found {shown(value)}")


def messages_of(value: object, name: str) -> tuple[Message, ...]:
    """A non-empty list of messages, each with a known role and content."""
    if not isinstance(value, (list, tuple)) or not value:
        raise RowError(f"`{name}` must be a non-empty list of messages, found {shown(value)}")
    return tuple([_message_of(message, name, index) for index, message in enumerate(value)])


def prompt_of(value: object) -> Turns:
    """A prompt: text (the empty string too), or messages that leave the turn to the assistant."""
    prompt = turns_of(value, "prompt")
    if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
        raise RowError(
            "`prompt` must not end with an assistant message: that turn belongs to the response"
        )
    return prompt


def checked_response(response: Turns, name: str, starts: bool = True) -> Turns:
    """Returns `response` when it says something and the assistant has the last word.

    `starts` asks for the first word too: it is False for a conversation that carries its prompt.
    """
    if isinstance(response, str):
        if not response.strip():
            raise RowError(f"`{name}` is empty: a response needs text")
        return response
    if response[-1]["role"] != "assistant":
        raise RowError(
            f"`{name}` must end with an assistant message, found role {response[-1]['role']!r}"
        )
    if starts and response[0]["role"] != "assistant":
        raise RowError(
            f"`{name}` must start with an assistant message, found role {response[0]['role']!r}: "
            "a whole conversation goes into `messages`"
        )
    for index, message in enumerate(response):
        silent = message["role"] == "assistant" and not message.get("tool_calls")
        if silent and not message["content"].strip():
            raise RowError(f"`{name}[{index}]` is empty: an assistant message needs content")
    return response


def same_form(prompt: Turns, responses: Sequence[Turns]) -> tuple[Turns, tuple[Turns, ...]]:
    """All text or all messages: where both occur, text becomes a user or an assistant message."""
    if isinstance(prompt, str) and all(isinstance(response, str) for response in responses):
        return prompt, tuple(responses)
    if isinstance(prompt, str):
        if not prompt.strip():
            raise RowError("`prompt` is empty beside a response of messages: give a user message")
        prompt = ({"role": "user", "content": prompt},)
    return prompt, tuple(
        ({"role": "assistant", "content": response},) if isinstance(response, str) else response
        for response in responses
    )


def is_conversation(turns: Turns) -> bool:
    """Whether messages given as a response hold the prompt too."""
    return not isinstance(turns, str) and turns[0]["role"] != "assistant"


def split_pair(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], prompt: Turns | None
) -> tuple[Turns, tuple[Turns, Turns]]:
    """Two whole conversations -> (shared prompt, (chosen, rejected)).

    The prompt is the longest common beginning that leaves the turn to the assistant. A `prompt`
    column beside them must repeat a part of it; otherwise we could not tell which of them is meant.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    # Both may begin their answers alike; a prompt ends where the assistant is to speak.
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if shared == 0 or shared == len(turns) or turns[shared]["role"] != "assistant":
            raise RowError(
                "`chosen` and `rejected` must share their prompt, found conversations that "
                f"differ before the assistant speaks ({name} message {shared})"
            )
    if prompt and not _repeats(prompt, chosen[:shared]):
        raise RowError(
            "`chosen` and `rejected` are whole conversations and `prompt` is no part of them: "
            f"leave one of the two out, found prompt {shown(prompt)}"
        )
    return chosen[:shared], (chosen[shared:], rejected[shared:])


PLAIN = frozenset({str, int, float, bool, type(None)})
"""What holds nothing else."""


def without_nulls(value: Any) -> Any:
    """`value` without null entries of its mappings, at every depth."""
    if type(value) in PLAIN:  # nearly all are, and to ask what a mapping is takes long
        return value
    if isinstance(value, Mapping):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    if isinstance(value, (list, tuple)):
        return [without_nulls(held) for held in value]
    return value


def _message_of(message: object, name: str, index: int) -> Message:
    if type(message) is not dict and not isinstance(message, Mapping):
        raise RowError(f"`{name}[{index}]` must be a message, found {shown(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in SPEAKERS:
        raise RowError(
            f"`{name}[{index}]` must have a role out of {', '.join(SPEAKERS)}, found {shown(role)}"
        )
    if type(content) is list or type(content) is tuple:
        content = joined(content, f"{name}[{index}].content")
    if content is None and not message.get("tool_calls"):
        old = next((key for key in OLD_CALLS if message.get(key)), None)
        how = f"`{old}` is not read: {OLD_CALLS[old]}" if old else "only tool calls may go without"
        raise RowError(f"`{name}[{index}]` has no content: {how}")
    if content is not None and not (isinstance(content, str) and content.isascii()):
        text_of(content, f"{name}[{index}].content")
    # Nearly all messages are of this form, and have no other keys to go through.
    if len(message) == 2 and "content" in message:
        return {"role": role, "content": content}
    extra = {
        key: _called(held) if key == "tool_calls" else held
        for key, held in message.items()
        if key not in ("role", "content", *WISHES) and held is not None
    }
    for key in ("tool_calls", *OLD_CALLS):
        if extra.get(key) and role != "assistant":
            raise RowError(f"`{name}[{index}]` has `{key}`, but only an assistant calls tools")
    for key, instead in OLD_CALLS.items():
        if extra.get(key):
            raise RowError(f"`{name}[{index}].{key}` is not read: {instead}")
    return {"role": role, "content": content, **extra, **_wish(message, f"{name}[{index}]")}


def _called(calls: object) -> object:
    """Tool calls without the null keys of the calls themselves; what they are called with stays."""
    if isinstance(calls, list | tuple):
        return [_called(call) for call in calls]
    if not isinstance(calls, Mapping):
        return calls
    return {
        key: held if key == "arguments" else _called(held)
        for key, held in calls.items()
        if held is not None or key == "arguments"
    }


def _wish(message: Mapping[str, Any], where: str) -> dict[str, float]:
    """`weight` of a message, from what it says of its part in training; empty for an ordinary one."""
    said = {key: message[key] for key in WISHES if message.get(key) is not None}
    if not said:
        return {}
    wishes = {_counted(value, f"{where}.{key}") for key, value in said.items()}
    if len(wishes) > 1:
        raise RowError(f"`{where}` says {said}, which do not agree: leave one of them")
    (weight,) = wishes
    if message["role"] != "assistant":
        if weight:
            raise RowError(
                f"`{where}` is to be trained on ({said}) and its role is {message['role']}: only "
                "assistant messages are; give it weight 0 or none"
            )
        return {}
    return {} if weight == 1 else {"weight": weight}


def _counted(value: object, where: str) -> float:
    if isinstance(value, bool):
        return float(value)
    try:
        return 0.0 if value == 0 else row_weight(value)
    except RowError:
        raise RowError(
            f"`{where}` must be true, false or a weight of at least 0, found {shown(value)}"
        ) from None


def _repeats(prompt: Turns, shared: tuple[Message, ...]) -> bool:
    if isinstance(prompt, str):
        return any(
            isinstance(message["content"], str) and message["content"].strip() == prompt.strip()
            for message in shared
        )
    return shared[: len(prompt)] == prompt
