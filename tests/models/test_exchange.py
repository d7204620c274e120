"""What ranks tell each other arrives on all of them, whatever each has to say, a block at a time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.ranks import on_ranks
from support.tiny import tiny_llama, token_path

from onestage.models import exchange
from onestage.models.exchange import ALONE, TYPES, Ranks
from onestage.models.policy import Policy
from onestage.models.reference import ReferenceCache, compute, path_key


def said(rank: int) -> list[np.ndarray]:
    """Of each rank other lengths, up to many blocks; rank 1 says nothing at all."""
    if rank == 1:
        return []
    return [np.arange(7 * rank + place, dtype=kind) for place, kind in enumerate(TYPES)]


def joined(first_of_node: bool = True) -> Ranks:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    return Ranks(rank, ranks, first_of_node=first_of_node)


def test_all_ranks_hear_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BLOCK", 5)  # bytes: no number fits whole

    def work() -> list[list[np.ndarray]]:
        ranks = joined()
        assert ranks.gather([]) == [[], [], []]
        return ranks.gather(said(ranks.rank))

    for heard in on_ranks(3, work, seconds=60):
        assert len(heard) == 3
        for rank, arrays in enumerate(heard):
            assert len(arrays) == len(said(rank))
            for found, want in zip(arrays, said(rank), strict=True):
                assert found.dtype == want.dtype
                np.testing.assert_array_equal(found, want)


def test_one_process_tells_itself() -> None:
    ((found,),) = ALONE.gather([np.arange(3)])
    assert found.tolist() == [0, 1, 2]


def paths():
    ids = [[0, 5, 6, 7, 8, 1], [0, 5, 6, 9, 1], [0, 4, 6, 1], [0, 9, 9, 8, 7, 1], [0, 2, 3, 1]]
    return [token_path(one, (2, len(one))) for one in ids]


def test_nodes_without_a_common_disk_end_with_the_same_reference(tmp_path: Path) -> None:
    """Two nodes of two ranks, each node with a folder of its own, which hold other paths before."""
    alone = Policy(tiny_llama())
    for node, known in ((0, [0]), (1, [1, 2])):
        cache = ReferenceCache(tmp_path / str(node), "w")
        cache.add(compute(alone, {path_key(paths()[n]): paths()[n] for n in known}, 64))

    def work() -> tuple[tuple[int, int], int, list[list[float]]]:
        node, first = divmod(int(os.environ["RANK"]), 2)
        ranks = joined(first_of_node=not first)
        cache = ReferenceCache(tmp_path / str(node), "w")
        told = cache.fill(Policy(tiny_llama()), paths(), 64, ranks)
        torch.distributed.barrier()
        cache.reload()
        again = cache.fill(Policy(tiny_llama()), paths(), 64, ranks)
        assert again == (5, 0)
        return told, len(list(cache.folder.iterdir())), [cache[p].tolist() for p in paths()]

    want = compute(alone, {path_key(path): path for path in paths()}, 64)
    for told, files, found in on_ranks(4, work, seconds=60):
        assert told == (3, 2)
        assert files == 2  # what was there, and what its first rank added: nothing is written twice
        for path, values in zip(paths(), found, strict=True):
            np.testing.assert_allclose(values, want[path_key(path)], atol=1e-6)
