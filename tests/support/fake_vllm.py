"""A small model behind the interfaces of vLLM 0.32: a server on a port of this machine, or `vllm.LLM`.

What each path answers, and what comes back, is as seen of a real one (tests/field/test_real_vllm.py).
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import torch
from peft import PeftModel
from safetensors.torch import load_file

from onestage.rollout.engines import Decoding
from onestage.rollout.engines._tokens import warpers
from support.tiny import make_tokenizer, tiny_llama

NAME = "served"
Drawn = list[tuple[list[int], list[float]]]


@dataclass
class Other:
    """A second model, far from the policy's, that is sampled plainly: the inside of a vLLM."""

    model: Any = field(default_factory=lambda: tiny_llama(7))
    loaded: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    resets: int = 0
    adapters: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Of all adapters that were ever loaded."""
    binds: bool = True
    """Whether adapters are used where they are loaded."""
    takes: bool = True
    """Whether adapters can be loaded."""

    def load(self, name: str, weight: torch.Tensor) -> None:
        self.model.get_parameter(name).data.copy_(weight)
        self.loaded.append(name)

    def add(self, name: str, folder: str) -> None:
        model = copy.deepcopy(self.model)
        self.adapters[name] = (
            PeftModel.from_pretrained(model, folder).eval() if self.binds else model
        )
        self.names.append(name)

    def draw(self, prompt: list[int], how: dict[str, Any], name: str = NAME) -> Drawn:
        self.asked.append(how)
        assert how["n"] == 1 or how["temperature"] > 0, "vLLM: n must be 1 when greedy"
        model = self.adapters.get(name, self.model)
        return [self._one(model, prompt, how, how["seed"] + number) for number in range(how["n"])]

    @torch.no_grad()
    def said(self, ids: list[int], name: str = NAME) -> list[float]:
        """Of all tokens but the first."""
        logits = self.adapters.get(name, self.model)(torch.tensor([ids])).logits[0, :-1]
        found = torch.log_softmax(logits, -1)
        return found.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()

    @torch.no_grad()
    def _one(self, model: Any, prompt: list[int], how: dict[str, Any], seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        same = ("temperature", "top_p", "top_k", "min_p")
        warp = warpers(Decoding(how["max_tokens"], **{name: how[name] for name in same}))
        ids, logps = list(prompt), []
        for _ in range(how["max_tokens"]):
            logits = model(torch.tensor([ids])).logits[:, -1]
            if how["temperature"]:
                p = torch.softmax(warp(None, logits), -1)
                token = int(torch.multinomial(p, 1, generator=generator))
            else:
                token = int(logits.argmax())
            ids.append(token)
            logps.append(float(torch.log_softmax(logits, -1)[0, token]))
            if token in how.get("stop_token_ids", ()):
                break
        return ids[len(prompt) :], logps


class RefusalError(Exception):
    """An answer with a status of its own."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


