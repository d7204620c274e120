"""Trees to rows and rows to ranks: nothing is lost, and every rank has as much to do."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from support.tiny import make_tokenizer, token_path

from onestage.data.deal import arrange, deal
from onestage.data.encoded import Encoded
from onestage.data.packing import EMPTY, pack, pack_records
from onestage.data.reading import read
from onestage.data.tokenize import Encoder

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def test_the_longest_go_first_and_to_whom_has_least() -> None:
    """By hand: 9 | 7 | 6 6 > 9 4 | 7 5 | 6 6 of three ranks; rows of at most 10."""
    rows = arrange([6, 4, 9, 5, 7, 6], 10, ranks=3)
    assert rows == [[2], [4], [0], [1], [3], [5]]
    assert deal(rows, 0, 3) == [[2], [1]]
    assert deal(rows, 2, 3) == [[0], [5]]


def test_one_rank_has_rows_that_are_filled_first_fit() -> None:
    assert arrange([6, 4, 9, 5, 7, 6], 10) == [[2], [4], [0, 1], [5], [3]]
    assert arrange([], 10) == []
    assert arrange([30, 2], 10) == [[0], [1]]


def test_a_rank_without_a_row_in_a_pass_has_an_empty_one() -> None:
    rows = arrange([10, 10, 10], 10, ranks=2)
    assert rows == [[0], [1], [2], []]
    packed = pack([[token_path([n, 7, 8, 9], (1, 4))] for n in range(3)], 4, ranks=2)
    assert [row.records for row in packed] == [(0,), (1,), (2,), ()]
    assert packed[3] is EMPTY
    with pytest.raises(ValueError, match="3 rows cannot be dealt to 2 ranks"):
        deal(packed[:3], 0, 2)


@given(
    sizes=some.lists(some.integers(1, 60), max_size=40),
    budget=some.integers(1, 80),
    ranks=some.integers(1, 9),
)
def test_nothing_is_lost_and_rows_hold(sizes: list[int], budget: int, ranks: int) -> None:
    rows = arrange(sizes, budget, ranks)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert all(len(row) < 2 or sum(sizes[n] for n in row) <= budget for row in rows)
    assert ranks > 1 or all(rows)
    hands = [deal(rows, rank, ranks) for rank in range(ranks)]
    work = [sum(sizes[n] for row in hand for n in row) for hand in hands]
    # Graham, 1969: longest first is at most 4/3 - 1/(3m) of what the best deal could do, which is at
    # least the mean, the longest, and two of the m + 1 longest.
    best = (
        max(sum(sizes) / ranks, *sizes, sum(sorted(sizes)[-ranks - 1 : -ranks + 1 or None]))
        if (len(sizes) > ranks)
        else max(sizes, default=0)
    )
    assert max(work) <= (4 / 3) * best + 1e-9 or len(sizes) <= ranks


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["hh_harmless_pairs", "gpteacher_roleplay"])
@pytest.mark.parametrize("budget", [1024, 8192])
def test_eight_ranks_work_most_of_the_time(name: str, budget: int) -> None:
    """Useful work: what one process would run, over ranks times the busiest rank (and, at every pass,
    times the longest row). Real lengths; steps of 32 records."""
    encoder = Encoder(make_tokenizer(), 4096)
    encoded = encoder.encode_all(read(DATA / f"{name}.train.jsonl.gz", name=name))
    records = list(islice((one for one in encoded if isinstance(one, Encoded)), 160))
    once, every = [], []
    for at in range(0, len(records), 32):
        step = records[at : at + 32]
        alone = pack_records(step, budget).nodes
        rows = pack_records(step, budget, ranks=8).rows
        mine = [[len(row) for row in deal(rows, rank, 8)] for rank in range(8)]
        once.append(alone / (8 * max(map(sum, mine))))
        every.append(alone / (8 * sum(map(max, zip(*mine, strict=True)))))
    assert sum(once) / len(once) >= 0.85
    assert sum(every) / len(every) >= 0.7
