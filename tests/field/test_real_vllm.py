"""A real vLLM, as a server and in this process, with a real model; skipped where one of them is absent.

vLLM for the CPU wants an environment of its own (`docs/rollout.md`): run this file there. One server is
started for all of it; `ONESTAGE_VLLM` names one that is running (and will not be ended by a test).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.endpoint import Endpoint, endpoint, sends  # noqa: F401
from support.ranks import on_ranks
from support.tiny import make_tokenizer, sharpen, tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import onestage as one
from onestage.models.policy import Policy
from onestage.rollout.engines import Decoding, Request, make
from onestage.rollout.engines._agreement import gap
from onestage.rollout.engines._vllm_link import Link, ServerError
from onestage.rollout.engines._vllm_transfer import Native
from onestage.rollout.engines._vllm_worker import EXTENSION
from onestage.rollout.evaluation import evaluate
from onestage.rollout.served import check_served

FOLDER = Path(os.environ.get("ONESTAGE_SMOLLM2", "not there"))
START = 400
"""Seconds that a server may take to be up."""
NEAR = 1e-3
"""Nats a token; measured are at most 1.6e-5."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None or not (FOLDER / "config.json").is_file(),
    reason="no vLLM, or no real model",
)
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"What is {n} + {n}? One number."}],
        "answer": str(2 * n),
    }
    for n in range(2, 12)
]
OPTIONS = [
    *("--dtype", "float32", "--max-model-len", "512", "--enforce-eager"),
    *("--enable-lora", "--max-lora-rank", "16", "--worker-extension-cls", EXTENSION),
    # As a model's generation_config.json may have it; what is asked must not be drawn so.
    *("--override-generation-config", json.dumps({"repetition_penalty": 1.5, "top_k": 3})),
]
AROUND = {
    **{"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
    # Compiling takes longer than all that is sampled here.
    **{"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_USE_AOT_COMPILE": "0"},
    # The workers read our class, also where only this checkout is on the path.
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
}


PROCESSES: dict[str, subprocess.Popen[bytes]] = {}
"""Of the servers that were started here, by their address."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    if "ONESTAGE_VLLM" in os.environ:
        yield os.environ["ONESTAGE_VLLM"]
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(FOLDER)]
    with (tmp_path_factory.mktemp("vllm") / "log").open("w") as log:
        process = subprocess.Popen(
            [*module, "--host", "127.0.0.1", "--port", port, *OPTIONS],
            env=os.environ | AROUND,
            stdout=log,
            stderr=log,
            # With workers of its own, which outlive it where it is killed.
            start_new_session=True,
        )
        link = Link(f"http://127.0.0.1:{port}")
        try:
            link.wait(START)
            PROCESSES[link.base_url] = process
            yield link.base_url
        finally:
            process.terminate()
            process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def grpo(
    out: Path,
    engine: dict[str, Any],
    steps: int,
    callbacks: Any = (),
    reward: Any = "match",
    sharding: str = "none",
    **model: Any,
) -> list[dict[str, Any]]:
    """The lines of a run's metrics that tell the engine's gap: one a step."""
    one.train(
        model={"name": str(FOLDER), "dtype": "float32", **model},
        data=[{"name": "sums", "path": ROWS, "kind": "check", "reward": reward}],
        objective="grpo",
        rollout={
            "engine": {"name": "vllm", **engine},
            "num_generations": 4,
            "max_completion_length": 8,
        },
        train={"max_steps": steps, "batch_size": 1, "learning_rate": 1e-3, "logging_steps": 1},
        distributed={"sharding": sharding},
        out=out,
        callbacks=callbacks,
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    found = [line for line in lines if "rollout/engine_gap" in line]
    assert len(found) == steps
    return found


def test_what_is_served_is_told_from_other_models(server: str, tmp_path: Path) -> None:
    """`onestage serve --check`: base and adapter as they are; a server that forgot the adapter."""
    whole = one.load(str(FOLDER), "float32")
    found = check_served(whole, server)
    assert found.holds
    assert found.mean < NEAR
    assert not found.notes
    model = adapted(smollm2(), 0.02)
    model.save_pretrained(tmp_path / "adapter")
    policy = Policy(model, AutoTokenizer.from_pretrained(FOLDER))
    told = {"lora_name": "mine", "lora_path": str(tmp_path / "adapter")}
    Link(server).post("/v1/load_lora_adapter", told)
    try:
        assert check_served(policy, server).holds
        forgotten = check_served(policy, server, str(FOLDER), allowed=100)
        assert not forgotten.holds
        assert forgotten.without is not None
        assert forgotten.without < NEAR < forgotten.mean
    finally:
        Link(server).post("/v1/unload_lora_adapter", {"lora_name": "mine"})


@pytest.mark.parametrize("lora", ["hot", "merged"])
def test_twenty_steps_of_grpo_with_a_server(
    lora: str, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step has another adapter; the server's log-probabilities stay those of the policy."""
    engine = {"mode": "server", "base_url": server, "lora": "auto" if lora == "hot" else lora}
    lines = grpo(tmp_path / "out", engine, 20 if lora == "hot" else 3, lora={"r": 8})
    assert max(line["rollout/engine_gap"] for line in lines) < NEAR
    assert ("adapters as they are" in capsys.readouterr().out) == (lora == "hot")
    names = [model["id"] for model in Link(server).get("/v1/models")["data"]]
    assert names == [str(FOLDER)]  # what was loaded was unloaded


def test_steps_of_grpo_on_all_weights_with_a_server(server: str, tmp_path: Path) -> None:
    lines = grpo(tmp_path / "out", {"mode": "server", "base_url": server}, 2)
    assert max(line["rollout/engine_gap"] for line in lines) < NEAR


def smollm2() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_a_servers_own_ways_to_draw_are_not_taken(server: str) -> None:
    """Its penalty changes what it says by itself, and nothing of what it says to us."""
    model, tokenizer = smollm2(), AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer("One, two, one, two, one, two, one,").input_ids
    asked = {"prompt": ids, "max_tokens": 16, "temperature": 0}
    alone = Link(server).post("/v1/completions", {"model": str(FOLDER), **asked})
    whole = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)
    plain = whole[0, len(ids) :].tolist()
    assert alone["choices"][0]["text"] != tokenizer.decode(plain, skip_special_tokens=True)
    engine = make({"name": "vllm", "base_url": server}, model, tokenizer)
    engine.sync()
    (drawn,) = engine([Request(np.array(ids, np.int32), 1, "key")], Decoding(16, temperature=0.0))
    assert drawn[0].ids.tolist() == plain
    engine.close()


