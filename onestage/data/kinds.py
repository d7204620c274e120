"""The kinds of feedback: one row of `FEEDBACK` each, in which everything stands that sets it apart.

| kind            | columns (text or message lists)                       | completions      | scores   |
| --------------- | ----------------------------------------------------- | ---------------- | -------- |
| `demonstration` | `messages` · `conversations` · `prompt`, `completion` | one              | none     |
| `score`         | `prompt`, `completion`, `score` (or rating columns)   | one              | one      |
| `label`         | `prompt`, `completion`, `label`                       | one              | 0 or 1   |
| `pair`          | `prompt`, `chosen`, `rejected` (+ two scores)         | chosen, rejected | none/two |
| `group`         | `prompt`, `completions`, `scores`                     | two or more      | one each |
| `text`          | `text`                                                | one, prompt ""   | none     |
| `check`         | `prompt`, `answer` or other facts (+ worked solution) | none, or worked  | none     |

Scores lie in [0, 1]. A `check` record is a problem: the policy answers it, a reward judges. Other files
ask a kind's row for what they need to know and never compare with a name, so that another kind is a
row here (with the function that reads its columns) and, if token ids are made of it in a new way, a
layout in `tokenize.py`. Which losses can use it is then each objective's own decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from onestage.data._row_error import RowError, shown
from onestage.data.messages import (
    Turns,
    checked_response,
    is_conversation,
    messages_of,
    prompt_of,
    same_form,
    split_pair,
    text_of,
    turns_of,
)
from onestage.data.scores import rated_score, unit_label, unit_score
from onestage.data.sharegpt import sharegpt_messages, with_system

Kind = Literal["demonstration", "score", "label", "pair", "group", "text", "check"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""Stores and batches write a kind as its place in here: append new ones, never reorder."""

Parts = tuple[Turns, tuple[Turns, ...], tuple[float, ...]]
"""Prompt, completions, scores."""

Layout = Literal["turns", "completions", "windows", "problem"]
"""What becomes of a record's text: each assistant turn is a response, or each completion; text without
a prompt, cut to length; or a prompt to answer, and perhaps a worked answer to take hints from."""


class MissingColumn(Exception):
    """A column that the row's kind needs; its text is our name for it."""


@dataclass(slots=True)
class NamedRow:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackKind:
    """What sets one kind of feedback apart from the others."""

    needs: tuple[str, ...]
    """Columns without which there is no record."""
    marks: tuple[tuple[str, ...], ...]
    """Groups of columns: any one of a group says that a row is of this kind."""
    parts: Callable[[NamedRow], Parts]
    """Reads this kind's columns of a row; raises RowError or MissingColumn."""
    layout: Layout
    reads: tuple[str, ...] = ()
    """Columns of feedback: they tell kinds apart that share a mark, and are refused beside others."""
    instead: str = ""
    """A column that holds all of it alone."""
    weak: bool = False
    """Its marks are common extras (rendered copies, reference answers): they count only where there is
    no response."""
    shuns: tuple[str, ...] = ()
    """Columns beside which its marks are not trusted."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What other data sets call its columns."""
    scale: Literal["none", "thumb", "graded"] = "none"
    """What each response is judged by: nothing, up (1) or down (0), or a score in between as well."""
    paired: bool = False
    """Its two responses are compared, the better one first."""
    asked: bool = False
    """A problem: it comes without responses, the policy answers it in training."""


def _demonstration(row: NamedRow) -> Parts:
    found = row.found
    if "messages" in found:
        messages = messages_of(found["messages"], "messages")
        messages = with_system(messages, found.get("system"), "messages")
        return (), (checked_response(messages, "messages", starts=False),), ()
    if "conversations" in found:
        messages = sharegpt_messages(found["conversations"], found.get("system"))
        return (), (checked_response(messages, "conversations", starts=False),), ()
    return (*_answered(row), ())


def _score(row: NamedRow) -> Parts:
    prompt, completions = _answered(row)
    if row.ratings:
        for column in row.ratings:
            if row.raw.get(column) is None:
                raise MissingColumn(column)
        scores = rated_score(row.raw, row.ratings, row.score_range)
        return prompt, completions, (scores,)
    return prompt, completions, (row.score("score"),)


def _label(row: NamedRow) -> Parts:
    return (*_answered(row), (unit_label(row.need("label")),))


def _answered(row: NamedRow) -> tuple[Turns, tuple[Turns, ...]]:
    response = row.response("completion")
    return same_form(prompt_of(row.need("prompt")), (response,))


def _pair(row: NamedRow) -> Parts:
    # Whole conversations repeat the prompt on both sides, as in many public sets; others do not.
    sides = [turns_of(row.need(name), name) for name in ("chosen", "rejected")]
    whole = [is_conversation(side) for side in sides]
    for name, side, carries_prompt in zip(("chosen", "rejected"), sides, whole, strict=True):
        checked_response(side, name, starts=not carries_prompt)
    if whole[0] != whole[1]:
        raise RowError("one of `chosen` and `rejected` holds the prompt too, the other does not")
    scores = _pair_scores(row)
    if sides[0] == sides[1]:
        raise RowError("`chosen` and `rejected` are the same", tie=True)
    if whole[0]:
        prompt = row.found.get("prompt")
        given = None if prompt is None else prompt_of(prompt)
        return (*split_pair(sides[0], sides[1], given), scores)  # type: ignore[arg-type]
    return (*same_form(prompt_of(row.need("prompt")), sides), scores)


