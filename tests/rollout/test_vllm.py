"""The vLLM engine in front of small models that stand behind vLLM's and TRL's interfaces.

vLLM itself needs a GPU and was not run. What is checked: what is asked of it, that weights really arrive
in a second model, under its names and with adapters merged in, and that old weights are noticed.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import sharpen, tiny_llama

from onestage.models.export import merged_weights
from onestage.models.fingerprint import bit_sums
from onestage.models.policy import Policy
from onestage.rollout.answer import Answering
from onestage.rollout.engines import Completion, Decoding, Request, make, names
from onestage.rollout.engines._agreement import CHECKED, EngineGapError, gap
from onestage.rollout.engines.transformers import warpers
from onestage.rollout.engines.vllm import seed_of

client_module = pytest.importorskip("trl.generation.vllm_client")


@dataclass
class Other:
    """A second model, far from the policy's, that is sampled plainly: the inside of a fake vLLM."""

    model: Any = field(default_factory=lambda: tiny_llama(7))
    loaded: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    resets: int = 0

    def load(self, name: str, weight: torch.Tensor) -> None:
        self.model.get_parameter(name).data.copy_(weight)
        self.loaded.append(name)

    def draw(self, prompt: list[int], how: dict[str, Any]) -> list[tuple[list[int], list[float]]]:
        self.asked.append(how)
        assert how["n"] == 1 or how["temperature"] > 0, "vLLM: n must be 1 when greedy"
        return [self._one(prompt, how, how["seed"] + number) for number in range(how["n"])]

    @torch.no_grad()
    def _one(self, prompt: list[int], how: dict[str, Any], seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        same = ("temperature", "top_p", "top_k", "min_p")
        warp = warpers(Decoding(how["max_tokens"], **{name: how[name] for name in same}))
        ids, logps = list(prompt), []
        for _ in range(how["max_tokens"]):
            logits = self.model(torch.tensor([ids])).logits[:, -1]
            if how["temperature"]:
                p = torch.softmax(warp(None, logits), -1)
                token = int(torch.multinomial(p, 1, generator=generator))
            else:
                token = int(logits.argmax())
            ids.append(token)
            logps.append(float(torch.log_softmax(logits, -1)[0, token]))
            if token in how["stop_token_ids"]:
                break
        return ids[len(prompt) :], logps


@dataclass
class FakeParams:
    n: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    logprobs: int
    stop_token_ids: list[int]
    detokenize: bool


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Other:
    inside, Real = Other(), client_module.VLLMClient

    class Client(Real):
        def __init__(self, **options: Any) -> None:
            inspect.signature(Real.__init__).bind(self, **options)

        def init_communicator(self, device: Any) -> None:
            self.communicator = SimpleNamespace(group=SimpleNamespace())

        def update_named_params(self, metadata: Any, named_params: Any) -> None:
            pairs = list(
                named_params
            )  # read as a whole before any is used, as packed transfers may
            for (name, dtype, shape), (sent, weight) in zip(metadata, pairs, strict=True):
                assert (name, dtype, shape) == (sent, "float32", list(weight.shape))
                inside.load(name, weight)

        def reset_prefix_cache(self) -> None:
            inside.resets += 1

        def generate(self, prompts: Any, **how: Any) -> dict[str, Any]:
            bound = inspect.signature(Real.generate).bind(self, prompts, **how)
            how |= bound.arguments.pop("generation_kwargs")
            drawn = [one for prompt in prompts for one in inside.draw(prompt, how)]
            return {
                "completion_ids": [ids for ids, _ in drawn],
                "logprobs": [[[-9.0, logp] for logp in logps] for _, logps in drawn],
                "logprob_token_ids": [[[-1, token] for token in ids] for ids, _ in drawn],
            }

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
            executor = SimpleNamespace(driver_worker=worker)
            self.llm_engine = SimpleNamespace(model_executor=executor)

        def reset_prefix_cache(self) -> None:
            inside.resets += 1

        def generate(self, prompts: Any, params: Any, use_tqdm: bool) -> list[Any]:
            return [
                SimpleNamespace(outputs=self._outputs(prompt["prompt_token_ids"], vars(how)))
                for prompt, how in zip(prompts, params, strict=True)
            ]

        def _outputs(self, prompt: list[int], how: dict[str, Any]) -> list[Any]:
            return [
                SimpleNamespace(
                    index=number,
                    token_ids=tuple(ids),
                    logprobs=[
                        {token: SimpleNamespace(logprob=logp)}
                        for token, logp in zip(ids, logps, strict=True)
                    ],
                )
                for number, (ids, logps) in enumerate(inside.draw(prompt, how))
            ][::-1]

    fake = ModuleType("vllm")
    fake.LLM, fake.SamplingParams = LLM, FakeParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setattr(client_module, "VLLMClient", Client)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    return inside


def requests(count: int = 3, group: int = 2) -> list[Request]:
    generator = np.random.default_rng(0)
    return [
        Request(generator.integers(2, 400, size=5 + n).astype(np.int32), group, f"k{n}")
        for n in range(count)
    ]


def policy_model() -> Any:
    model = tiny_llama(0)
    model.name_or_path = "somewhere"
    return model


def adapted_model() -> Any:
    """LoRA on attention, and a head that is trained whole."""
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
    model = get_peft_model(policy_model(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


HOW = Decoding(8)
MODES = ["server", "colocate"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("of", [policy_model, adapted_model])
def test_weights_arrive(of: Any, mode: str, other: Other, tokenizer: Any) -> None:
    model = of()
    before = {name: p.clone() for name, p in model.named_parameters()}
    engine = make({"name": "vllm", "mode": mode}, model, tokenizer)
    policy = Policy(model)
    with policy.evaluating():
        assert gap(policy, requests(), engine(requests(), HOW)) > 0.2  # other weights
        engine.sync()
        drawn = engine(requests(), HOW)
        assert gap(policy, requests(), drawn) < 1e-5
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    plain = {name for name, _ in tiny_llama().named_parameters()}
    assert set(other.loaded) == plain
    assert len(other.loaded) == len(plain)
    assert [len(group) for group in drawn] == [2, 2, 2]
    assert all(one.ended == (one.ids[-1] == 1) for group in drawn for one in group)
    engine.close()


@pytest.mark.parametrize("mode", MODES)
def test_weights_go_over_only_when_they_have_changed(
    mode: str, other: Other, tokenizer: Any
) -> None:
    model = policy_model()
    engine = make({"name": "vllm", "mode": mode}, model, tokenizer)
    for _ in range(3):
        engine.sync()
    assert other.resets == 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    model(torch.tensor([[3, 4, 5]])).logits.sum().backward()
    optimizer.step()
    engine.sync()
    engine.sync()
    assert other.resets == 2
    want = dict(model.named_parameters())
    assert all(torch.equal(p, want[name]) for name, p in other.model.named_parameters())


@pytest.mark.parametrize("mode", MODES)
def test_what_is_asked(mode: str, other: Other, tokenizer: Any) -> None:
    engine = make({"name": "vllm", "mode": mode}, policy_model(), tokenizer)
    how = Decoding(6, temperature=0.7, top_p=0.9, top_k=11, min_p=0.02)
    engine(requests(1, 3), how)
    (asked,) = other.asked
    want = {"n": 3, "max_tokens": 6, "temperature": 0.7, "top_p": 0.9, "top_k": 11, "min_p": 0.02}
    want |= {"seed": seed_of("k0"), "logprobs": 0, "stop_token_ids": [1]}
    assert {key: asked[key] for key in want} == want
    assert 0 <= asked["seed"] < 1 << 62
    assert engine([], how) == []


@pytest.mark.parametrize("mode", MODES)
def test_completions_are_a_function_of_the_key(mode: str, other: Other, tokenizer: Any) -> None:
    engine = make({"name": "vllm", "mode": mode}, policy_model(), tokenizer)
    some = requests(4, 3)
    first = engine(some, HOW)
    again = engine(some[::-1], HOW)[::-1]
    fewer = engine([Request(r.ids, 2, r.key) for r in some], HOW)
    for one, two, three in zip(first, again, fewer, strict=True):
        assert texts(one) == texts(two)
        assert texts(one)[:2] == texts(three)
        assert len(set(map(tuple, texts(one)))) == 3
    moved = engine([Request(r.ids, 3, r.key + "x") for r in some], HOW)
    assert [texts(one) for one in moved] != [texts(one) for one in first]


def test_greedy_groups(other: Other, tokenizer: Any) -> None:
    engine = make({"name": "vllm", "mode": "colocate"}, policy_model(), tokenizer)
    ((one, two),) = engine(requests(1, 2), Decoding(5, temperature=0))
    assert one.ids.tolist() == two.ids.tolist()


def texts(group: list[Completion]) -> list[list[int]]:
    return [one.ids.tolist() for one in group]


def answering(engine: Any, said: list[str]) -> Any:
    """What `Answering` compares an engine with."""
    made = Answering.__new__(Answering)
    made.engine, made.say = engine, said.append
    made.policy = Policy(engine.model)
    made.report = SimpleNamespace(gap=0.0)
    return made


@pytest.mark.parametrize("on_gap", ["stop", "warn"])
def test_old_weights_are_noticed(on_gap: str, other: Other, tokenizer: Any) -> None:
    engine = make({"name": "vllm", "mode": "server", "on_gap": on_gap}, policy_model(), tokenizer)
    said: list[str] = []
    compare = answering(engine, said)
    with compare.policy.evaluating():
        engine.sync()
        compare._compare(requests(), engine(requests(), HOW), engine.tolerance)
        assert compare.report.gap < 1e-5
        assert not said
        sharpen(engine.model, 2.0)  # an update that is not handed over
        drawn = engine(requests(), HOW)
        if on_gap == "stop":
            with pytest.raises(EngineGapError, match="nats a token from the policy's"):
                compare._compare(requests(), drawn, engine.tolerance)
        else:
            compare._compare(requests(), drawn, engine.tolerance)
            assert "nats a token from the policy's" in said[0]
        assert compare.report.gap > engine.tolerance
        engine.sync()
        assert gap(compare.policy, requests(), engine(requests(), HOW)) < 1e-5


def test_no_number_is_a_gap(other: Other, tokenizer: Any) -> None:
    engine = make("vllm", policy_model(), tokenizer)
    broken = Completion(np.array([5, 1], np.int32), True, np.full(2, np.nan, np.float32))
    compare = answering(engine, [])
    with compare.policy.evaluating(), pytest.raises(EngineGapError):
        compare._compare(requests(1), [[broken]], engine.tolerance)


def test_few_completions_are_compared(other: Other, tokenizer: Any) -> None:
    engine = make("vllm", policy_model(), tokenizer)
    policy = Policy(engine.model)
    engine.sync()
    drawn = engine(requests(CHECKED + 2), HOW)
    calls: list[int] = []
    policy.register_forward_hook(lambda *given: calls.append(1))
    with policy.evaluating():
        gap(policy, requests(CHECKED + 2), drawn)
    assert len(calls) == CHECKED


def test_without_vllm_the_extra_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed
    assert "vllm" in names()
    for mode in MODES:
        with pytest.raises(ValueError, match=r"pip install 'onestage\[vllm\]'"):
            make({"name": "vllm", "mode": mode}, policy_model(), tokenizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "mode"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization must be in"),
        ({"tolerance": 0}, "tolerance must be positive"),
        ({"temperature": 1}, "unknown option 'temperature'"),
    ],
)
def test_options_are_checked(options: Any, message: str, other: Other, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=message):
        make({"name": "vllm", **options}, policy_model(), tokenizer)


def test_a_model_without_a_folder_cannot_be_colocated(other: Other, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="made from a config"):
        make({"name": "vllm", "mode": "colocate"}, tiny_llama(), tokenizer)


def test_fingerprints_see_any_change() -> None:
    model = tiny_llama().to(torch.bfloat16)
    before = bit_sums(model)
    assert bit_sums(model) == before
    for parameter in model.parameters():
        kept = parameter.data.flatten()[0].clone()
        parameter.data.view(-1)[0] = torch.nextafter(kept, kept + 1)
        assert bit_sums(model) != before
        parameter.data.view(-1)[0] = kept
    assert bit_sums(model) == before


def test_a_quantized_model_is_refused() -> None:
    model = tiny_llama()
    model.is_quantized = True
    with pytest.raises(ValueError, match="quantized"):
        list(merged_weights(model))
