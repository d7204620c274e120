"""What all problems share: the prompt around a question, the answer behind a solution, the split.

A row has `prompt`, `solution` (sentences that joined give the worked solution), `answer`, `completion`
(the solution and the answer in its tag) and the columns that the checker reads. A checker makes such
rows in its classmethod `rows`, and `onestage problems` makes a command of the signature: a parameter
is an option, and the text in its `Annotated` is the option's help.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from onestage.data.sentences import sentences

Row = dict[str, Any]
Count = Annotated[int, "How many problems."]
Seed = Annotated[int, "Of the draws; the same seed gives the same file."]
Split = Annotated[
    Literal["train", "test", "all"], "train or test, which never share a problem, or all."
]
Template = Annotated[
    Literal["tinyzero", "short"], "The prompt: tinyzero, or short for tiny models."
]
TEST_SHARE = 10
"""One problem in so many is for testing."""
PATIENCE = 20_000
"""Draws without a new problem before there are held to be no more."""
TINYZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it."
    " The assistant first thinks about the reasoning process in the mind and then provides the user"
    " with the answer.\nUser: {question} Show your work in <think> </think> tags. And return the final"
    " answer in <answer> </answer> tags, for example <answer> {example} </answer>.\n"
    "Assistant: Let me solve this step by step.\n<think> "
)
"""Of TinyZero, as Liu et al. use it (arXiv 2505.16984): plain text for base models."""


def make_row(
    template: Template,
    question: str,
    short: str,
    example: str,
    solution: Sequence[str],
    answer: str,
    **facts: Any,
) -> Row:
    """`short`: the prompt of the short template, which opens no <think>."""
    if template == "tinyzero":
        prompt = TINYZERO.format(question=question, example=example)
        tail = f" </think>\n<answer> {answer} </answer>"
    elif template == "short":
        prompt, tail = short, f"\n<answer> {answer} </answer>"
    else:
        raise ValueError(f"template {template!r}: allowed are tinyzero and short")
    return {
        "prompt": prompt,
        "solution": list(solution),
        "completion": "".join(solution) + tail,
        "answer": answer,
        **facts,
    }


def worked_row(template: Template, question: str, solution: str, answer: str) -> Row:
    """The row of a question with a worked solution in prose, which is cut into sentences."""
    question = question.strip()
    return make_row(template, question, f"{question}\n", "12", sentences(solution.strip()), answer)


def texts(what: str, row: Mapping[str, Any], *columns: str) -> list[str]:
    """Two columns of a row that must be texts; `what` names the row where they are not."""
    for column in columns:
        if not isinstance(row.get(column), str):
            raise ValueError(
                f"{what}: needs `{columns[0]}` and `{columns[1]}`, two texts;"
                f" got {', '.join(map(repr, row)) or 'no column'}"
            )
    return [row[column] for column in columns]


def split_of(problem: str) -> Literal["train", "test"]:
    """Where a problem belongs, by its content alone: `problem` is the same text for the same problem."""
    digest = hashlib.sha256(problem.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


def different(
    count: int, split: Split, drawn: Iterable[tuple[str, Callable[[], Row]] | None]
) -> Iterator[Row]:
    """`count` rows of a split, no problem twice. `drawn`: pairs of a problem's content and what makes
    its row, without end; None for a draw that gave none."""
    if split not in ("train", "test", "all"):
        raise ValueError(f"split {split!r}: allowed are train, test and all")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    seen: set[str] = set()
    in_vain, source = 0, iter(drawn)
    while len(seen) < count:
        found = next(source)
        # By content, so that a problem that is only written differently is not in two splits.
        new = found is not None and found[0] not in seen
        if found is None or not new or split not in ("all", split_of(found[0])):
            in_vain += 1
            if in_vain == PATIENCE:
                raise ValueError(
                    f"only {len(seen)} of {count} different problems found for these options; "
                    "allow larger numbers, more people, or ask for fewer"
                )
            continue
        in_vain = 0
        seen.add(found[0])
        yield found[1]()