def _pair_scores(row: NamedRow) -> tuple[float, ...]:
    if "chosen_score" not in row.found and "rejected_score" not in row.found:
        return ()
    chosen, rejected = row.score("chosen_score"), row.score("rejected_score")
    given = f"{row.found['chosen_score']!r} and {row.found['rejected_score']!r}"
    if chosen == rejected:
        raise RowError(f"`chosen_score` equals `rejected_score`, found {given}", tie=True)
    if chosen < rejected:
        raise RowError(f"`chosen_score` must be above `rejected_score`, found {given}")
    return chosen, rejected


def _group(row: NamedRow) -> Parts:
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


def _text(row: NamedRow) -> Parts:
    text = text_of(row.need("text"), "text")
    checked_response(text, "text")
    return "", (text,), ()


def _check(row: NamedRow) -> Parts:
    prompt = prompt_of(row.need("prompt"))
    if "completion" not in row.found:
        return prompt, (), ()
    prompt, worked = same_form(prompt, (row.response("completion"),))
    return prompt, worked, ()


FEEDBACK: Mapping[Kind, FeedbackKind] = {
    "demonstration": FeedbackKind(
        needs=("prompt", "completion"),
        marks=(("messages",), ("conversations",), ("completion",)),
        instead="messages",
        parts=_demonstration,
        layout="turns",
        aliases={
            "completion": ("response", "answer", "output", "reply", "targets"),
            "prompt": ("question", "query", "instruction", "input", "inputs", "problem"),
            "messages": ("conversation", "dialogue"),
        },
    ),
    "score": FeedbackKind(
        needs=("prompt", "completion", "score"),
        marks=(("completion",),),
        reads=("score",),
        parts=_score,
        layout="completions",
        scale="graded",
        aliases={"score": ("rating", "reward", "stars", "grade")},
    ),
    "label": FeedbackKind(
        needs=("prompt", "completion", "label"),
        marks=(("completion",),),
        reads=("label",),
        parts=_label,
        layout="completions",
        scale="thumb",
        aliases={
            "label": (
                *("thumbs_up", "liked", "upvoted", "approved", "is_good", "is_helpful"),
                *("correct", "is_correct", "correctness", "safe", "is_safe"),
            )
        },
    ),
    "pair": FeedbackKind(
        needs=("prompt", "chosen", "rejected"),
        marks=(("chosen", "rejected"),),
        reads=("chosen_score", "rejected_score"),
        parts=_pair,
        layout="completions",
        paired=True,
        aliases={
            "chosen": ("preferred", "accepted", "winner"),
            "rejected": ("dispreferred", "loser"),
        },
    ),
    "group": FeedbackKind(
        needs=("prompt", "completions", "scores"),
        marks=(("completions",),),
        reads=("scores",),
        parts=_group,
        layout="completions",
        scale="graded",
        aliases={
            "completions": ("responses", "answers", "outputs"),
            "scores": ("ratings", "rewards"),
        },
    ),
    "text": FeedbackKind(
        needs=("text",),
        marks=(("text",),),
        weak=True,
        shuns=("prompt", "answer"),
        parts=_text,
        layout="windows",
        aliases={"text": ("content", "document")},
    ),
    "check": FeedbackKind(
        needs=("prompt",),
        marks=(("answer", "solution", "target"),),
        weak=True,
        parts=_check,
        layout="problem",
        asked=True,
    ),
}

A_ROW_NEEDS = (
    "a row needs `messages`, or `prompt` with `completion`, with `chosen` and `rejected` or "
    "with `completions` and `scores`, or with `answer` or `solution`, or `text`"
)
"""The columns of all kinds, for a row that has none of them."""

COLUMNS: tuple[str, ...] = tuple(
    dict.fromkeys(
        column
        for kind in FEEDBACK.values()
        for group in (*kind.marks, kind.needs, kind.reads)
        for column in group
    )
)
"""Every column that some kind reads, by our names."""

ASKED = tuple(name for name in KINDS if FEEDBACK[name].asked)
"""Problems: their responses are made while training."""

ANSWERED = tuple(name for name in KINDS if not FEEDBACK[name].asked)
"""The kinds that come with responses."""

GRADED = tuple(name for name in KINDS if FEEDBACK[name].scale == "graded")

THUMBS = tuple(name for name in KINDS if FEEDBACK[name].scale == "thumb")


def stated_kind(value: object) -> Kind:
    """The kind that a row or a stream names, checked; RowError for another word."""
    for kind in KINDS:
        if value == kind:
            return kind
    raise RowError(
        f"`kind` must be one of {', '.join(KINDS)}, found {shown(value)}: a column that says something "
        "else must be called otherwise"
    )
