"""Answered problems as arrays: what is sent comes back, to the last bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.encoded import Encoded, Sampled
from onestage.data.trees import TokenPath
from onestage.rollout.outcome import Outcome
from onestage.rollout.parcel import SIZE, packed, unpacked

NUMBERS = st.floats(width=64)
TEXTS = st.text(st.characters(), max_size=6)  # halves of characters, too


@st.composite
def paths(draw: Any) -> TokenPath:
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=12))
    cuts = sorted(draw(st.sets(st.integers(1, len(ids)), max_size=6)))
    spans = tuple(zip(cuts[::2], cuts[1::2], strict=False))
    responses = tuple(sorted(draw(st.integers(0, 9)) for _ in spans))
    return TokenPath(np.asarray(ids, np.int32), spans, responses)


@st.composite
def answers(draw: Any) -> tuple[Encoded, Encoded, Outcome]:
    """A problem, its answers, and what was said of them."""
    asked = TokenPath(np.asarray([3, 4], np.int32), (), ())
    problem = Encoded("check", (asked,), (), draw(NUMBERS), "s", draw(TEXTS), about="{}")
    size = draw(st.integers(1, 4))
    some = {"min_size": size, "max_size": size}
    rewards = tuple(draw(st.lists(NUMBERS, **some)))
    answered = Encoded(
        "check",
        tuple(draw(st.lists(paths(), min_size=1, max_size=4))),
        tuple(draw(st.lists(NUMBERS, max_size=5))),
        problem.weight,
        "s",
        problem.id,
        sampled=Sampled(tuple(draw(st.lists(st.integers(0, 2), max_size=5)))),
    )
    outcome = Outcome(
        source="s",
        rewards=rewards,
        parts={draw(TEXTS): rewards},
        lengths=tuple(range(size)),
        ended=tuple(draw(st.lists(st.booleans(), **some))),
        empty=draw(st.integers(0, 9)),
        failures=draw(st.dictionaries(TEXTS, st.integers(0, 9), max_size=2)),
        trouble=draw(TEXTS),
        hint=draw(st.integers(0, 9)),
        size=size,
        success=draw(NUMBERS),
        example={"prompt": draw(TEXTS), "completions": [draw(TEXTS)], "rewards": list(rewards)},
    )
    return problem, answered, outcome


@settings(max_examples=60, deadline=None)
@given(st.lists(answers(), max_size=3))
def test_what_is_sent_comes_back(given_: list[tuple[Encoded, Encoded, Outcome]]) -> None:
    arrays = [a for n, (_, answered, said) in enumerate(given_) for a in packed(n, answered, said)]
    assert len(arrays) == SIZE * len(given_)
    assert all(array.ndim == 1 for array in arrays)
    found = list(unpacked(arrays, [problem for problem, _, _ in given_]))
    assert [number for number, _, _ in found] == list(range(len(given_)))
    for (_, record, outcome), (_, answered, said) in zip(found, given_, strict=True):
        # `repr`: not a number is itself there, and 0 is not -0.
        assert repr(record) == repr(answered)
        assert [path.ids.dtype for path in record.paths] == [np.int32] * len(answered.paths)
        assert repr(outcome) == repr(said)


def test_what_libraries_count_with_is_told_as_numbers() -> None:
    path = TokenPath(np.asarray([3, 4], np.int32), ((1, 2),), (0,))
    problem = Encoded("check", (path,), (math.nan,), 1.0, "s", "1", sampled=Sampled((0,)))
    said = Outcome(
        *("s", (np.float32(0.1),), {"exact": (np.float64(0.3),)}, (1,), (np.bool_(True),)),
        *(0, {}, "", 0, 0, np.float64(1.0), {}),
    )
    ((_, _, found),) = unpacked(packed(0, problem, said), [problem])
    assert found == said
