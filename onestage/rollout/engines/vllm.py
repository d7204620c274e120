"""Sampling by vLLM, which runs a copy of the policy: in a server of its own, or in this process.

Before each sampling the policy's weights are handed over if they have changed since the last time, with
adapters merged in; or the adapter alone, where vLLM can load it (`lora`). Run with vLLM 0.32 on the CPU
(tests/field/test_real_vllm.py); NOT RUN ON A GPU so far.

A request's seed comes from its key, and vLLM counts on from it for the completions of one prompt. So
completions are a function of the key as far as vLLM's arithmetic does not depend on the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from onestage.models.export import adapter_rank, base_weights, merged_weights, save_adapter
from onestage.models.fingerprint import bit_sums
from onestage.models.loading import LoadError
from onestage.rollout.engines import Completion, Decoding, Engine, Request
from onestage.rollout.engines._vllm_backend import Backend
from onestage.rollout.engines._vllm_colocated import Colocated
from onestage.rollout.engines._vllm_link import PLAIN, RefusedError
from onestage.rollout.engines._vllm_probe import base_gap, probe_ids, try_adapter
from onestage.rollout.engines._vllm_server import Server
from onestage.rollout.engines.transformers import end_ids
from onestage.runfolder.secrets import secrets

OF_MODE = {
    "server": ("base_url", "group_port", "timeout", "handover"),
    "colocate": ("gpu_memory_utilization", "max_model_len", "dtype"),
}
"""Options of one mode alone."""


@dataclass
class Vllm(Engine):
    model: Any
    tokenizer: Any
    mode: Literal["server", "colocate"] = "server"
    base_url: str = "http://localhost:8000"
    """Of the server."""
    group_port: int = 51216
    """Through which the server is sent weights (NCCL)."""
    timeout: float | None = None
    """Seconds to wait for the server to be up, also where nobody listens yet. Default: one that listens
    and is not up is waited for (240 s), and where nobody listens that is said at once."""
    handover: str | None = None
    """A folder that the server reads too, for weights and adapters on their way to it; default: one for
    temporary files, where the server is on this machine."""
    lora: Literal["auto", "hot", "merged"] = "auto"
    """Adapters: loaded as they are under a new name each time (hot), or merged into what is handed over.
    auto: hot where the server was started for it and the adapter allows it; in `colocate` merged."""
    gpu_memory_utilization: float = 0.3
    """Of `colocate`: part of the GPU's memory that vLLM takes for weights and cache."""
    max_model_len: int | None = None
    """Of `colocate`: longest prompt with its completion; default: what the model can."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of `colocate`: what vLLM computes in; auto: as the model's folder says."""
    tolerance: float = 0.1
    """Mean distance (nats a token) of log-probabilities from the policy's own that is rounding."""
    on_gap: Literal["stop", "warn"] = "stop"

    def __post_init__(self) -> None:
        for found in secrets({"base_url": self.base_url}):
            raise ValueError(found)
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {self.base_url!r}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization must be in (0, 1], got {self.gpu_memory_utilization}"
            )
        if self.tolerance <= 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")
        plain = {option.name: option.default for option in fields(self)}
        for name in OF_MODE["colocate" if self.mode == "server" else "server"]:
            if getattr(self, name) != plain[name]:
                raise ValueError(f"{name}: changes nothing with mode: {self.mode}; take it out")
        self.ends = end_ids(self.model, self.tokenizer)
        self.pushed: tuple[int, ...] | None = None
        self.backend = self._backend()
        try:
            self.hot = self._loads_adapters()
            manner = self.backend.make_ready(whole=not self.hot)
        except BaseException:
            self.backend.close()
            raise
        self.remarks = [*self.remarks, f"sampling by {manner}"]

    def sync(self) -> None:
        now = bit_sums(self.model)
        if now == self.pushed:
            return
        if self.hot:
            self._load_adapter()
        else:
            self.backend.push(lambda: merged_weights(self.model))
        self.pushed = now

    def __call__(self, requests: Sequence[Request], how: Decoding) -> list[list[Completion]]:
        greedy = how.temperature == 0  # vLLM refuses several of what can only be the same
        prompts = [request.ids.tolist() for request in requests]
        found = self.backend.generate(prompts, [self._parameters(r, how) for r in requests])
        return [
            [
                Completion(np.asarray(ids, np.int32), ids[-1] in self.ends, np.asarray(logp, "f4"))
                for ids, logp in (drawn * request.count if greedy else drawn)
            ]
            for request, drawn in zip(requests, found, strict=True)
        ]

    def close(self) -> None:
        self.backend.close()

    def _backend(self) -> Backend:
        if self.mode == "server":
            return Server(
                self.model,
                self.tokenizer,
                base_url=self.base_url,
                group_port=self.group_port,
                timeout=self.timeout,
                handover=self.handover,
            )
        return Colocated(
            self.model,
            adapter_rank=adapter_rank(self.model) if self.lora == "hot" else 0,
            gpu_memory_utilization=self.gpu_memory_utilization,
            max_model_len=self.max_model_len,
            dtype=self.dtype,
        )

    def _loads_adapters(self) -> bool:
        """Whether vLLM is given the adapter as it is. Raises `ValueError` where that is asked for and
        cannot be, and where vLLM takes the adapter and does not use it."""
        adapted = hasattr(self.model, "peft_config")
        if self.lora == "merged" or (self.lora == "auto" and not adapted):
            return False
        why = self._refusal()
        if why is None:
            return True
        if self.lora == "hot":
            raise ValueError(f"lora: hot cannot be had: {why}; set lora: merged")
        if self.backend.adapter_room:
            self.remarks = [f"sampling: adapters are handed over merged, because {why}"]
        return False

    def _refusal(self) -> str | None:
        """Why the adapter cannot be loaded as it is; None where it was tried and can."""
        room = self.backend.adapter_room
        if not room:
            return (
                "the server was not started with --enable-lora, and with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, in one data-parallel group"
            )
        try:
            rank = adapter_rank(self.model)
        except LoadError as error:
            return str(error)
        if rank > room:
            return f"its rank {rank} is over {room}, what vLLM was started with (--max-lora-rank)"
        ids = probe_ids(self.tokenizer)
        gap = base_gap(self.model, ids, self.backend.score)
        if not (self._has_base() and gap <= self.tolerance):
            # An earlier run left its weights, or this is the second stage of one.
            self.backend.push(lambda: base_weights(self.model))
            gap = base_gap(self.model, ids, self.backend.score)
        if not gap <= self.tolerance:
            raise ValueError(
                f"vLLM was given the policy's base and is {gap:.3g} nats a token from it, more than its "
                f"tolerance of {self.tolerance:g}: it runs another model, or in lower precision"
            )
        try:
            fault = try_adapter(self.model, ids, self._load_adapter, self.backend.score)
        except RefusedError as error:
            return str(error)
        if fault is not None:
            raise ValueError(f"{fault}; set lora: merged")
        return None

    def _has_base(self) -> bool:
        """A distance alone could not tell: weights that differ little are nearer than rounding."""
        return self.backend.loaded_from(self.model.get_base_model().name_or_path)

    def _load_adapter(self) -> None:
        self.backend.load_adapter(lambda folder: save_adapter(self.model, folder))

    def _parameters(self, request: Request, how: Decoding) -> dict[str, Any]:
        return {
            "n": request.count if how.temperature else 1,
            "max_tokens": how.max_completion_length,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k,
            "min_p": how.min_p,
            **PLAIN,
            "seed": seed_of(request.key),
            "logprobs": 0,  # of the token that was drawn alone
            "stop_token_ids": self.ends,
        }


def seed_of(key: str) -> int:
    """A seed with room above it for counting on; a function of the key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 2
