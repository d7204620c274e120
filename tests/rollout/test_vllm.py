"""The vLLM engine in front of small models that stand behind vLLM's interfaces (support/fake_vllm.py).

A real vLLM is asked in tests/field/test_real_vllm.py. What is checked here: what is asked of it, that
weights and adapters really arrive in a second model, and that whatever is wrong is noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from support.fake_vllm import Other, Served, make_llm, serving
from support.ranks import on_ranks
from support.tiny import make_tokenizer, sharpen, tiny_llama

import onestage as one
from onestage.models.export import merged_weights
from onestage.models.fingerprint import bit_sums
from onestage.models.policy import Policy
from onestage.rollout.answer import Answering
from onestage.rollout.engines import Completion, Decoding, Request, _vllm_link, make, names
from onestage.rollout.engines._agreement import CHECKED, EngineGapError, gap
from onestage.rollout.engines._vllm_link import Link, RefusedError, ServerError
from onestage.rollout.engines.vllm import seed_of

# PEFT looks for the config of a model that was made here.
pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file")


@dataclass
class FakeParams:
    n: int = 1
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_p: float = 0.0
    seed: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop_token_ids: Any = None
    detokenize: bool = True

    def __new__(cls, **given: Any) -> Any:
        assert set(given) <= set(cls.__annotations__)
        return given


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Other:
    """The model inside a `vllm.LLM` and behind a server."""
    inside = Other()
    fake, requests = ModuleType("vllm"), ModuleType("vllm.lora.request")
    fake.__version__ = "0.32.0"  # type: ignore[attr-defined]
    fake.LLM, fake.SamplingParams = make_llm(inside), FakeParams  # type: ignore[attr-defined]
    requests.LoRARequest = lambda name, number, folder: SimpleNamespace(  # type: ignore[attr-defined]
        lora_name=name, lora_int_id=number, lora_path=folder
    )
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setitem(sys.modules, "vllm.lora.request", requests)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    return inside


@pytest.fixture
def served(other: Other) -> Iterator[Served]:
    with serving(Served(other)) as up:
        yield up


@pytest.fixture
def engine_of(served: Served, tokenizer: Any) -> Any:
    """An engine in a mode, for a model."""

    def make_one(mode: str, model: Any, **options: Any) -> Any:
        where = {"base_url": served.url, "timeout": 2} if mode == "server" else {}
        return make({"name": "vllm", "mode": mode, **where, **options}, model, tokenizer)

    return make_one


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
def test_weights_arrive(of: Any, mode: str, other: Other, engine_of: Any) -> None:
    model = of()
    before = {name: p.clone() for name, p in model.named_parameters()}
    engine = engine_of(mode, model)
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
    mode: str, other: Other, engine_of: Any
) -> None:
    model = policy_model()
    engine = engine_of(mode, model)
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
def test_what_is_asked(mode: str, other: Other, engine_of: Any) -> None:
    engine = engine_of(mode, policy_model())
    how = Decoding(6, temperature=0.7, top_p=0.9, top_k=11, min_p=0.02)
    engine(requests(1, 3), how)
    (asked,) = other.asked
    want = {"n": 3, "max_tokens": 6, "temperature": 0.7, "top_p": 0.9, "top_k": 11, "min_p": 0.02}
    want |= {"seed": seed_of("k0"), "logprobs": 0, "stop_token_ids": [1]}
    # Or a server takes them from the folder's generation settings.
    want |= {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert {key: asked[key] for key in want} == want
    assert 0 <= asked["seed"] < 1 << 62
    assert engine([], how) == []


@pytest.mark.parametrize("mode", MODES)
def test_completions_are_a_function_of_the_key(mode: str, engine_of: Any) -> None:
    engine = engine_of(mode, policy_model())
    some = requests(4, 3)
    first = engine(some, HOW)
    again = engine(some[::-1], HOW)[::-1]
    fewer = engine([Request(r.ids, 2, r.key) for r in some], HOW)
    for a, b, c in zip(first, again, fewer, strict=True):
        assert texts(a) == texts(b)
        assert texts(a)[:2] == texts(c)
        assert len(set(map(tuple, texts(a)))) == 3
    moved = engine([Request(r.ids, 3, r.key + "x") for r in some], HOW)
    assert [texts(one) for one in moved] != [texts(one) for one in first]


def test_greedy_groups(engine_of: Any) -> None:
    engine = engine_of("colocate", policy_model())
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
def test_old_weights_are_noticed(on_gap: str, engine_of: Any) -> None:
    engine = engine_of("server", policy_model(), on_gap=on_gap)
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


def test_no_number_is_a_gap(engine_of: Any) -> None:
    engine = engine_of("server", policy_model())
    broken = Completion(np.array([5, 1], np.int32), True, np.full(2, np.nan, np.float32))
    compare = answering(engine, [])
    with compare.policy.evaluating(), pytest.raises(EngineGapError):
        compare._compare(requests(1), [[broken]], engine.tolerance)


def test_few_completions_are_compared(engine_of: Any) -> None:
    engine = engine_of("server", policy_model())
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
    with pytest.raises(ValueError, match=r"pip install 'onestage\[vllm\]'"):
        make({"name": "vllm", "mode": "colocate"}, policy_model(), tokenizer)


def test_a_server_needs_no_vllm_here(
    engine_of: Any, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    engine = engine_of("server", policy_model())
    engine.sync()
    assert other.loaded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "mode"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization must be in"),
        ({"tolerance": 0}, "tolerance must be positive"),
        ({"lora": "cold"}, "lora"),
        (
            {"base_url": "localhost:8000"},
            "must begin with http:// or https://, got 'localhost:8000'",
        ),
        ({"temperature": 1}, "unknown option 'temperature'"),
    ],
)
def test_options_are_checked(options: Any, message: str, other: Other, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=message):
        make({"name": "vllm", **options}, policy_model(), tokenizer)


def test_an_old_vllm_in_this_process_is_refused(other: Other, engine_of: Any) -> None:
    sys.modules["vllm"].__version__ = "0.4.0"  # type: ignore[attr-defined]
    said = "vLLM that is installed is 0.4.0; the rollout engine vllm needs 0.28 or later"
    with pytest.raises(ValueError, match=said):
        engine_of("colocate", policy_model())


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


def lora_model(**options: Any) -> Any:
    """LoRA as it is before the first step: it adds nothing yet."""
    torch.manual_seed(4)
    config = {"r": 2, "target_modules": ["q_proj", "v_proj", "up_proj"], **options}
    return get_peft_model(policy_model(), LoraConfig(**config)).eval()


def train(model: Any, amount: float = 0.2) -> None:
    """Stands in for some steps."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += amount * torch.randn_like(parameter)


