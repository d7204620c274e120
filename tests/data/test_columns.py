"""Columns of a store that are written in pieces and mapped: the same numbers, in bounded memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import token_path

from onestage.data import columns, store
from onestage.data.columns import Starts, column, pieces
from onestage.data.encoded import Encoded
from onestage.data.mixture import order
from onestage.data.store import Store, write
from onestage.randomness import generator


def record(number: int) -> Encoded:
    """Of changing kinds, with one or two paths of changing length, in one or two spans."""
    kind = "pair" if number % 3 == 1 else "label" if number % 3 else "demonstration"
    scores = {"label": (float(number % 2),), "pair": (0.25, 0.75)}.get(kind, (float("nan"),))
    paths = tuple(
        token_path([0, *range(5, 9 + (number + n) % 4)], (2, 4), responses=(n,))
        for n in range(len(scores))
    )
    name = f"rows.jsonl:{number}"
    return Encoded(kind, paths, scores, 1.0, "s", name, about="x" * (number % 2))  # type: ignore[arg-type]


def seen(opened: Store) -> list[Any]:
    return [
        opened.counts(),
        opened.numbers(["pair", "demonstration"]).tolist(),
        opened.lengths().tolist(),
        [part.tolist() for part in [np.concatenate(list(opened.scores("pair")))]],
        [opened[number].paths[-1].ids.tolist() for number in range(len(opened))],
        [(opened[n].id, opened[n].scores, opened[n].about) for n in range(0, len(opened), 3)],
        [opened[number].paths[-1].spans for number in range(len(opened))],
    ]


def test_pieces_and_mappings_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [record(number) for number in range(150)]
    whole = write(items, "s", tmp_path / "whole")
    known = seen(whole)
    monkeypatch.setattr(store, "HELD", 7)
    monkeypatch.setattr(columns, "PIECE", 11)
    monkeypatch.setattr(columns, "STRIDE", 4)
    cut = write(items, "s", tmp_path / "cut")
    for file in whole.folder.iterdir():
        assert file.read_bytes() == (cut.folder / file.name).read_bytes()
    monkeypatch.setattr(store, "column", lambda *given, mapped=1: column(*given, mapped=mapped))
    wanted = [[path.ids.tolist() for path in item.paths][-1] for item in items]
    assert str(seen(Store(cut.folder))) == str(known)
    assert known[4] == wanted
    assert known[2] == [sum(len(path.ids) for path in item.paths) for item in items]


def test_starts_are_the_sums_of_what_is_before(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.array([3, 0, 2, 5, 1, 0, 4])
    for stride in (1, 2, 3, 64):
        monkeypatch.setattr(columns, "STRIDE", stride)
        starts = Starts(counts)
        found = [starts[number] for number in range(7)]
        assert [(one.start, one.stop) for one in found] == [
            *((0, 3), (3, 3), (3, 5), (5, 10), (10, 11), (11, 11), (11, 15))
        ]
        assert starts.before(7) == 15
    assert Starts(counts[:0]).before(0) == 0
    assert list(pieces(0)) == []


def test_a_store_is_written_and_opened_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files have some 130 bytes of a record beside its text, of which memory held a hundred."""
    monkeypatch.setattr(store, "HELD", 32)
    monkeypatch.setattr(store, "column", lambda *given, mapped=1: column(*given, mapped=mapped))
    held: list[int] = []

    def items() -> Iterator[Encoded]:
        for number in range(3001):
            if number in (1000, 3000):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
            yield record(number)

    tracemalloc.start()
    try:
        folder = write(items(), "s", tmp_path / "store").folder
        assert (held[1] - held[0]) / 2000 < 4
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        opened = Store(folder)
        assert opened[2000].id == "rows.jsonl:2000"
        assert (tracemalloc.get_traced_memory()[0] - before) / 3001 < 20  # of which few grow
    finally:
        tracemalloc.stop()


def test_columns_are_read_where_too_many_files_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.arange(5.0).tofile(tmp_path / "x.bin")
    assert isinstance(column(tmp_path / "x.bin", "d", mapped=1).base, np.memmap)
    monkeypatch.setattr(columns.resource, "getrlimit", lambda what: (4, 4))
    assert column(tmp_path / "x.bin", "d", mapped=1).base is None
    assert isinstance(column(tmp_path / "x.bin", "d", mapped=0).base, np.memmap)


@pytest.mark.parametrize("size", [0, 1, 2, 50, 1025])
def test_orders_are_those_of_numpys_own_permutation_in_half_the_memory(size: int) -> None:
    found = order(7, "chat", 2, size)
    assert found.tolist() == generator("7/chat/2").permutation(size).tolist()
    assert found.dtype == np.uint32
