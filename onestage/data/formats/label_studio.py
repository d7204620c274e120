"""Label Studio: tasks with `data` and the `annotations` of its users, as exported in JSON.

Each annotation is a row: a rating is a score, a choice of yes or no (good or bad, ...) a label, a
pairwise choice of left or right a pair. Cancelled annotations are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.data._row_advice import ALIASES
from onestage.data._row_error import RowError, shown
from onestage.data.formats import Format, Row
from onestage.data.formats._speech import asked_in, column_for, preferred, rater, refuse_several

WORDS = {
    **dict.fromkeys(("yes", "true", "good", "positive", "thumbs up", "accept", "correct"), True),
    **dict.fromkeys(
        ("no", "false", "bad", "negative", "thumbs down", "reject", "incorrect"), False
    ),
}


@dataclass(frozen=True)
class LabelStudio(Format):
    scaled = False
    question: str = ""
    """The one that is meant (`from_name`), where several are answered in the same way."""

    def recognises(self, row: Row) -> bool:
        return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations"), list)

    def rows(self, row: Row) -> Iterator[Row | RowError]:
        said = [one for one in row["annotations"] if not one.get("was_cancelled")]
        judged = [
            (str(result.get("from_name")), _said(row["data"], result, _who(one, number)))
            for number, one in enumerate(said, 1)
            for result in one["result"]
            if self.question in ("", result.get("from_name"))
        ]
        if not judged:
            raise RowError("nobody has answered", unlabelled=True)
        refuse_several("label_studio", judged)
        yield from (one for _, one in judged)


def _said(data: Row, result: Mapping[str, Any], user: str) -> Row | RowError:
    """What one answer says; what is wrong with it is no matter of the others."""
    try:
        return {**_judged(data, result), "annotator": user}
    except RowError as error:
        return error


def _who(annotation: Mapping[str, Any], number: int) -> str:
    user = annotation.get("completed_by")
    if isinstance(user, Mapping):
        user = user.get("email") or user.get("id")
    return rater(user, number)


def _judged(data: Row, result: Mapping[str, Any]) -> dict[str, Any]:
    value, prompt = result["value"], column_for(data, "prompt")
    if "selected" in value:
        first, second = _two(data, prompt)
        side = {"left": -1, "right": 1}[value["selected"]]
        return preferred(asked_in(data), first, second, side)
    said = {"prompt": asked_in(data), "completion": data[column_for(data, "completion")]}
    if "rating" in value:
        return {**said, "score": value["rating"]}
    chosen = value.get("choices") or []
    if len(chosen) == 1 and chosen[0].lower() in WORDS:
        return {**said, "label": WORDS[chosen[0].lower()]}
    raise RowError(f"neither a rating nor a choice of yes or no: {shown(value)}")


def _two(data: Row, prompt: str) -> list[Any]:
    """The two texts that were compared: answer1 and answer2, response_a and response_b, ..."""
    words = ("completion", "text", *ALIASES["completion"])
    names = sorted(name for name in data if name != prompt and name.startswith(words))
    if len(names) != 2:
        raise RowError(f"a comparison needs two texts, found {', '.join(names) or 'none'}")
    return [data[name] for name in names]