def engine_gap(engine: Any) -> float:
    with (policy := Policy(engine.model)).evaluating():
        engine.sync()
        return gap(policy, requests(), engine(requests(), HOW))


@pytest.mark.parametrize("mode", MODES)
def test_an_adapter_is_loaded_under_a_new_name_each_time(
    mode: str, other: Other, served: Served, engine_of: Any
) -> None:
    served.rank, model = 8, lora_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    engine = engine_of(mode, model, lora="auto" if mode == "server" else "hot")
    assert engine.hot
    assert "adapters as they are" in engine.remarks[-1]
    # The base is given once, since this copy started from other weights; random numbers are gone.
    assert len(other.loaded) == len(dict(tiny_llama().named_parameters()))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    for _ in range(3):
        assert engine_gap(engine) < 1e-5
        assert len(other.adapters) == 1
        train(model)
    assert len(set(other.names)) == len(other.names) == 4  # the tried one, and three
    assert other.resets == 1
    engine.close()
    assert mode == "colocate" or not other.adapters


@pytest.mark.parametrize("mode", MODES)
def test_a_base_is_given_once_where_vllm_has_another(
    mode: str, other: Other, served: Served, engine_of: Any
) -> None:
    """Also one that is nearer than the tolerance: a base that was trained a little, say."""
    other.model = sharpen(tiny_llama(0), 1.001)
    served.rank, served.source, model = 8, "somewhere", lora_model()
    first = engine_of(mode, model, lora="hot", tolerance=1.0)
    assert not other.loaded  # it was loaded from there, and says nearly the same
    if mode == "server":
        served.held = "an earlier run's"
        second = engine_of(mode, model, lora="hot", tolerance=1.0)
        assert other.loaded
        assert engine_gap(second) < 1e-5
    first.close()


