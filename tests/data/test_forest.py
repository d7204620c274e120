"""Trees and packing against the definition: ancestors, shared prefixes, budgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import token_path

from onestage.data.packing import WORTH_SHARING, pack
from onestage.data.trees import TokenPath, plant

ids = st.lists(st.integers(0, 3), min_size=2, max_size=12)
paths = st.lists(ids, min_size=1, max_size=6).map(
    lambda many: [
        token_path(one, (1, len(one)), responses=(number,)) for number, one in enumerate(many)
    ]
)
records = st.lists(st.lists(ids, min_size=1, max_size=3), min_size=1, max_size=6)


def ancestors(parent_T: np.ndarray, node: int) -> set[int]:
    found = set()
    while node >= 0:
        found.add(node)
        node = int(parent_T[node])
    return found


@given(paths)
def test_the_exit_rule_is_ancestry(given_paths: list[TokenPath]) -> None:
    tree = plant(given_paths)
    for i in range(len(tree)):
        allowed = {j for j in range(len(tree)) if j <= i < tree.exit_T[j]}
        assert allowed == ancestors(tree.parent_T, i)
        assert tree.position_T[i] == len(allowed) - 1


@given(paths)
def test_every_path_stands_in_the_tree_once(given_paths: list[TokenPath]) -> None:
    tree = plant(given_paths)
    prefixes = {tuple(p.ids[:n]) for p in given_paths for n in range(1, len(p.ids) + 1)}
    assert len(tree) == len(prefixes)
    for number, path in enumerate(given_paths):
        nodes = tree.node_K[tree.response_K == number]
        assert tree.token_T[nodes].tolist() == path.ids[1:].tolist()
        assert tree.parent_T[nodes[1:]].tolist() == nodes[:-1].tolist()


@given(records, st.integers(12, 60))
@settings(max_examples=60)
def test_packing_keeps_every_response_and_the_budget(
    many: list[list[list[int]]], budget: int
) -> None:
    given_records, number = [], 0
    for record in many:
        row = []
        for one in record:
            row.append(token_path(one, (1, len(one)), responses=(number,)))
            number += 1
        given_records.append(row)
    rows = pack(given_records, budget)
    seen = sorted(record for row in rows for record in row.records)
    assert seen == list(range(len(given_records)))
    for row in rows:
        assert len(row) <= budget or len(row.records) == 1
        assert (np.diff(row.tree.response_K) >= 0).all()
        entries = [tuple(path.ids[1:]) for path in row.paths]
        cuts = np.flatnonzero(np.diff(row.tree.response_K)) + 1
        stored = [tuple(part) for part in np.split(row.tree.token_T[row.tree.node_K], cuts)]
        assert stored == entries
        for i in range(len(row)):
            allowed = {j for j in range(len(row)) if j <= i < row.tree.exit_T[j]}
            assert allowed == ancestors(row.tree.parent_T, i)


def test_hand_made_tree() -> None:
    """Two answers to one prompt that share their first token.

    0 a - 1 b - 2 c - 3 d - 4 e
                    - 5 f
    """
    tree = plant(
        [token_path([1, 2, 3, 9], (2, 4)), token_path([1, 2, 3, 7, 8], (2, 5), responses=(1,))]
    )
    assert tree.token_T.tolist() == [1, 2, 3, 7, 8, 9]
    assert tree.position_T.tolist() == [0, 1, 2, 3, 4, 3]
    assert tree.parent_T.tolist() == [-1, 0, 1, 2, 3, 2]
    assert tree.exit_T.tolist() == [6, 6, 6, 5, 5, 6]
    assert tree.node_K.tolist() == [2, 5, 2, 3, 4]
    assert tree.response_K.tolist() == [0, 0, 1, 1, 1]


def test_records_with_a_long_common_prompt_share_it() -> None:
    prompt = list(range(WORTH_SHARING))
    many = [
        [token_path([*prompt, 50 + n], (WORTH_SHARING, WORTH_SHARING + 1), responses=(n,))]
        for n in range(4)
    ]
    (row,) = pack(many, 100)
    assert len(row) == WORTH_SHARING + 4
    (apart,) = pack(many, 100, share=False)
    assert len(apart) == 4 * (WORTH_SHARING + 1)
    assert len(pack(many, WORTH_SHARING + 2)) == 2  # two answers fit beside one prompt


def test_a_chain_is_known() -> None:
    (row,) = pack(
        [[token_path([1, 2, 3], (1, 3))], [token_path([4, 5], (1, 2)), token_path([4, 6], (1, 2))]],
        100,
    )
    assert sorted(chain for *_, chain in row.parts) == [False, True]


@pytest.mark.parametrize("span", [(0, 2), (2, 2), (1, 9)])
def test_a_bad_span_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="scored span"):
        token_path([1, 2, 3], span)
