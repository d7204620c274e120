"""What the engine `vllm` asks of a vLLM, wherever it runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

Weights = Callable[[], Iterator[tuple[str, Tensor]]]
Drawn = list[tuple[list[int], list[float]]]
"""Token ids and their log-probabilities, of each completion of a request."""
Save = Callable[[Path], None]
"""Writes an adapter into a folder that is not there yet."""


class Backend(Protocol):
    """Where vLLM runs."""

    adapter_room: int
    """The largest rank of an adapter that it can load beside its weights; 0: none."""

    def make_ready(self, *, whole: bool) -> str:
        """How weights will come, whole or as adapters: to be said. Raises `ValueError`."""

    def loaded_from(self, name: str) -> bool:
        """Whether its weights are those of this folder or hub id, and were not replaced since."""

    def push(self, weights: Weights) -> None:
        """Take over weights; all that was computed with the old ones is forgotten."""

    def load_adapter(self, save: Save) -> None:
        """Answer with this adapter from now on, and forget the one before."""

    def score(self, ids: list[int]) -> Tensor:
        """Log-probabilities (float32) of all tokens of a text but the first."""

    def generate(self, prompts: list[list[int]], how: list[dict[str, Any]]) -> list[Drawn]:
        """Completions of each prompt, by vLLM's sampling parameters of each."""

    def close(self) -> None: ...


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def all_together() -> None:
    """Wait until every process has come here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def shared(value: str) -> str:
    """The first process's value, in all."""
    found = [value]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(found)
    return found[0]


def imported(name: str) -> Any:
    """Raises `ValueError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"the rollout engine vllm needs packages that are not here ({error}): "
            "pip install 'onestage[vllm]'"
        ) from error
