"""Rows encoded by several processes: what one makes, whatever becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.dying import alive, linger, until
from support.tiny import make_tokenizer, write_rows

from onestage.data import shares, tokenize
from onestage.data.store import open_store
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.data.workers import AHEAD, in_order


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # so that later ones are done before earlier ones
    return number * number


def test_the_order_is_that_of_the_blocks_and_few_are_read_ahead() -> None:
    read: list[int] = []

    def blocks() -> Iterator[int]:
        for number in range(40):
            read.append(number)
            yield number

    found = in_order(square, blocks(), 3)
    assert [next(found) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(read) <= 5 + AHEAD * 3
    assert list(found) == [number * number for number in range(5, 40)]
    assert os.environ.get("TOKENIZERS_PARALLELISM") is None


def test_a_single_block_is_worked_on_here() -> None:
    assert list(in_order(lambda _: os.getpid(), [0], 4)) == [os.getpid()]
    there = set(in_order(lambda _: os.getpid(), range(8), 2))
    assert os.getpid() not in there


def test_a_store_is_the_same_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "BATCH", 4)
    rows: list[dict[str, object]] = [
        {"prompt": f"Q {number}?", "completion": " red moon" * (number % 7)} for number in range(41)
    ]
    rows[9], rows[30] = {"prompt": "no answer"}, {"prompt": "far", "completion": " sea" * 99}
    stream = Stream(str(write_rows(tmp_path / "rows.jsonl", rows)))
    one = Encoder(make_tokenizer(), 48)
    stores = [
        open_store(stream, encoder, tmp_path / name)[0]
        for name, encoder in {"one": one, "three": replace(one, processes=3)}.items()
    ]
    assert stores[0].table.refused > stores[0].table.overlong > 0
    assert stores[0].table == stores[1].table
    assert stores[0].folder.name == stores[1].folder.name
    for file in stores[0].folder.iterdir():
        assert file.read_bytes() == (stores[1].folder / file.name).read_bytes()


def test_shares_of_large_files_come_to_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut anywhere: of two files, with lines that hold nothing, rows that are refused, and feedback that
    is null, which the rows of all shares decide the meaning of."""
    monkeypatch.setattr(tokenize, "BATCH", 3)
    rows = [
        {"prompt": f"Q {number}?", "completion": " red moon" * (1 + number % 7), "label": None}
        for number in range(23)
    ]
    rows[4], rows[9] = {"prompt": "no answer"}, {"text": "the sea " * 60}  # type: ignore[dict-item]
    rows[17] |= {"label": True, "extra": 1}
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "a.jsonl", rows)
    text = write_rows(folder / "b.jsonl", rows[:6]).read_text().replace("\n", "\r\n\n")
    (folder / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + text.rstrip().encode())
    stream, one = Stream(str(folder)), Encoder(make_tokenizer(), 48)
    wanted = open_store(stream, one, tmp_path / "one")[0]
    monkeypatch.setattr(shares, "LARGE", 1)
    assert not shares.shares_of(stream, 1)
    for size, count in ((1, 29), (300, 9), (10_000, 2)):
        monkeypatch.setattr(shares, "SHARE", size)
        assert len(shares.shares_of(stream, 3)) == count
        found = open_store(stream, replace(one, processes=3), tmp_path / f"{size}")[0]
        assert found.table == wanted.table
        assert found.folder.name == wanted.folder.name
        assert {f.name for f in found.folder.iterdir()} == {f.name for f in wanted.folder.iterdir()}
        for file in wanted.folder.iterdir():
            assert file.read_bytes() == (found.folder / file.name).read_bytes(), file.name
    assert wanted.table.refused > 1
    assert wanted.table.unlabelled > 1
    assert {"a.jsonl:18", "a.jsonl:10#0"} <= {item.id for item in wanted}


def test_an_error_and_a_killed_process_are_told() -> None:
    def fails(number: int) -> int:
        raise ValueError(f"block {number} is odd")

    with pytest.raises(ValueError, match="block 0 is odd"):
        list(in_order(fails, range(4), 2))
    with pytest.raises(RuntimeError, match=r"was killed.*fewer \(train.dataset_num_proc"):
        list(in_order(lambda _: os.kill(os.getpid(), signal.SIGKILL), range(4), 2))


def test_processes_end_with_the_one_that_forked_them(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("fork").Process(
        target=lambda: list(in_order(lambda _: linger(tmp_path), range(4), 2))
    )
    parent.start()
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.join()
    until(lambda: not any(alive(int(file.name)) for file in tmp_path.iterdir()))
