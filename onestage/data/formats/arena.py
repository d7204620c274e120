"""Chatbot Arena: two conversations, or two lists of answers, and the `winner`.

Zheng et al., arXiv 2306.05685, and the tables of its competitions (`winner_model_a`; `response_a` is the
JSON of a list of turns). Ties, of good answers or of bad ones, prefer neither. In MT-bench's judgements
(the same paper) `turn` says after which turn the conversations were judged: what follows was not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onestage.data._row_error import RowError, shown
from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import listed
from onestage.data.sharegpt import with_system

SIDES = {
    "a": "a",
    "b": "b",
    **{f"{said}_{side}": side for said in ("model", "response", "assistant") for side in "ab"},
}
"""Who won, in small letters."""


@dataclass(frozen=True)
class Arena(Format):
    def recognises(self, row: Row) -> bool:
        if has(row, "conversation_a", "conversation_b"):
            return has(row, "winner")
        voted = has(row, "winner") or has(row, "winner_model_a", "winner_model_b")
        return has(row, "prompt", "response_a", "response_b") and voted

    def rows(self, row: Row) -> Iterator[Row]:
        winner = _winner(row)
        loser = "b" if winner == "a" else "a"
        system = row.get("system")
        if has(row, "conversation_a"):
            better, worse = row[f"conversation_{winner}"], row[f"conversation_{loser}"]
            sides = {"chosen": _judged(row, better), "rejected": _judged(row, worse)}
            yield {name: list(with_system(side, system, name)) for name, side in sides.items()}
            return
        led = {"system": system} if system else {}
        prompts = _turns(row["prompt"])
        better, worse = row[f"response_{winner}"], row[f"response_{loser}"]
        if prompts is None:  # one text each, which may begin with a bracket
            yield {"prompt": row["prompt"], "chosen": better, "rejected": worse, **led}
            return
        better, worse = listed(better), listed(worse)
        if not len(prompts) == len(better) == len(worse):
            raise RowError("both responses must have a turn for each of the prompt")
        if len(prompts) == 1:
            yield {"prompt": prompts[0], "chosen": better[0], "rejected": worse[0], **led}
            return
        sides = {"chosen": _said(prompts, better), "rejected": _said(prompts, worse)}
        yield {name: list(with_system(side, system, name)) for name, side in sides.items()}


def _judged(row: Row, conversation: Any) -> tuple[Any, ...]:
    """The turns of a conversation that were judged."""
    turns, after = tuple(listed(conversation)), row.get("turn")
    leading = sum(turn["role"] == "system" for turn in turns)
    return turns[: leading + 2 * after] if isinstance(after, int) and after > 0 else turns


def _winner(row: Row) -> str:
    said = row.get("winner")
    if said is None:
        said = next((side for side in ("a", "b") if int(row[f"winner_model_{side}"])), "tie")
    word = str(said).strip().lower()
    if word in SIDES:
        return SIDES[word]
    if "tie" in word or "both" in word:
        raise RowError("a tie: prefers neither answer", tie=True)
    raise RowError(f"`winner` must be model_a, model_b or a tie, found {shown(said)}")


def _turns(said: Any) -> list[str] | None:
    """What was asked, turn by turn, of a list or its JSON; None of a text."""
    turns = listed(said) if not isinstance(said, str) or said.startswith("[") else None
    told = isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns)
    return turns if told else None


def _said(prompts: list[str], answers: list[str]) -> tuple[Any, ...]:
    turns: list[Any] = []
    for asked, answered in zip(prompts, answers, strict=True):
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return tuple(turns)
