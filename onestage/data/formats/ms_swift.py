"""ms-swift: `messages` with `rejected_response` or `rejected_messages`, or with a thumb in `label`.

Also its short form, `query` and `response` (+ `system`, `history`), and calls as turns of their own
(`tool_call`, `tool_response`). `messages` alone are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onestage.data.formats import Format, Row, has
from onestage.data.sharegpt import alpaca_turns, called, with_system

ROLES = {"tool_response": "tool"}


@dataclass(frozen=True)
class MsSwift(Format):
    def recognises(self, row: Row) -> bool:
        if has(row, "query", "response"):
            # Alone they are only other names for a prompt and a completion.
            more = ("system", "history", "rejected_response")
            return not has(row, "messages") and any(row.get(one) for one in more)
        feedback = ("rejected_response", "rejected_messages", "label")
        messages = row.get("messages")
        if not isinstance(messages, list) or has(row, "completion") or has(row, "chosen"):
            return False
        return any(has(row, one) for one in feedback) or any(
            isinstance(one, Mapping) and one.get("role") in ("tool_call", "tool_response")
            for one in messages
        )

    def rows(self, row: Row) -> Iterator[Row]:
        tools = {"tools": row["tools"]} if row.get("tools") else {}
        system = row.get("system")
        turns = _led(_turns(row["messages"]), system) if has(row, "messages") else _short(row)
        worse = row.get("rejected_messages") or row.get("rejected_response")
        other = row.get("rejected_messages")
        if other and other[0]["role"] != "assistant":
            # They may part before the last turn: what they share is the prompt.
            yield {"chosen": turns, "rejected": _led(_turns(other), system), **tools}
        elif worse is not None:
            said = {"prompt": turns[:-1], "chosen": turns[-1:], **tools}
            several = isinstance(worse, list) and all(isinstance(one, str) for one in worse)
            for one in worse if several else (worse,):  # a pair for each of several worse ones
                yield {**said, "rejected": _worse(one)}
        elif has(row, "label"):
            label = row["label"]
            yield {"prompt": turns[:-1], "completion": turns[-1:], "label": label, **tools}
        else:
            yield {"messages": turns, **tools}


def _worse(worse: Any) -> Any:
    """The other response: text, or its messages."""
    return worse if isinstance(worse, str) else _turns(worse)


def _led(turns: list[Any], system: Any) -> list[Any]:
    """The turns behind the text of a `system` column."""
    return list(with_system(tuple(turns), system, "messages"))


def _short(row: Row) -> list[Any]:
    before = alpaca_turns(row.get("system"), row.get("history"))
    said = (("user", row["query"]), ("assistant", row["response"]))
    return [*before, *({"role": role, "content": text} for role, text in said)]


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [_turn(message) for message in messages]


def _turn(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message["role"] == "tool_call":
        calls = called(message["content"], "the content of a tool_call")
        return {"role": "assistant", "content": None, "tool_calls": calls}
    return {**message, "role": ROLES.get(message["role"], message["role"])}