@dataclass
class Served:
    """What a server was started with, and what it answers."""

    inside: Other
    url: str = ""
    version: str = "0.32.0"
    tokenizer: Any = field(default_factory=make_tokenizer)
    rank: int = 0
    """Of adapters; 0: started without."""
    groups: int = 1
    logprobs_mode: str = "raw_logprobs"
    extension: str = "onestage.rollout.engines._vllm_worker.TiedHead"
    developer: bool = True
    source: str = "elsewhere"
    held: str = "default"
    """The version of the weights."""
    calls: list[str] = field(default_factory=list)
    last: int | None = None
    """Requests that are still answered with completions, before the server is gone."""
    stop: Any = None
    slow: float = 0.0
    """Seconds that a completion takes more."""
    hangs: bool = False
    """Whether it says nothing any more, for a second."""

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        self.calls.append(path)
        time.sleep(self.hangs)
        name = "on_" + path.strip("/").replace("/", "_")
        if not hasattr(self, name):
            raise RefusalError(404, "Not Found")
        return getattr(self, name)(**body)

    def on_health(self) -> None:
        pass

    def on_version(self) -> Any:
        return {"version": self.version}

    def on_server_info(self) -> Any:
        if not self.developer:
            raise RefusalError(404, "Not Found")
        config = {
            "model_config": {"logprobs_mode": self.logprobs_mode},
            "lora_config": {"max_lora_rank": self.rank} if self.rank else None,
            "weight_transfer_config": None,
            "device_config": {"device": "cpu"},
            "parallel_config": {
                "data_parallel_size": self.groups,
                "worker_extension_cls": self.extension,
            },
        }
        return {
            "vllm_config": config,
            "vllm_env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": True},
        }

    def on_v1_models(self) -> Any:
        own = [{"id": NAME, "root": self.source, "parent": None}]
        return {"data": own + [{"id": name, "parent": NAME} for name in self.inside.adapters]}

    def on_tokenize(
        self, model: str, prompt: str = "", messages: Any = None, add_special_tokens: bool = True
    ) -> Any:
        if messages is not None:
            told = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
            return {"tokens": told["input_ids"]}
        return {"tokens": self.tokenizer(prompt, add_special_tokens=add_special_tokens).input_ids}

    def on_collective_rpc(self, method: str, kwargs: dict[str, str] | None = None) -> Any:
        if method == "get_model_inspection":
            rows, width = self.inside.model.get_input_embeddings().weight.shape
            return {
                "results": [f"Embedding(embedding_dim={width}, org_vocab_size={rows}, tp_size=1)"]
            }
        assert method in ("reload_weights", "reload_with_head")
        assert kwargs is not None
        for file in sorted(Path(kwargs["weights_path"]).glob("*.safetensors")):
            for name, weight in load_file(file).items():
                self.inside.load(name, weight)
        return {"results": [None]}

    def on_pause(self) -> Any:
        return {"status": "paused"}

    def on_resume(self) -> Any:
        return {"status": "resumed"}

    def on_reset_prefix_cache(self) -> Any:
        self.inside.resets += 1
        return {"success": True}

    def on_weight_info(self) -> Any:
        return {"weight_version": self.held}

    def on_update_weight_version(self, new_version: str) -> Any:
        self.held = new_version
        return {"success": True}

    def on_v1_load_lora_adapter(self, lora_name: str, lora_path: str) -> Any:
        if not self.inside.takes:
            raise RefusalError(500, "this model does not support LoRA")
        self.inside.add(lora_name, lora_path)

    def on_v1_unload_lora_adapter(self, lora_name: str) -> Any:
        del self.inside.adapters[lora_name]

    def on_v1_completions(self, model: str, prompt: list[int], **how: Any) -> Any:
        if model != NAME and model not in self.inside.adapters:
            raise RefusalError(404, f"The model `{model}` does not exist.")
        if "prompt_logprobs" in how:
            said = zip(prompt[1:], self.inside.said(prompt, model), strict=True)
            found = [None, *({str(token): {"logprob": logp}} for token, logp in said)]
            return {"choices": [{"index": 0, "prompt_logprobs": found}]}
        if self.last is not None:
            self.last -= 1
            if self.last < 0:
                self.stop()
        time.sleep(self.slow)
        assert how.pop("return_token_ids")
        choices = [
            {"index": number, "token_ids": ids, "logprobs": {"token_logprobs": logps}}
            for number, (ids, logps) in enumerate(self.inside.draw(prompt, how, model))
        ]
        return {"choices": choices[::-1]}


@contextmanager
def serving(served: Served, port: int = 0) -> Iterator[Served]:
    """A server as it was started, under `served.url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            try:
                status, found = 200, served.answer(urlsplit(self.path).path, body)
            except RefusalError as error:
                status, found = error.status, {"error": {"message": str(error)}}
            except ConnectionAbortedError:
                return
            raw = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *given: Any) -> None:
            pass

    def end() -> None:
        server.shutdown()
        server.server_close()

    def stop() -> None:
        threading.Thread(target=end).start()
        raise ConnectionAbortedError

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    served.url, served.stop = f"http://127.0.0.1:{server.server_port}", stop
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        end()
        thread.join()


def make_llm(inside: Other) -> type:
    """`vllm.LLM` around a model."""

    class LLM:
        def __init__(self, **options: Any) -> None:
            assert options["logprobs_mode"] == "raw_logprobs"
            head = SimpleNamespace(
                quant_method=SimpleNamespace(process_weights_after_loading=lambda head: None)
            )
            worker = SimpleNamespace(
                reload_weights=lambda weights_iterator: [inside.load(*p) for p in weights_iterator],
                model_runner=SimpleNamespace(get_model=lambda: SimpleNamespace(lm_head=head)),
            )
            self.llm_engine = SimpleNamespace(
                engine_core=SimpleNamespace(shutdown=_ended),
                model_executor=SimpleNamespace(driver_worker=worker),
                add_lora=lambda request: inside.add(request.lora_name, request.lora_path),
                remove_lora=lambda number: inside.adapters.pop(f"version-{number}"),
            )

        def reset_prefix_cache(self) -> None:
            inside.resets += 1

        def generate(
            self, prompts: Any, params: Any, use_tqdm: bool, lora_request: Any = None
        ) -> list[Any]:
            name = lora_request.lora_name if lora_request else NAME
            return [
                self._answered(prompt["prompt_token_ids"], how, name)
                for prompt, how in zip(prompts, params, strict=True)
            ]

        def _answered(self, prompt: list[int], how: dict[str, Any], name: str) -> Any:
            if "prompt_logprobs" in how:
                said = zip(prompt[1:], inside.said(prompt, name), strict=True)
                found = [{token: SimpleNamespace(logprob=logp)} for token, logp in said]
                return SimpleNamespace(prompt_logprobs=[None, *found])
            drawn = inside.draw(prompt, how, name)
            outputs = [_output(number, *one) for number, one in enumerate(drawn)]
            return SimpleNamespace(outputs=outputs[::-1])

    return LLM


def _ended() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _output(number: int, ids: list[int], logps: list[float]) -> Any:
    said = zip(ids, logps, strict=True)
    found = [{token: SimpleNamespace(logprob=logp)} for token, logp in said]
    return SimpleNamespace(index=number, token_ids=tuple(ids), logprobs=found)
