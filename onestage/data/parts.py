"""The parts of a record, for each kind: prompt, completions and scores out of a row's columns.

Each function is handed a row whose kind is settled, and reads only that kind's columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.data.kinds import rated_score, unit_label, unit_score
from onestage.data.messages import (
    checked_response,
    is_conversation,
    messages_of,
    prompt_of,
    same_form,
    sharegpt_messages,
    split_pair,
    text_of,
    turns_of,
)
from onestage.data.record import Kind, RowError, Tie, Turns, shown

Parts = tuple[Turns, tuple[Turns, ...], tuple[float, ...]]
"""Prompt, completions, scores."""


@dataclass(slots=True)
class Row:
    """One row under our names: `found` holds what is present and not null."""

    found: dict[str, Any]
    raw: Mapping[str, Any]
    """The same row under the file's names, where rating columns are found."""
    ratings: Mapping[str, float]
    score_range: tuple[float, float]

    def need(self, name: str) -> Any:
        """The column, or MissingColumn for its caller to explain."""
        if name not in self.found:
            raise MissingColumn(name)
        return self.found[name]

    def response(self, name: str) -> Turns:
        return checked_response(turns_of(self.need(name), name), name)

    def score(self, name: str) -> float:
        return unit_score(self.need(name), name, self.score_range)


class MissingColumn(Exception):
    """A column that the row's kind needs; its text is our name for it."""


def _demonstration(row: Row) -> Parts:
    found = row.found
    if "messages" in found:
        messages = messages_of(found["messages"], "messages")
        return (), (checked_response(messages, "messages", starts=False),), ()
    if "conversations" in found:
        messages = sharegpt_messages(found["conversations"], found.get("system"))
        return (), (checked_response(messages, "conversations", starts=False),), ()
    return (*_answered(row), ())


def _score(row: Row) -> Parts:
    prompt, completions = _answered(row)
    if row.ratings:
        for column in row.ratings:
            if row.raw.get(column) is None:
                raise MissingColumn(column)
        scores = rated_score(row.raw, row.ratings, row.score_range)
        return prompt, completions, (scores,)
    return prompt, completions, (row.score("score"),)


def _label(row: Row) -> Parts:
    return (*_answered(row), (unit_label(row.need("label")),))


def _answered(row: Row) -> tuple[Turns, tuple[Turns, ...]]:
    response = row.response("completion")
    return same_form(prompt_of(row.need("prompt")), (response,))


def _pair(row: Row) -> Parts:
    sides = [turns_of(row.need(name), name) for name in ("chosen", "rejected")]
    whole = [is_conversation(side) for side in sides]
    for name, side, carries_prompt in zip(("chosen", "rejected"), sides, whole, strict=True):
        checked_response(side, name, starts=not carries_prompt)
    if whole[0] != whole[1]:
        raise RowError("one of `chosen` and `rejected` holds the prompt too, the other does not")
    scores = _pair_scores(row)
    if sides[0] == sides[1]:
        raise Tie("`chosen` and `rejected` are the same")
    if whole[0]:
        prompt = row.found.get("prompt")
        given = None if prompt is None else prompt_of(prompt)
        return (*split_pair(sides[0], sides[1], given), scores)  # type: ignore[arg-type]
    return (*same_form(prompt_of(row.need("prompt")), sides), scores)


def _pair_scores(row: Row) -> tuple[float, ...]:
    if "chosen_score" not in row.found and "rejected_score" not in row.found:
        return ()
    chosen, rejected = row.score("chosen_score"), row.score("rejected_score")
    given = f"{row.found['chosen_score']!r} and {row.found['rejected_score']!r}"
    if chosen == rejected:
        raise Tie(f"`chosen_score` equals `rejected_score`, found {given}")
    if chosen < rejected:
        raise RowError(f"`chosen_score` must be above `rejected_score`, found {given}")
    return chosen, rejected


def _group(row: Row) -> Parts:
    given, scores = row.need("completions"), row.need("scores")
    for name, held in (("completions", given), ("scores", scores)):
        if not isinstance(held, (list, tuple)):
            raise RowError(f"`{name}` must be a list, found {shown(held)}")
    if len(given) < 2 or len(given) != len(scores):
        raise RowError(
            "a group needs two or more `completions` and a score for each, "
            f"found {len(given)} completions and {len(scores)} scores"
        )
    named = [(f"completions[{index}]", held) for index, held in enumerate(given)]
    responses = [checked_response(turns_of(held, name), name) for name, held in named]
    prompt, completions = same_form(prompt_of(row.need("prompt")), responses)
    score_range = row.score_range
    return (
        prompt,
        completions,
        tuple([unit_score(s, f"scores[{i}]", score_range) for i, s in enumerate(scores)]),
    )


def _text(row: Row) -> Parts:
    text = text_of(row.need("text"), "text")
    checked_response(text, "text")
    return "", (text,), ()


def _check(row: Row) -> Parts:
    prompt = prompt_of(row.need("prompt"))
    if "completion" not in row.found:
        return prompt, (), ()
    prompt, worked = same_form(prompt, (row.response("completion"),))
    return prompt, worked, ()


PARTS_OF: Mapping[Kind, Callable[[Row], Parts]] = {
    "demonstration": _demonstration,
    "score": _score,
    "label": _label,
    "pair": _pair,
    "group": _group,
    "text": _text,
    "check": _check,
}
