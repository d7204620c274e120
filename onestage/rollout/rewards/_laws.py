"""What every reward must keep, tried out on one: ours and other people's.

A run takes these laws for granted. What is judged was written by a model under training, so among the
answers are empty, broken and very long ones: a reward may call them anything, but it must call them
something, each time the same, and leave them as they are.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import islice
from typing import Any

from onestage.rollout.rewards import Answer, Failure, Reward
from onestage.rollout.rewards import _pool as pool
from onestage.rollout.rewards._checker import Checker

TEXTS = (
    "The answer is 4.",
    "so </think>\n<answer> 1 + 2 </answer>",
    "It is \\boxed{4}, that is\n#### 4",
    "",
    " \n\t",
    "<answer>" * 3 + "</answer",
    "}{)(\\frac{1}{",
    "Σχ ✓ \x00 \U0001f600",
    "word " * 5000,
    "9" * 5000,
)
"""What models write."""

OWN_ROWS = 3


def laws(reward: Reward, facts: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """The laws that a reward breaks, in words; none where all hold.

    facts: the columns of some records that it can judge answers to; default: those of the problems that
    it makes itself (`rows`), else none. Some dozens of answers are judged, several times: a reward that
    costs money should be tried on a stand-in.
    """
    try:
        rows = _own_rows(reward)
        some = list(facts) or [_facts(row) for row in rows] or [{}]
        broken = list(_checks(reward, some))
        broken = broken or list(_set_up(reward)) or list(_judges(reward, some))
        broken += [] if broken else _solves(reward, rows)
    except Exception as error:  # whatever a stranger's code raises
        return [f"a reward raises nothing for what an answer holds ({_told(error)})"]
    return broken


def _own_rows(reward: Reward) -> list[dict[str, Any]]:
    """A few of the problems that a checker makes up."""
    rows = getattr(type(reward), "rows", None)
    if rows is None or "data" in (asked := inspect.signature(rows).parameters):
        return []
    given = {name: value for name, value in (("count", OWN_ROWS), ("seed", 0)) if name in asked}
    return list(islice(rows(**given), OWN_ROWS))


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("prompt", "solution", "completion")}


def _checks(reward: Reward, facts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for some in facts:
        try:
            reward.check(some)
        except ValueError as error:
            yield (
                f"`check` accepts the columns of records that can be judged; it refused {dict(some)!r} "
                f"({error}); give `facts` that are right"
            )
        except Exception as error:
            yield f"`check` raises ValueError and nothing else, for {dict(some)!r} ({_told(error)})"
    try:
        reward.check({})
    except ValueError:
        pass  # it needs columns and says so
    except Exception as error:
        yield f"`check` raises ValueError for a record without its columns ({_told(error)})"


def _set_up(reward: Reward) -> Iterator[str]:
    if not isinstance(reward, Checker):
        return
    try:
        pool.shared().set_up(reward)
    except ValueError as error:
        yield f"a checker can be sent to a process of its own and set up there ({error})"


def _judges(reward: Reward, facts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    answers = [
        Answer("What is 2 + 2?", text, dict(some), ended=bool(text), tokens=len(text.split()) + 1)
        for some in [*facts, *_none_needed(reward)]
        for text in TEXTS
    ]
    before = deepcopy(answers)
    found, again = reward(answers), reward(deepcopy(answers))
    if answers != before:
        yield "answers are left as they are"
    if not isinstance(found, list) or len(found) != len(answers):
        size = len(found) if isinstance(found, Sequence) else "no"
        yield f"there is a list with a reward for each answer ({size} for {len(answers)})"
        return
    if found != again:
        yield "the same answers get the same rewards"
    if reward([]) != []:
        yield f"no answers get no rewards, an empty list (got {reward([])!r})"
    for answer, one in zip(answers, found, strict=True):
        yield from _one(reward, answer, one)


def _none_needed(reward: Reward) -> list[Mapping[str, Any]]:
    """A record without columns, where `check` has nothing against it."""
    try:
        reward.check({})
    except ValueError:
        return []
    return [{}]


def _one(reward: Reward, answer: Answer, found: Any) -> Iterator[str]:
    text = f"{answer.completion[:30]!r} (columns {', '.join(answer.facts) or 'none'})"
    if isinstance(found, Failure):
        if isinstance(reward, Checker):
            yield f"`judge` finds a reward in time; for {text}: {found.sort}: {found.reason}"
    elif isinstance(found, bool) or not isinstance(found, float | int):
        yield f"a reward is a float or a Failure; for {text} it is the {type(found).__name__} {found!r}"
    elif not math.isfinite(found):
        yield f"a reward is finite, or a Failure; for {text} it is {found}"


def _solves(reward: Reward, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A checker's own worked answers are better than none."""
    for row in rows:
        if "completion" not in row:
            continue
        facts = _facts(row)
        worked, empty = reward(
            [Answer(row["prompt"], text, facts) for text in (row["completion"], "")]
        )
        if isinstance(worked, Failure) or (not isinstance(empty, Failure) and worked <= empty):
            yield (
                "the worked answers of its own `rows` earn more than an empty one; this did not: "
                f"{row['completion'][-100:]!r} ({worked} and {empty})"
            )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
