"""Torch is seeded as by torch, and more cheaply where there is no device."""

from __future__ import annotations

import pytest
import torch

from onestage import randomness


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1, -3])
@pytest.mark.parametrize("has_device", [False, True])
def test_it_seeds_as_torch_does(
    seed: int, has_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(randomness, "_has_device", lambda: has_device)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        want, named = torch.rand(3), torch.initial_seed()
        randomness.seed_torch(seed)
        assert torch.equal(torch.rand(3), want)
        assert torch.initial_seed() == named


def test_no_stack_is_kept_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the call stack was formatted")

    monkeypatch.setattr(randomness, "_has_device", lambda: False)
    monkeypatch.setattr("traceback.format_stack", refuse)
    randomness.seed_torch(1)
