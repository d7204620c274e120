"""`vllm.LLM` in this process, with the weights loaded into its model directly (as TRL does it)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, distributed

from onestage.rollout.engines._vllm_backend import Drawn, Save, Weights, imported
from onestage.rollout.engines._vllm_offer import check_version, named
from onestage.rollout.engines._vllm_worker import pack_head

ALONE = {
    **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    **{"MASTER_ADDR": "localhost", "MASTER_PORT": "29577"},
}
"""What vLLM wants to find in the environment where no launcher has set it."""
ROOMS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM makes room for."""


@contextmanager
def _the_ranks_own_stays() -> Iterator[None]:
    """vLLM ends with whatever process group there is, also one that it found: the ranks', which have a
    model to save yet. Its own, which it makes of that one, may go."""
    destroy = distributed.destroy_process_group

    def some(group: Any = None) -> None:
        if group is not None:
            destroy(group)

    distributed.destroy_process_group = some
    try:
        yield
    finally:
        distributed.destroy_process_group = destroy


class Colocated:
    """vLLM in this process. `adapter_rank`: of the adapter that it is to load; 0: none."""

    def __init__(
        self,
        model: Any,
        *,
        adapter_rank: int,
        gpu_memory_utilization: float,
        max_model_len: int | None,
        dtype: str,
    ) -> None:
        vllm = imported("vllm")
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        if not base.name_or_path:
            raise ValueError(
                "mode: colocate needs a model with a folder or a name on the hub, to read its config "
                "from; this one is made from a config"
            )
        check_version(vllm.__version__, "that is installed is")
        self.joins = distributed.is_initialized()
        # Without a launcher, vLLM's external launcher is a group of one.
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
        self.vllm = vllm
        self.adapter_room = next((room for room in ROOMS if room >= adapter_rank > 0), 0)
        self.source, self.pushed = base.name_or_path, False
        self.tied = bool(base.config.get_text_config().tie_word_embeddings)
        self.folder, self.versions, self.adapter = TemporaryDirectory(prefix="onestage-"), 0, None
        loading = {"enable_lora": True, "max_lora_rank": self.adapter_room, "max_loras": 1}
        self.llm = vllm.LLM(
            model=base.name_or_path,
            skip_tokenizer_init=True,
            gpu_memory_utilization=gpu_memory_utilization,
            max_model_len=max_model_len,
            dtype=dtype,
            distributed_executor_backend="external_launcher",
            logprobs_mode="raw_logprobs",
            **(loading if self.adapter_room else {}),
        )

    def make_ready(self, *, whole: bool) -> str:
        given = "adapters merged into its weights" if whole else "adapters as they are"
        return f"{named(self.vllm.__version__)} in this process, {given}"

    def loaded_from(self, name: str) -> bool:
        return not self.pushed and name == self.source

    def push(self, weights: Weights) -> None:
        self.pushed = True
        worker = self.llm.llm_engine.model_executor.driver_worker
        # vLLM's own way: after loading it repacks weights into the form of its kernels, into which
        # `load_weights` of the model cannot load again. It asks for one weight after the other, and
        # merged ones are made as they are asked for.
        worker.reload_weights(weights_iterator=weights())
        if self.tied:
            pack_head(worker.model_runner.get_model())
        self.llm.reset_prefix_cache()

    def load_adapter(self, save: Save) -> None:
        self.versions += 1
        name = f"version-{self.versions}"
        place = Path(self.folder.name) / name
        save(place)
        request = imported("vllm.lora.request").LoRARequest
        before, self.adapter = self.adapter, request(name, self.versions, str(place))
        self.llm.llm_engine.add_lora(self.adapter)
        if before is not None:
            self.llm.llm_engine.remove_lora(before.lora_int_id)
            shutil.rmtree(before.lora_path)

    def score(self, ids: list[int]) -> Tensor:
        asked = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        (found,) = self._complete([ids], [asked])
        # Of the first token there is none.
        said = zip(ids[1:], found.prompt_logprobs[1:], strict=True)
        return torch.tensor([at[token].logprob for token, at in said])

    def generate(self, prompts: list[list[int]], how: list[dict[str, Any]]) -> list[Drawn]:
        if not prompts:
            return []
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
            for request in self._complete(prompts, how)
        ]

    def close(self) -> None:
        with _the_ranks_own_stays() if self.joins else nullcontext():
            self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        self.folder.cleanup()

    def _complete(self, prompts: list[list[int]], how: list[dict[str, Any]]) -> Any:
        return self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [self.vllm.SamplingParams(**one, detokenize=False) for one in how],
            use_tqdm=False,
            **({"lora_request": self.adapter} if self.adapter else {}),
        )
