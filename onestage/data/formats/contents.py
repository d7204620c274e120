"""Conversations as Gemini and Vertex AI write them: `contents` of `role` (user, model) and `parts`.

Before them `systemInstruction` (or `system_instruction`). A part that is no text is refused. Preference
tuning has two `completions` beside them, each a `completion` and its `score`, of which the higher one is
preferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.data._row_error import RowError
from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import judged

ROLES = {"user": "user", "model": "assistant"}


@dataclass(frozen=True)
class Contents(Format):
    def recognises(self, row: Row) -> bool:
        contents = row["contents"] if has(row, "contents") else None
        return isinstance(contents, list) and all("parts" in turn for turn in contents)

    def rows(self, row: Row) -> Iterator[Row]:
        system = row.get("systemInstruction") or row.get("system_instruction")
        turns = [{"role": "system", "content": _text(system)}] if system else []
        # Of a turn that is no text, that is said first.
        said = [(_text(turn), turn.get("role", "user")) for turn in row["contents"]]
        turns += [{"role": ROLES[role], "content": text} for text, role in said]
        judging = judged(row)
        if judging:
            raise RowError(
                f"`{next(iter(judging))}` beside `contents` is not read: nobody says of what"
            )
        tools = _tools(row.get("tools"))
        if not has(row, "completions"):
            yield {"messages": turns, **tools}
            return
        first, second = row["completions"]
        by_score = {first["score"]: first, second["score"]: second}
        if len(by_score) == 1:
            raise RowError("prefers neither response", tie=True)
        worse, better = (by_score[score]["completion"] for score in sorted(by_score))
        yield {
            "prompt": turns,
            "chosen": [{"role": "assistant", "content": _text(better)}],
            "rejected": [{"role": "assistant", "content": _text(worse)}],
            **tools,
        }


def _tools(tools: Any) -> Row:
    """`functionDeclarations` as tools are written elsewhere; other tools (a search, say) are refused."""
    made = []
    for tool in tools or ():
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        if not declared or len(tool) > 1:
            raise RowError(
                f"`tools` hold {', '.join(tool)}: functionDeclarations alone can be told"
            )
        made += [{"type": "function", "function": one} for one in declared]
    return {"tools": made} if made else {}


def _text(turn: Mapping[str, Any]) -> str:
    held = [
        key for part in turn["parts"] for key, value in part.items() if value not in (None, False)
    ]
    other = next((key for key in held if key != "text"), None)
    if other:
        raise RowError(f"a part of `contents` is {other}: onestage trains on text only")
    return "".join(part["text"] for part in turn["parts"])
