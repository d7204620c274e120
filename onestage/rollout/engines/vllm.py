"""Sampling by vLLM, which runs a copy of the policy: in a server of its own, or in this process.

NOT RUN ON A GPU so far. `mode: colocate` was run with vLLM 0.32 on the CPU (SmolLM2, 20 steps of GRPO
on adapters: log-probabilities stay within 1e-3 of the policy's, tests/field/test_real_vllm.py).
`mode: server` was not: its tests put small models behind the interfaces of vLLM and of TRL's client
(1.16), as those are documented. It speaks to `vllm serve` through TRL's client, started as

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}'

`mode: colocate` runs `vllm.LLM` on the GPU of the training process, one a process. Before each sampling
the policy's weights are handed over if they have changed since the last time, adapters merged in.

A request's seed comes from its key, and vLLM counts on from it for the completions of one prompt. So
completions are a function of the key as far as vLLM's arithmetic does not depend on the batch.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from onestage.models.export import merged_weights
from onestage.models.fingerprint import bit_sums
from onestage.rollout.engines import Completion, Decoding, Engine, Request
from onestage.rollout.engines.transformers import end_ids
from onestage.runfolder.secrets import secrets

Weights = Callable[[], Iterator[tuple[str, Tensor]]]
Drawn = list[tuple[list[int], list[float]]]
"""Token ids and their log-probabilities, of each completion of a request."""
CONCURRENT = 64
"""Requests that wait for a server at once."""
ALONE = {
    **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    **{"MASTER_ADDR": "localhost", "MASTER_PORT": "29577"},
}
"""What vLLM wants to find in the environment where no launcher has set it."""


class Backend(Protocol):
    """Where vLLM runs."""

    def push(self, weights: Weights) -> None:
        """Take over weights; all that was computed with the old ones is forgotten."""

    def generate(self, prompts: list[list[int]], how: list[dict[str, Any]]) -> list[Drawn]:
        """Completions of each prompt, by vLLM's sampling parameters of each."""

    def close(self) -> None: ...


@dataclass
class Vllm(Engine):
    model: Any
    tokenizer: Any
    mode: Literal["server", "colocate"] = "server"
    base_url: str = "http://localhost:8000"
    """Of the server."""
    group_port: int = 51216
    """Through which the server is sent weights (NCCL)."""
    timeout: float = 240.0
    """Seconds to wait for the server to be up."""
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
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization must be in (0, 1], got {self.gpu_memory_utilization}"
            )
        if self.tolerance <= 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")
        self.ends = end_ids(self.model, self.tokenizer)
        self.pushed: tuple[int, ...] | None = None
        self.backend: Backend = Server(self) if self.mode == "server" else Colocated(self)

    def sync(self) -> None:
        now = bit_sums(self.model)
        if now != self.pushed:
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

    def _parameters(self, request: Request, how: Decoding) -> dict[str, Any]:
        return {
            "n": request.count if how.temperature else 1,
            "max_tokens": how.max_completion_length,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k,
            "min_p": how.min_p,
            "seed": seed_of(request.key),
            "logprobs": 0,  # of the token that was drawn alone
            "stop_token_ids": self.ends,
        }