def test_stacked_adapters_are_loaded_as_their_sum(
    served: Served, engine_of: Any, tmp_path: Path
) -> None:
    from onestage.models.stacking import stack

    served.rank, model = 8, lora_model()
    train(model)
    stack(model, LoraConfig(r=3, target_modules=["q_proj", "down_proj"]))
    engine = engine_of("server", model)
    assert engine.hot
    assert engine_gap(engine) < 1e-5


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"use_dora": True}, "with use_dora, which cannot be loaded by another engine as it is"),
        ({"bias": "all"}, "with bias, which"),
        ({"modules_to_save": ["lm_head"]}, "with modules_to_save"),
        ({"target_modules": ["lm_head", "q_proj"]}, "adapts embeddings or the head"),
        ({"r": 9}, "its rank 9 is over 8"),
    ],
)
def test_other_adapters_are_merged_and_it_is_said(
    options: Any, why: str, other: Other, served: Served, engine_of: Any
) -> None:
    served.rank, model = 8, lora_model(**options)
    engine = engine_of("server", model)
    assert not engine.hot
    assert why in engine.remarks[0]
    assert "merged" in engine.remarks[0]
    train(model)
    assert engine_gap(engine) < 1e-5
    assert not other.names
    with pytest.raises(ValueError, match="lora: hot cannot be had"):
        engine_of("server", model, lora="hot")


@pytest.mark.parametrize("lora", ["auto", "hot"])
def test_an_adapter_that_is_bound_to_nothing_is_refused(
    lora: str, other: Other, served: Served, engine_of: Any
) -> None:
    """It adds nothing before the first step, and little after it: no sample would show this."""
    served.rank, other.binds, model = 8, False, lora_model()
    with pytest.raises(ValueError, match="did not bind it to all its modules"):
        engine_of("server", model, lora=lora)
    assert not other.adapters
    assert not engine_of("server", model, lora="merged").hot


def test_a_model_that_takes_no_adapters_gets_merged_ones(
    other: Other, served: Served, engine_of: Any
) -> None:
    served.rank, other.takes = 8, False
    engine = engine_of("server", lora_model())
    assert not engine.hot
    assert "this model does not support LoRA" in engine.remarks[0]
    assert engine_gap(engine) < 1e-5


def test_a_server_without_room_for_adapters_is_no_matter(served: Served, engine_of: Any) -> None:
    for served.rank, served.groups in ((0, 1), (8, 2)):
        engine = engine_of("server", lora_model())
        assert not engine.hot
        assert len(engine.remarks) == 1
    with pytest.raises(ValueError, match="was not started with --enable-lora"):
        engine_of("server", lora_model(), lora="hot")


def other_words(served: Served) -> None:
    served.tokenizer = make_tokenizer(vocab_size=300)


def other_width(served: Served) -> None:
    served.inside.model.set_input_embeddings(torch.nn.Embedding(400, 48))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "0.27.1"}, "is 0.27.1; the rollout engine vllm needs 0.28 or later"),
        ({"developer": False}, "takes no weights: start it with VLLM_SERVER_DEV_MODE=1"),
        ({"logprobs_mode": "processed_logprobs"}, "start it with --logprobs-mode raw_logprobs"),
        (other_words, "serves served, which has another tokenizer than the policy"),
        (other_width, "is another model than the policy: 400 tokens of 48 numbers there"),
    ],
)
def test_a_server_that_does_not_fit_is_refused(
    change: Any, message: str, served: Served, engine_of: Any
) -> None:
    if callable(change):
        change(served)
    else:
        vars(served).update(change)
    with pytest.raises(ValueError, match=message) as error:
        engine_of("server", policy_model())
    assert "\n" not in str(error.value)


