"""Whole weights on their way to a vLLM server.

`Files`: into a folder that the server reads too, one file after the other as they fill up, and the
server is told to load it. This needs nothing but the folder. `Native`: vLLM's own update in four phases,
from GPU to GPU (NCCL) or within one (CUDA IPC), where the server was started with
`--weight-transfer-config`; NOT RUN so far, for want of a GPU with a vLLM.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from onestage.rollout.engines._vllm_backend import Weights, imported
from onestage.rollout.engines._vllm_link import Link
from onestage.runfolder.disk import writing

SHARD = 1 << 30
"""Bytes of weights that are held until they are written."""
NATIVE = ("nccl", "ipc")
"""Backends of vLLM's update that take whole weights from one process."""


class Transfer(Protocol):
    manner: str

    def send(self, weights: Weights) -> None:
        """Raises `ServerError` where the server does not take them."""

    def close(self) -> None: ...


class Files:
    """Through safetensors files. `method`: of vLLM's workers, which loads a folder."""

    def __init__(self, link: Link, folder: Path, method: str) -> None:
        self.link, self.folder, self.method = link, folder / "weights", method
        self.manner = f"through files in {folder}"

    def send(self, weights: Weights) -> None:
        self.folder.mkdir()
        try:
            with writing(self.folder):
                for number, shard in enumerate(shards(weights())):
                    save_file(shard, self.folder / f"model-{number:05}.safetensors")
            told = {"method": self.method, "kwargs": {"weights_path": str(self.folder)}}
            self.link.post("/collective_rpc", told)
        finally:
            shutil.rmtree(self.folder)

    def close(self) -> None:
        pass


class Native:
    """By vLLM's own trainer side of the update."""

    def __init__(self, link: Link, backend: str, world_size: int, port: int) -> None:
        self.manner = f"by vLLM's weight transfer ({backend})"
        self.source: Any = None
        transfer = imported("vllm.distributed.weight_transfer.factory")
        engine = imported(f"vllm.distributed.weight_transfer.{backend}_engine")
        clients = imported("vllm.distributed.weight_transfer.clients")
        if backend == "nccl":
            address = imported("vllm.utils.network_utils").get_ip()
            given = engine.NCCLTrainerInitInfo(
                rank=0, master_address=address, master_port=port, world_size=world_size + 1
            )
        else:
            given = engine.IPCTrainerInitInfo(rank=0)
        self.source = _source()
        self.engine = transfer.WeightTransferTrainerFactory.trainer_init(
            given, client=clients.HTTPVLLMWeightSyncClient(link.base_url), source=self.source
        )

    def send(self, weights: Weights) -> None:
        self.source.weights = weights
        self.engine.send_weights()

    def close(self) -> None:
        self.engine.shutdown()


def shards(pairs: Iterator[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Weights on the CPU, as many at a time as make `SHARD` bytes."""
    held: dict[str, Tensor] = {}
    size = 0
    for name, weight in pairs:
        held[name] = weight.detach().cpu().contiguous()
        size += weight.numel() * weight.element_size()
        if size >= SHARD:
            yield held
            held, size = {}, 0
    if held:
        yield held


def _source() -> Any:
    """Weights as vLLM's update asks for them: what will come, and what comes."""
    base = imported("vllm.distributed.weight_transfer.base")
    parent: Any = base.WeightSource

    class Source(parent):
        weights: Weights
        known: list[Any] | None = None

        def metadata(self) -> list[Any]:
            # Names and shapes do not change in a run, and to list them merges all adapters once.
            if self.known is None:
                self.known = [base.ParamMeta(n, w.dtype, tuple(w.shape)) for n, w in self.weights()]
            return self.known

        def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
            return self.weights()

    return Source()