class Server:
    """`vllm serve` behind TRL's client. The first process hands over the weights, all may ask."""

    def __init__(self, options: Vllm) -> None:
        client = _imported("trl.generation.vllm_client").VLLMClient
        _imported("vllm")
        self.client = client(
            base_url=options.base_url,
            group_port=options.group_port,
            connection_timeout=options.timeout,
        )
        if _rank() == 0:
            self.client.init_communicator(device=options.model.device)
        self.metadata: list[tuple[str, str, list[int]]] = []

    def push(self, weights: Weights) -> None:
        if _rank() == 0:
            # Names and shapes do not change in a run, and to list them merges all adapters once.
            if not self.metadata:
                self.metadata = [
                    (name, str(weight.dtype).removeprefix("torch."), list(weight.shape))
                    for name, weight in weights()
                ]
            self.client.update_named_params(self.metadata, weights())
            self.client.reset_prefix_cache()
        if _ranks() > 1:
            torch.distributed.barrier()

    def generate(self, prompts: list[list[int]], how: list[dict[str, Any]]) -> list[Drawn]:
        if not prompts:
            return []
        with ThreadPoolExecutor(min(CONCURRENT, len(prompts))) as pool:
            return list(pool.map(self._one, prompts, how))

    def _one(self, prompt: list[int], how: dict[str, Any]) -> Drawn:
        # What the client takes by name; the rest reaches vLLM as it is.
        named = {"n", "max_tokens", "temperature", "top_p", "top_k", "min_p", "logprobs"}
        more = {key: value for key, value in how.items() if key not in named}
        given = {key: value for key, value in how.items() if key in named}
        found = self.client.generate([prompt], **given, generation_kwargs=more)
        drawn = []
        for ids, logps, tokens in zip(
            found["completion_ids"], found["logprobs"], found["logprob_token_ids"], strict=True
        ):
            drawn.append((ids, [_of_token(*at) for at in zip(ids, logps, tokens, strict=True)]))
        return drawn

    def close(self) -> None:
        self.client.close_communicator()


class Colocated:
    """`vllm.LLM` in this process, with the weights loaded into its model directly (as TRL does it)."""

    def __init__(self, options: Vllm) -> None:
        vllm, model = _imported("vllm"), options.model
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        if not base.name_or_path:
            raise ValueError(
                "mode: colocate needs a model with a folder or a name on the hub, to read its config "
                "from; this one is made from a config"
            )
        # Without a launcher, vLLM's external launcher is a group of one.
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
        self.parameters = vllm.SamplingParams
        self.tied = bool(base.config.get_text_config().tie_word_embeddings)
        self.llm = vllm.LLM(
            model=base.name_or_path,
            skip_tokenizer_init=True,
            gpu_memory_utilization=options.gpu_memory_utilization,
            max_model_len=options.max_model_len,
            dtype=options.dtype,
            distributed_executor_backend="external_launcher",
            logprobs_mode="raw_logprobs",
        )

    def push(self, weights: Weights) -> None:
        worker = self.llm.llm_engine.model_executor.driver_worker
        # vLLM's own way: after loading it repacks weights into the form of its kernels, into which
        # `load_weights` of the model cannot load again. It asks for one weight after the other, and
        # merged ones are made as they are asked for.
        worker.reload_weights(weights_iterator=weights())
        if self.tied:
            # No weight is loaded into a tied head, so vLLM does not repack it (seen on the CPU, 0.32).
            head = worker.model_runner.get_model().lm_head
            head.quant_method.process_weights_after_loading(head)
        self.llm.reset_prefix_cache()

    def generate(self, prompts: list[list[int]], how: list[dict[str, Any]]) -> list[Drawn]:
        if not prompts:
            return []
        found = self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [self.parameters(**one, detokenize=False) for one in how],
            use_tqdm=False,
        )
        return [
            [
                (
                    list(out.token_ids),
                    [
                        at[token].logprob
                        for token, at in zip(out.token_ids, out.logprobs, strict=True)
                    ],
                )
                for out in sorted(request.outputs, key=lambda out: out.index)
            ]
            for request in found
        ]

    def close(self) -> None:
        del self.llm


def seed_of(key: str) -> int:
    """A seed with room above it for counting on; a function of the key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 2


def _of_token(token: int, logps: Sequence[float | None], tokens: Sequence[int]) -> float:
    logp: float | None = dict(zip(tokens, logps, strict=True))[token]
    return math.nan if logp is None else logp


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _ranks() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"the rollout engine vllm needs packages that are not here ({error}): "
            "pip install 'onestage[vllm]'"
        ) from error
