"""Conversations that chat templates stumble over, and a judge of what is scored of them.

The judge reads decoded tokens only. It knows what each assistant turn said and what others said, and
nothing of how the package finds a turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onestage.data.encoded import Encoded
from onestage.data.record import Record, Refusal
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def called(arguments: Any, **more: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": function}],
        **more,
    }


@dataclass(frozen=True)
class Shape:
    """A conversation, the parts that must be scored turn by turn, and whether it may be refused."""

    messages: tuple[dict[str, Any], ...]
    turns: tuple[tuple[str, ...], ...]
    common: bool = True
    """Every chat template can render it; others may be refused, with what is dropped by name."""
    word: str = ""
    """What the refusal must name."""


TOLD = {"role": "tool", "content": "21"}
PARIS = {"city": "Paris"}
WEATHER = user("How warm is it?")

SHAPES = {
    "short answer that stands in the question": Shape(
        (
            user("Answer Yes or No: is the sky blue?"),
            said("Yes"),
            user("Sure?"),
            said("Yes, the sky is blue."),
        ),
        (("Yes",), ("Yes, the sky is blue.",)),
    ),
    "the reply repeats the user": Shape(
        (user("Repeat: Hello there"), said("Hello there")), (("Hello there",),)
    ),
    "reasoning, one turn": Shape(
        (user("Two and two?"), said("four", reasoning_content="ADD1")),
        (("ADD1", "four"),),
        common=False,
        word="reasoning_content",
    ),
    "reasoning, two turns": Shape(
        (
            user("Two and two?"),
            said("four", reasoning_content="ADD1"),
            user("Three and three?"),
            said("six", reasoning_content="ADD2"),
        ),
        (("ADD1", "four"), ("ADD2", "six")),
        common=False,
        word="reasoning_content",
    ),
    "thinking inside content": Shape(
        (user("Two and two?"), said("<think>\nADD1\n</think>\n\nfour")),
        (("ADD1", "four"),),
        common=False,
        word="ADD1",
    ),
    "tool call, result, answer": Shape(
        (WEATHER, called(PARIS, content=""), TOLD, said("It is 21.")),
        (("get_weather", "Paris"), ("It is 21.",)),
        common=False,
    ),
    "the same, content null": Shape(
        (WEATHER, called(PARIS, content=None), TOLD, said("It is 21.")),
        (("get_weather", "Paris"), ("It is 21.",)),
        common=False,
    ),
    "tool call last, no content": Shape(
        (WEATHER, called(json.dumps(PARIS))), (("get_weather", "Paris"),), common=False
    ),
    "explicit nulls": Shape(
        (WEATHER, called({"city": "Paris", "unit": None})),
        (("get_weather", "Paris", "unit"),),
        common=False,
    ),
    "turn weights": Shape(
        (user("Say A"), said("BAD", weight=0), user("Say B"), said("GOOD", train=True)),
        (("GOOD",),),
    ),
}


def encode(tokenizer: Any, messages: Sequence[dict[str, Any]]) -> Encoded | Refusal:
    """A row of messages as the package reads a JSON line, in token ids."""
    row = json.loads(json.dumps({"messages": list(messages)}))
    record = record_of(row, Stream("rows.jsonl", name="rows"), "rows.jsonl:1")
    assert isinstance(record, Record)
    return Encoder(tokenizer, 4096).encode(record)


def scored(encoded: Encoded, tokenizer: Any) -> list[tuple[str, str]]:
    """What stands before each scored span, and the span, decoded; in the order of the responses."""
    return [
        (tokenizer.decode(path.ids[:start]), tokenizer.decode(path.ids[start:end]))
        for path in encoded.paths
        for start, end in path.spans
    ]


def faults(shape: Shape, spans: Sequence[tuple[str, str]]) -> list[str]:
    """What is wrong with the scored spans; empty where they are what was meant."""
    found = []
    if len(spans) != len(shape.turns):
        found.append(f"{len(spans)} turns are scored, not {len(shape.turns)}")
    others = [turn["content"] for turn in shape.messages if turn["role"] != "assistant"]
    others += [turn["content"] for turn in shape.messages if turn.get("weight") == 0]
    asked = _asked(shape)
    for (before, text), parts, question in zip(spans, shape.turns, asked, strict=False):
        found += [f"{part!r} is not scored" for part in parts if part not in text]
        # The second time would be somebody else's, or the same thing trained twice. Protocols may name
        # a tool more than once.
        told = (part for part in parts if part != "get_weather")
        found += [f"{part!r} twice" for part in told if len(part) > 2 and text.count(part) > 1]
        found += [f"scores {other!r}" for other in others if other and _words(other, text)]
        if question not in before:
            found.append(f"{question!r} does not stand before the turn")
    return found


def _words(other: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(other)}(?!\w)", text) is not None and other != "21"


def _asked(shape: Shape) -> list[str]:
    """What was said last before each scored turn."""
    return [
        shape.messages[number - 1]["content"]
        for number, turn in enumerate(shape.messages)
        if turn["role"] == "assistant" and turn.get("weight") != 0
    ]


def outcome(tokenizer: Any, shape: Shape) -> str:
    """`right`, `noted: ...`, `refused: ...` or `WRONG: ...` of one template and conversation."""
    encoded = encode(tokenizer, shape.messages)
    if isinstance(encoded, Refusal):
        helps = not shape.common and shape.word in encoded.reason
        return f"refused: {encoded.reason}" if helps else f"WRONG: refused, {encoded.reason}"
    wrong = faults(shape, scored(encoded, tokenizer))
    if wrong:
        return "WRONG: " + "; ".join(wrong)
    return f"noted: {'; '.join(encoded.notes)}" if encoded.notes else "right"