def test_a_version_of_tomorrow_is_tried_and_said(served: Served, engine_of: Any) -> None:
    served.version = "0.33.1"
    engine = engine_of("server", policy_model())
    assert "vLLM 0.33.1" in engine.remarks[-1]
    assert "(this was run with 0.32)" in engine.remarks[-1]


def test_a_tied_head_on_a_cpu_needs_a_worker_that_follows_it(
    served: Served, engine_of: Any
) -> None:
    served.extension, model = "", policy_model()
    engine_of("server", model)
    model.config.tie_word_embeddings = True
    with pytest.raises(ValueError, match="--worker-extension-cls onestage"):
        engine_of("server", model)


def test_a_server_that_is_not_there(tokenizer: Any) -> None:
    options = {"name": "vllm", "base_url": "http://127.0.0.1:9", "timeout": 0.1}
    with pytest.raises(ValueError, match=r"no answer from the vLLM server at http://127.0.0.1:9"):
        make(options, policy_model(), tokenizer)


def test_where_nobody_listens_that_is_said_within_seconds(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_vllm_link, "UNHEARD", 0.1)
    options = {"name": "vllm", "base_url": "http://127.0.0.1:9"}
    with pytest.raises(ValueError, match=r"refused.*timeout: SECONDS waits for a server that is"):
        make(options, policy_model(), tokenizer)


def test_a_server_that_starts_is_waited_for_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_vllm_link, "PAUSE", 0.01)
    answers: list[Exception | None] = [
        RefusedError("no answer: loading", 503),
        ServerError("no answer: timed out"),
        None,
    ]
    told: list[str] = []

    def get(link: Link, path: str, patience: float) -> None:
        if (error := answers.pop(0)) is not None:
            raise error

    monkeypatch.setattr(Link, "get", get)
    Link("http://here").wait(None, told.append)
    assert told == ["no answer: loading; waits up to 240 s more for it to be up"]
    assert not answers
    # One that has no such thing as a state is no vLLM, however long one waits.
    answers.append(RefusedError("answers /health with 404", 404))
    with pytest.raises(RefusedError, match="404"):
        Link("http://here").wait(None, told.append)