def adapted(model: Any, spread: float = 0.05) -> Any:
    """LoRA on all linear layers, with numbers in it."""
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=spread)
    return model


def engine_gap(engine: Any) -> float:
    """After the policy's weights were handed over, whatever they are."""
    ids = engine.tokenizer("The capital of France is").input_ids
    asked = [Request(np.array(ids, np.int32), 2, f"key {n}") for n in range(2)]
    with (policy := Policy(engine.model)).evaluating():
        engine.sync()
        return gap(policy, asked, engine(asked, Decoding(8)))


def test_a_server_that_does_not_fit_is_refused(server: str) -> None:
    """It serves the same all the time; what is compared with it is another model each time."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    options = {"name": "vllm", "base_url": server, "timeout": 5}
    with pytest.raises(ValueError, match="which has another tokenizer than the policy"):
        make(options, tiny_llama(), make_tokenizer())
    narrow = tiny_llama()
    narrow.resize_token_embeddings(len(tokenizer))
    with pytest.raises(ValueError, match="49152 tokens of 576 numbers there, 49152 of 32 here"):
        make(options, narrow, tokenizer)
    engine = make(options, adapted(smollm2()), tokenizer)
    assert (
        engine.hot
    )  # by now the server has weights that an earlier test left, and was given these
    assert engine_gap(engine) < NEAR
    sharpen(engine.model, 1.5)  # the base too, which no adapter can hand over
    assert engine_gap(engine) > engine.tolerance
    Link(server).post("/v1/unload_lora_adapter", {"lora_name": engine.backend.answers_as})
    with pytest.raises(ServerError, match="answers /v1/completions with 404"):
        engine_gap(engine)
    engine.close()


def test_weights_go_by_vllms_own_transfer_as_it_wants_to_be_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All but the transport: without a GPU there is none, so that NCCL itself was never run."""
    nccl = importlib.import_module("vllm.distributed.weight_transfer.nccl_engine")
    clients = importlib.import_module("vllm.distributed.weight_transfer.clients")
    asked: list[tuple[str, Any]] = []
    sent: list[list[tuple[str, Tensor]]] = []
    ends = SimpleNamespace(destroy=lambda: asked.append(("destroyed", None)))
    monkeypatch.setattr(nccl, "open_trainer_endpoint", lambda info: ends)
    monkeypatch.setattr(
        nccl, "packed_nccl_broadcast_producer", lambda iterator, **how: sent.append(list(iterator))
    )
    monkeypatch.setattr(
        clients.HTTPVLLMWeightSyncClient, "_post", lambda _, *call: asked.append((*call, None)[:2])
    )
    given = [("a", torch.ones(2, 3)), ("b", torch.zeros(4, dtype=torch.bfloat16))]
    transfer = Native(Link("http://127.0.0.1:1"), "nccl", 2, 51216)
    for _ in range(2):
        transfer.send(lambda: iter(given))
    transfer.close()
    told = {"names": ["a", "b"], "dtype_names": ["float32", "bfloat16"], "shapes": [[2, 3], [4]]}
    once = [
        ("start_weight_update", None),
        ("update_weights", {"update_info": told}),
        ("finish_weight_update", None),
    ]
    (begun, *rest) = asked
    assert begun[0] == "init_weight_transfer_engine"
    assert begun[1]["init_info"]["world_size"] == 3
    assert rest == [*once, *once, ("destroyed", None)]
    assert [[name for name, _ in one] for one in sent] == [["a", "b"]] * 2


