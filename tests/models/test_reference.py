"""The reference cache: computed once, found again, refused where it does not belong (law 7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import tiny_llama, token_path

from onestage.models.fingerprint import digest
from onestage.models.policy import Policy
from onestage.models.reference import ReferenceCache, ReferenceMismatchError, compute, path_key


def paths():
    first = token_path([0, 5, 6, 7, 8, 1], (2, 4), (5, 6))
    return [first, token_path([0, 5, 6, 9, 1], (3, 5)), token_path([0, 5, 6, 9, 1], (2, 5))]


def filled(folder: Path) -> ReferenceCache:
    cache = ReferenceCache(folder, "weights-a")
    _, missing = cache.split(paths())
    cache.add(compute(Policy(tiny_llama()), missing, 64))
    cache.reload()
    return cache


def test_what_is_stored_is_what_the_model_gives(tmp_path: Path) -> None:
    cache, model = filled(tmp_path), tiny_llama()
    assert len(cache) == 3
    for path in paths():
        ids = torch.from_numpy(path.ids.astype(np.int64))
        logp = torch.log_softmax(model(ids[None]).logits[0], -1).detach()
        want = [float(logp[i - 1, ids[i]]) for a, b in path.spans for i in range(a, b)]
        np.testing.assert_allclose(cache[path], want, atol=1e-5)


def test_a_second_run_finds_everything(tmp_path: Path) -> None:
    filled(tmp_path)
    again = ReferenceCache(tmp_path, "weights-a")
    assert again.split(paths()) == (3, {})
    known, missing = ReferenceCache(tmp_path, "weights-b").split(paths())
    assert (known, missing.keys()) == (0, {path_key(path) for path in paths()})


def test_files_of_several_processes_add_up(tmp_path: Path) -> None:
    policy, cache = Policy(tiny_llama()), ReferenceCache(tmp_path, "w")
    for part in (paths()[:1], paths()[1:]):
        ReferenceCache(tmp_path, "w").add(compute(policy, cache.split(part)[1], 64))
    cache.reload()
    assert cache.split(paths()) == (3, {})


def test_a_cache_of_another_model_is_refused(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    other = tmp_path / "weights-b"
    other.mkdir()
    (stored,) = cache.folder.glob("*.safetensors")
    (other / stored.name).write_bytes(stored.read_bytes())
    with pytest.raises(ReferenceMismatchError, match=r"weights-a.*this run starts from weights-b"):
        ReferenceCache(tmp_path, "weights-b")


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    (stored,) = filled(tmp_path).folder.glob("*.safetensors")
    stored.write_bytes(stored.read_bytes()[:-10])
    with pytest.raises(ReferenceMismatchError, match="damaged"):
        ReferenceCache(tmp_path, "weights-a")


def test_nothing_is_left_behind_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = filled(tmp_path)
    before = sorted(cache.folder.iterdir())

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onestage.models.reference.save_file", full)
    with pytest.raises(OSError, match="No space"):
        cache.add({1: np.zeros(2, np.float32)})
    assert sorted(cache.folder.iterdir()) == before


def test_the_digest_sees_every_weight() -> None:
    model = tiny_llama()
    before = digest(model)
    assert digest(tiny_llama()) == before
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-6
    assert digest(model) != before
    assert digest(tiny_llama().to(torch.bfloat16)) != before
