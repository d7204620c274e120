"""A `vllm serve` of its own. The first process hands over weights, all may ask."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from onestage.rollout.engines._vllm_backend import (
    Drawn,
    Save,
    Weights,
    all_together,
    rank,
    shared,
)
from onestage.rollout.engines._vllm_link import AGAIN, Link, RefusedError, ServerError
from onestage.rollout.engines._vllm_offer import NOT_FOUND, check_model, named, offer_of
from onestage.rollout.engines._vllm_transfer import Files, Native, Transfer
from onestage.rollout.engines._vllm_worker import EXTENSION, TiedHead

UNTOUCHED = "default"
"""The version that a server tells of the weights that it loaded at its start."""
CONCURRENT = 64
"""Requests that wait for a server at once."""


def _tell(line: str) -> None:
    """While a run waits it has said nothing of its engine yet."""
    print(line, file=sys.stderr, flush=True)


class Server:
    """A server that is up, and was found to serve the policy's model."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        base_url: str,
        group_port: int,
        timeout: float | None,
        handover: str | None,
    ) -> None:
        self.link = Link(base_url)
        try:
            self.link.wait(timeout, _tell if rank() == 0 else lambda line: None)
            self.offer = offer_of(self.link)
            check_model(self.link, self.offer, model, tokenizer)
        except ServerError as error:
            raise ValueError(str(error)) from error
        self.adapter_room = self.offer.adapter_room
        self.run = shared(f"onestage-{token_hex(4)}")
        if handover is not None and not Path(handover).is_dir():
            raise ValueError(
                f"handover: there is no folder {handover}; make it, where the server reads it too"
            )
        # Taken away at the end of the process at the latest.
        self.made = TemporaryDirectory(prefix=f"{self.run}-", dir=handover) if rank() == 0 else None
        self.folder = Path(shared(self.made.name if self.made else ""))
        self.answers_as = self.offer.model
        self.versions = 0
        self.model, self.port = model, group_port
        self.transfer: Transfer | None = None
        self.holds = self._weights_held()

    def make_ready(self, *, whole: bool) -> str:
        manner = f"adapters as they are, through files in {self.folder}"
        if whole and rank() == 0:
            manner = f"weights {self._transfer().manner}"
        return f"{named(self.offer.version)} at {self.link.base_url}, {manner}"

    def loaded_from(self, name: str) -> bool:
        return self.holds == UNTOUCHED and name == self.offer.source

    def push(self, weights: Weights) -> None:
        self.versions += 1
        if rank() == 0:
            transfer = self._transfer()
            with self._paused():
                transfer.send(weights)
                self._forget()
            self._mark(f"{self.run}-{self.versions}")
        all_together()
        self.holds = self._weights_held()

    def load_adapter(self, save: Save) -> None:
        # A new name each time: what was computed of a prompt is kept by the adapter's name.
        name = f"{self.run}-{self.versions + 1}"
        if rank() == 0:
            save(self.folder / name)
            told = {"lora_name": name, "lora_path": str(self.folder / name)}
            self.link.post("/v1/load_lora_adapter", told)
            self._unload()
        all_together()
        self.answers_as, self.versions = name, self.versions + 1

    def score(self, ids: list[int]) -> Tensor:
        asked = {"prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        (found,) = self._complete(asked)
        # Of the first token there is none.
        said = zip(ids[1:], found["prompt_logprobs"][1:], strict=True)
        return torch.tensor([at[str(token)]["logprob"] for token, at in said])

    def generate(self, prompts: list[list[int]], how: list[dict[str, Any]]) -> list[Drawn]:
        if not prompts:
            return []
        self._require_ours()
        with ThreadPoolExecutor(min(CONCURRENT, len(prompts))) as pool:
            found = list(pool.map(self._one, prompts, how))
        self._require_ours()
        return found

    def close(self) -> None:
        if self.made is None:
            return
        with suppress(ServerError):
            self._unload()
        if self.transfer is not None:
            self.transfer.close()
        self.made.cleanup()

    def _one(self, prompt: list[int], how: dict[str, Any]) -> Drawn:
        asked = {"prompt": prompt, "return_token_ids": True, **how}
        drawn = []
        for choice in sorted(self._complete(asked), key=lambda choice: choice["index"]):
            logps = choice["logprobs"]["token_logprobs"]
            drawn.append(
                (choice["token_ids"], [math.nan if logp is None else logp for logp in logps])
            )
        return drawn

    def _complete(self, asked: dict[str, Any]) -> Any:
        return self.link.post("/v1/completions", {"model": self.answers_as, **asked})["choices"]

    def _transfer(self) -> Transfer:
        self.transfer = self.transfer or self._new_transfer()
        return self.transfer

    def _new_transfer(self) -> Transfer:
        offer, model = self.offer, self.model
        if offer.transfer and model.device.type == "cuda":
            workers = self.link.get("/get_world_size")["world_size"]
            return Native(self.link, offer.transfer, workers, self.port)
        if not (offer.on_cpu and model.config.get_text_config().tie_word_embeddings):
            return Files(self.link, self.folder, "reload_weights")
        if not offer.packs_head:
            raise ValueError(
                f"the vLLM server at {self.link.base_url} runs on a CPU, where a head that is tied to "
                f"the embedding keeps its old weights; start it with --worker-extension-cls {EXTENSION}"
            )
        return Files(self.link, self.folder, TiedHead.reload_with_head.__name__)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Nothing is answered by a mixture of old and new weights."""
        self.link.post("/pause?mode=wait")
        try:
            yield
        finally:
            with suppress(ServerError):
                self.link.post("/resume")

    def _forget(self) -> None:
        if not self.link.post("/reset_prefix_cache")["success"]:
            raise ServerError(
                f"the vLLM server at {self.link.base_url} keeps what it computed with the old weights "
                f"(/reset_prefix_cache failed); {AGAIN}"
            )

    def _unload(self) -> None:
        """Let go of the adapter that answered until now."""
        if self.answers_as != self.offer.model:
            self.link.post("/v1/unload_lora_adapter", {"lora_name": self.answers_as})
            shutil.rmtree(self.folder / self.answers_as)

    def _mark(self, version: str) -> None:
        if self.holds is not None:
            self.link.post("/update_weight_version", {"new_version": version})

    def _weights_held(self) -> str | None:
        """The version of its weights that the server tells; None where it tells none."""
        try:
            held: str = self.link.get("/weight_info")["weight_version"]
        except RefusedError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return held

    def _require_ours(self) -> None:
        """Raise `ServerError` where somebody else has changed the weights."""
        held = self._weights_held()
        if held != self.holds:
            raise ServerError(
                f"the vLLM server at {self.link.base_url} has other weights than this run gave it "
                f"(version {held}, not {self.holds}): it was started anew, or another run uses it; give "
                "each run a server of its own, and go on with --resume"
            )