def test_twenty_steps_of_grpo_with_adapters_handed_over_each_time(tmp_path: Path) -> None:
    """Every step has other weights; vLLM's log-probabilities stay those of the policy."""
    for name, value in AROUND.items():
        os.environ.setdefault(name, value)
    engine = {"mode": "colocate", "dtype": "float32", "max_model_len": 256}
    lines = grpo(tmp_path / "out", engine, 20, lora={"r": 8})
    gaps = [line["rollout/engine_gap"] for line in lines]
    assert len(gaps) == 20
    assert max(gaps) < 1e-3


@pytest.mark.parametrize("adapters", [True, False])
def test_ranks_in_parts_that_each_have_a_vllm(adapters: bool, tmp_path: Path) -> None:
    """vLLM finds the ranks' process group, and ends before the model is saved by it. All of both parts
    is trained and saved, and plain transformers and PEFT load it."""
    judge = tmp_path / "judge.py"
    judge.write_text("def letters(completion, **row):\n    return len(set(completion)) / 32\n")
    reward = {"name": "function", "path": f"{judge}:letters"}
    engine = {"mode": "colocate", "dtype": "float32", "max_model_len": 256}

    def work() -> list[float]:
        for name, value in AROUND.items():
            os.environ.setdefault(name, value)
        how = {"lora": {"r": 8}} if adapters else {}
        lines = grpo(tmp_path / "out", engine, 2, (), reward, "full", **how)
        return [line["rollout/engine_gap"] for line in lines]

    gaps, _ = on_ranks(2, work, seconds=580)
    print(f"gaps (nats a token): {gaps}")
    assert max(gaps) < NEAR
    folder = tmp_path / "out" / "model"
    start = smollm2()
    if adapters:
        trained = PeftModel.from_pretrained(start, folder)
        moved = {n: p for n, p in trained.named_parameters() if ".lora_B." in n}
        assert len(moved) == 7 * 30
    else:
        trained = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        before = dict(start.named_parameters())
        moved = {n: p - before[n] for n, p in trained.named_parameters()}
        assert len(moved) == len(before)
    for name, change in moved.items():
        for part in change.detach().chunk(2):  # as it lay on two ranks
            assert part.abs().max() > 1e-4, name


def test_whole_weights_and_adapters_as_they_are_in_this_process() -> None:
    for name, value in AROUND.items():
        os.environ.setdefault(name, value)
    options = {"name": "vllm", "mode": "colocate", "dtype": "float32", "max_model_len": 256}
    model = adapted(smollm2())
    engine = make({**options, "lora": "hot"}, model, AutoTokenizer.from_pretrained(FOLDER))
    assert engine.hot
    assert engine_gap(engine) < NEAR
    # The same vLLM, given whole weights.
    engine.backend.adapter = None
    engine.hot, engine.model = False, sharpen(smollm2(), 1.2)
    assert engine_gap(engine) < NEAR
    engine.close()


