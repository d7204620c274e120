"""Argilla: records with `fields` and the `responses` of annotators, and the flat tables of its exports.

As JSON, `responses` is by question (version 2) or a list with `values` (version 1); in a table there are
columns `rating.responses` and `rating.responses.users`, or one of lists of {user_id, value}. Each
annotator's answer is a row: a number is a score, yes and no a label, a ranking of two texts a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.data._row_error import RowError, shown
from onestage.data.formats import Format, Row, has
from onestage.data.formats._speech import (
    asked_in,
    column_for,
    listed,
    preferred,
    rater,
    refuse_several,
)

Answer = tuple[str, Any, Any]
"""The question, what was answered, and who answered."""


@dataclass(frozen=True)
class Argilla(Format):
    scaled = False
    question: str = ""
    """The one that is meant, where several are answered in the same way."""

    def recognises(self, row: Row) -> bool:
        if isinstance(row.get("fields"), Mapping):
            return isinstance(row.get("responses"), Mapping | list)
        return any(name.endswith(".responses") for name in row) or any(map(_answers, row.values()))

    def rows(self, row: Row) -> Iterator[Row | RowError]:
        texts = row["fields"] if has(row, "fields") else row
        answered = [one for one in _submitted(row) if self.question in ("", one[0])]
        if not answered:
            raise RowError("nobody has answered", unlabelled=True)
        judged = [
            (question, _said(texts, question, value, rater(user, number)))
            for number, (question, value, user) in enumerate(answered, 1)
        ]
        refuse_several("argilla", judged)
        yield from (said for _, said in judged)


def _said(texts: Row, question: str, value: Any, user: str) -> Row | RowError:
    """What one answer says; what is wrong with it is no matter of the others."""
    try:
        return {**_judged(texts, question, value), "annotator": user}
    except RowError as error:
        return error


def _answers(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and {"user_id", "value", "status"} <= first.keys()


def _submitted(row: Row) -> Iterator[Answer]:
    responses = row.get("responses")
    if isinstance(responses, list):
        for one in responses:
            if one.get("status", "submitted") == "submitted":
                for question, held in one["values"].items():
                    yield question, held["value"], one.get("user_id")
        return
    if isinstance(responses, Mapping):
        for question, answers in responses.items():
            yield from _given(question, answers)
        return
    for name, held in row.items():
        if name.endswith(".responses") and held:
            values = listed(held)
            users = listed(row.get(f"{name}.users")) or [None] * len(values)
            states = listed(row.get(f"{name}.status")) or ["submitted"] * len(values)
            for value, user, state in zip(values, users, states, strict=True):
                if state == "submitted":
                    yield name.removesuffix(".responses"), value, user
        elif _answers(held):
            yield from _given(name, held)


def _given(question: str, answers: list[Mapping[str, Any]]) -> Iterator[Answer]:
    for one in answers:
        if one.get("status", "submitted") == "submitted":
            yield question, one["value"], one.get("user_id")


def _judged(texts: Row, question: str, value: Any) -> dict[str, Any]:
    prompt = asked_in(texts)
    if isinstance(value, list):
        return _ranked(texts, prompt, value)
    response = texts[column_for(texts, "completion")]
    said = {"prompt": prompt, "completion": response}
    if isinstance(value, bool) or str(value).lower() in ("yes", "no", "true", "false"):
        return {**said, "label": value}
    if isinstance(value, int | float):
        return {**said, "score": value}
    raise RowError(f"the answer to {question!r} is neither a number nor yes or no: {shown(value)}")


def _ranked(texts: Row, prompt: Any, ranking: list[Mapping[str, Any]]) -> dict[str, Any]:
    if len(ranking) != 2:
        raise RowError(f"only rankings of two texts become pairs, found {len(ranking)}")
    first, second = ranking
    preference = float(first["rank"]) - float(second["rank"])
    return preferred(prompt, texts[first["value"]], texts[second["value"]], preference)
