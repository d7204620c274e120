"""What a judge is shown: its template, filled with what was asked and what was answered."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from onestage.rollout.rewards import Answer

PLACEHOLDER = re.compile(r"\{(\w+)\}")


def fill(template: str, answer: Answer, score_range: tuple[float, float]) -> str:
    """The template with its placeholders replaced, in one pass. `KeyError` for an unknown one."""
    low, high = score_range
    values: dict[str, Any] = {
        **answer.facts,
        "prompt": request(answer),
        "completion": fenced(answer.completion),
        "response": fenced(answer.response),
        "low": f"{low:g}",
        "high": f"{high:g}",
    }

    def value(match: re.Match[str]) -> str:
        found = values[match[1]]
        return found if isinstance(found, str) else json.dumps(found, default=str)

    return PLACEHOLDER.sub(value, template)


def request(answer: Answer) -> str:
    """What was asked: the messages where there are any, without the policy's chat template, and the
    tools that it was offered."""
    turns = [(str(turn.get("role")), _said(turn)) for turn in answer.turns]
    if answer.template.get("tools"):
        turns.insert(0, ("tools", json.dumps(answer.template["tools"], default=str)))
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in turns) or answer.prompt


def _said(turn: Mapping[str, Any]) -> str:
    """What a turn says, and the tools that it calls."""
    calls = json.dumps(turn["tool_calls"], default=str) if turn.get("tool_calls") else ""
    return "\n".join(filter(None, (str(turn.get("content") or ""), calls)))


def fenced(text: str) -> str:
    """Between tags that the text cannot hold."""
    name = "response-" + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
    return f"<{name}>\n{text}\n</{name}>"