def test_a_server_that_hangs(
    served: Served, engine_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for as long as it says that it is well."""
    engine = engine_of("server", policy_model())
    engine.sync()
    monkeypatch.setattr(_vllm_link, "WATCH", 0.1)
    served.slow = 0.5
    assert engine(requests(1), HOW)
    asked = served.calls.count("/health")
    assert asked > 2
    served.hangs = True
    with pytest.raises(ServerError, match=r"no answer from the vLLM server .* \(timed out\)"):
        engine(requests(1), HOW)


def test_a_folder_that_is_not_there(engine_of: Any) -> None:
    with pytest.raises(ValueError, match="handover: there is no folder /nowhere"):
        engine_of("server", policy_model(), handover="/nowhere")


@pytest.mark.parametrize("by", ["another run", "a new start"])
def test_weights_that_others_changed(by: str, served: Served, engine_of: Any) -> None:
    engine = engine_of("server", policy_model())
    engine.sync()
    if by == "another run":
        engine_of("server", policy_model()).sync()
    else:
        served.held = "default"
    with pytest.raises(ServerError, match="has other weights than this run gave it"):
        engine(requests(), HOW)


def test_an_adapter_that_a_new_start_lost(served: Served, engine_of: Any) -> None:
    served.rank = 8
    engine = engine_of("server", lora_model())
    engine.sync()
    served.inside.adapters.clear()
    with pytest.raises(ServerError, match="answers /v1/completions with 404: The model"):
        engine(requests(), HOW)
    engine.close()


def grpo(
    out: Path, url: str, tokenizer: Path, adapters: bool, sharding: str = "none", **more: Any
) -> None:
    model = {"config": tiny_llama().config.to_dict(), "tokenizer": str(tokenizer)}
    one.train(
        model={**model, "dtype": "float32", **({"lora": {"r": 2}} if adapters else {})},
        data=[{"name": "sums", "path": SUMS, "kind": "check", "reward": "length"}],
        objective="grpo",
        rollout={
            "engine": {"name": "vllm", "base_url": url, "timeout": 5},
            "num_generations": 2,
            "max_completion_length": 3,
        },
        train={"max_steps": 4, "batch_size": 2, "save_steps": 1, "learning_rate": 1e-2},
        distributed={"sharding": sharding},
        out=out,
        **more,
    )


def ended(out: Path) -> dict[str, torch.Tensor]:
    """What a run ended with."""
    (file,) = (out / "model").glob("*.safetensors")
    return load_file(file)


SUMS = [{"prompt": f"{n} + {n} = ", "answer": str(2 * n)} for n in range(10)]


def test_a_run_goes_on_after_its_server_has_died(tokenizer_folder: Path, tmp_path: Path) -> None:
    """One line and no more; what `--resume` ends with is what a run without misfortune ends with."""
    with serving(Served(Other(), rank=8)) as up:
        grpo(tmp_path / "whole", up.url, tokenizer_folder, True)
    with (
        serving(Served(Other(), rank=8, last=6)) as up,
        pytest.raises(ServerError, match="go on with --resume") as error,
    ):
        grpo(tmp_path / "cut", up.url, tokenizer_folder, True)
    assert "\n" not in str(error.value)
    with serving(Served(Other(), rank=8), int(up.url.rpartition(":")[2])) as up:
        grpo(tmp_path / "cut", up.url, tokenizer_folder, True, resume=True)
    cut, whole = ended(tmp_path / "cut"), ended(tmp_path / "whole")
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[name], weight) for name, weight in whole.items())


def test_ranks_that_each_have_one_end_as_one_process_does(
    other: Other, model_folder: Path, tmp_path: Path
) -> None:
    """vLLM's end takes the process group with it that it finds, and the model is saved after that."""
    judge = tmp_path / "judge.py"
    judge.write_text("def letters(completion, **row):\n    return len(set(completion)) / 8\n")
    reward = {"name": "function", "path": f"{judge}:letters"}

    def run(sharding: str) -> int:
        one.train(
            model={"name": str(model_folder), "dtype": "float32"},
            data=[{"name": "sums", "path": SUMS, "kind": "check", "reward": reward}],
            objective="grpo",
            rollout={
                "engine": {"name": "vllm", "mode": "colocate"},
                **{"num_generations": 2, "max_completion_length": 3},
            },
            train={"max_steps": 2, "batch_size": 2, "learning_rate": 1e-2},
            distributed={"sharding": sharding} if sharding else {},
            out=tmp_path / f"out{sharding}",
            self_check=False,
        )
        return other.resets

    given = on_ranks(1, run, "", seconds=60)
    assert on_ranks(2, run, "full", seconds=60) == given * 2
    alone, ranks = ended(tmp_path / "out"), ended(tmp_path / "outfull")
    assert ranks.keys() == alone.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(ranks[name], weight, rtol=0, atol=2e-5)


@pytest.mark.parametrize("adapters", [False, True])
def test_ranks_whose_weights_lie_in_parts_share_a_server(
    adapters: bool, tokenizer_folder: Path, tmp_path: Path
) -> None:
    with serving(Served(Other(), rank=8)) as up:
        grpo(tmp_path / "alone", up.url, tokenizer_folder, adapters)
    with serving(Served(Other(), rank=8)) as up:
        given = (tmp_path / "parts", up.url, tokenizer_folder, adapters, "full")
        on_ranks(2, grpo, *given, seconds=60)
    alone, parts = ended(tmp_path / "alone"), ended(tmp_path / "parts")
    assert parts.keys() == alone.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=2e-5)
    assert bool(up.inside.names) == adapters