def test_a_judge_on_vllm_that_fails_every_fifth_time_loses_nothing(
    server: str,
    endpoint: Endpoint,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The same grades as behind a line that always holds. That it writes grades is asked of vLLM."""
    rows = [
        {"question_id": n, "category": "stem", "turns": [f"What is {n}?", f"And {n} and {n}?"]}
        for n in range(6)
    ]
    (tmp_path / "mt_bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    link, broken = Link(server), True

    def act(handler: Any, number: int, text: str) -> None:
        if broken and number % 5 == 2:
            sends(handler, 503, "busy")
            return
        asked = endpoint.seen[number] | {"structured_outputs": {"regex": "Score: [1-9]"}}
        sends(handler, 200, json.dumps(link.post("/v1/chat/completions", asked)))

    endpoint.act, found = act, []
    judge = {"model": str(FOLDER), "base_url": endpoint.url, "backoff": 0, "max_tokens": 16}
    judge |= {"concurrency": 1}  # so that it is every fifth
    for out in ("broken", "whole"):
        suite = {"name": "mt_bench", "max_completion_length": 8}
        place = tmp_path / out
        evaluated = evaluate(
            [str(FOLDER)], [suite], place, base=None, data=tmp_path, judge=judge, dtype="float32"
        )
        found.append(evaluated.models[0].found["mt_bench"])
        broken = False
    assert not found[0].failures
    assert found[0].scores == found[1].scores
    assert len(found[0].scores) == 6
    assert len(endpoint.seen) > 2 * (1 + 12)


def test_an_evaluation_by_vllm_finds_what_ours_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`backend: vllm`, which is lm-eval's own class, and `--engine vllm`: an adapter, not its base."""
    pytest.importorskip("lm_eval.tasks", reason="extra: eval")
    version = metadata.version
    # lm-eval asks the package's version by name, and vLLM for the CPU goes by another.
    monkeypatch.setattr(
        metadata, "version", lambda name: "0.32.0+cpu" if name == "vllm" else version(name)
    )
    for name, value in AROUND.items():
        os.environ.setdefault(name, value)
    model = adapted(smollm2(), 0.03)
    model.save_pretrained(tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "whole")
    for place in ("adapter", "whole"):
        AutoTokenizer.from_pretrained(FOLDER).save_pretrained(tmp_path / place)
    rows = [
        {"q": f"Question: {n} + {n}?\nAnswer:", "c": [str(2 * n), str(3 * n), "nothing"]}
        for n in range(2, 10)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = {
        **{"dataset_path": "json", "test_split": "test", "doc_to_text": "{{q}}"},
        "dataset_kwargs": {
            "data_files": {"test": str(tmp_path / "rows.jsonl")},
            "cache_dir": str(tmp_path / "cache"),
        },
    }
    likely = {"output_type": "multiple_choice", "doc_to_choice": "{{c}}", "doc_to_target": 0}
    likely |= {"metric_list": [{"metric": "acc"}]}
    written = {"output_type": "generate_until", "doc_to_target": "{{c[0]}}"}
    written |= {"generation_kwargs": {"until": ["Question:"], "max_gen_toks": 12}}
    written |= {"metric_list": [{"metric": "exact_match"}]}
    tasks = []
    for name, task in (("likely", likely), ("written", written)):
        tasks.append(str(tmp_path / f"{name}.yaml"))
        Path(tasks[-1]).write_text(json.dumps({"task": name, **both, **task}))
    vllm = {"name": "vllm", "mode": "colocate", "dtype": "float32", "max_model_len": 256}

    def answers(model: str, asked: list[str], engine: Any = "transformers", **how: Any) -> Any:
        suite = {"name": "lm_eval", "tasks": asked, **how}
        out, named = tmp_path / f"{model}{len(how)}{len(str(engine))}", str(tmp_path / model)
        found = evaluate([named], [suite], out, base=None, engine=engine, dtype="float32")
        return {i: a["resps"] for i, a in found.models[0].found["lm_eval"].answers.items()}

    ours, theirs = answers("whole", tasks), answers("whole", tasks, backend="vllm")
    assert len(ours) == 16
    for item, said in ours.items():
        if item.startswith("likely"):
            near = pytest.approx([one[0] for one in said], abs=NEAR)
            assert [one[0] for one in theirs[item]] == near
        else:
            assert theirs[item] == said
    with pytest.raises(ValueError, match=r"merge .* into its base first"):
        answers("adapter", tasks, backend="vllm")
    by_engine = answers("adapter", tasks[1:], engine=vllm)
    assert by_engine == {item: ours[item] for item in by_engine}
    (tmp_path / "base").symlink_to(FOLDER)
    assert answers("base", tasks[1:]) != by_engine  # the adapter says something else


def test_a_server_that_dies_in_the_middle(server: str, tmp_path: Path) -> None:
    """Last of all: nobody can ask it any more."""

    class Killing(one.Callback):
        def step(self, run: Any, loss: float) -> None:
            if run.step == 1:
                os.killpg(PROCESSES[server].pid, signal.SIGKILL)

    if server not in PROCESSES:
        pytest.skip("the server is not ours to end")
    with pytest.raises(ServerError, match="go on with --resume") as error:
        grpo(tmp_path / "out", {"base_url": server}, 3, callbacks=[Killing()], lora={"r": 8})
    assert "\n" not in str(error.value)
