"""Sampling, and a whole GRPO step, with a real pretrained model: `bench/rollout.py --real FOLDER`.

    python bench/rollout.py --real FOLDER --threads 1                      # of SmolLM2-135M-Instruct
    python bench/rollout.py --real FOLDER --modes spread --dtypes bfloat16 --rounds 2
    python bench/rollout.py --real FOLDER --modes full --vllm VENV/bin/python
    python bench/rollout.py --real FOLDER --modes grpo

`spread`, `full` and `apart` are sampling alone, at temperature 1, prompts of 30 to 70 tokens, 32
completions at once. `spread`: 24 prompts x 8 completions whose lengths are spread as in a geometric
distribution of mean 16, at most 64: the model is made to end after each token with the same probability,
whoever samples from it (vLLM is told lengths drawn from that distribution). `full`: 128 tokens each of 4
prompts x 8; `apart`: of 32 prompts. Contestants: our engine; the same where each batch ends before the
next begins, as it was; `model.generate` on repeated prompts, in batches of 32; vLLM on the CPU, from an
interpreter that has it.

`grpo`: questions of GSM8K as messages, 2 x 8 completions of at most 48 tokens, LoRA (r 16 on all linear
layers), GRPO (`dapo`, beta 0), fused AdamW, a plain function of the text as the reward. TRL at its best
on a CPU: the batch in one piece, no gradient checkpointing, `generate`'s dynamic cache.

Contestants are processes that take turns, as in `against_trl.py`, and a ratio is one of neighbouring
turns, by the clock and in processor time; with `--threads 1` the latter depends less on who else
computes, and targets are judged by it. The first step of each is not counted (of sampling it is a short
one). Results are added to `results/real_rollout.json`, a mode and a precision at a time.

Targets: `spread` at least 1.5 times as it was; `full` at least 1.5 times `generate`; vLLM at most 2
times as fast; a GRPO step at least 2 times as fast as TRL's.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from against_trl import RESULTS, SEED, Child, Pacer, Spec, machine, race, start, write_results

SCRIPT = Path(__file__).resolve()
BATCH = 32
MODES: dict[str, dict[str, Any]] = {
    "spread": {"prompts": 24, "group": 8, "limit": 64, "mean": 16},
    "full": {"prompts": 4, "group": 8, "limit": 128, "mean": 0},
    "apart": {"prompts": 32, "group": 1, "limit": 128, "mean": 0},
}
GRPO = {"problems": 2, "group": 8, "limit": 48}
TINY = {"prompts": 4, "group": 2, "limit": 6}
"""The same shapes in seconds, to see that it runs."""
SAMPLERS = {
    "onestage": {"kind": "ours", "refills": True},
    "onestage, as it was": {"kind": "ours", "refills": False},
    "generate": {"kind": "generate"},
}
AROUND_VLLM = {
    **{"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
    # Compiling takes longer than all that is sampled here.
    **{"TORCHDYNAMO_DISABLE": "1", "VLLM_USE_AOT_COMPILE": "0"},
}


# --- Children: who samples ------------------------------------------------------------------------


def prompts_of(spec: Spec, vocabulary: int) -> list[Any]:
    import numpy as np

    draw = np.random.default_rng(SEED)
    sizes = draw.integers(30, 71, spec["prompts"])
    return [draw.integers(2, vocabulary, size).astype(np.int32) for size in sizes]


def loaded(spec: Spec) -> tuple[Any, Any]:
    """The model, which ends after each token with the probability that the mode wants, and an end."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from onestage.models.attention import NAME

    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    attention = {"attn_implementation": NAME} if spec["kind"] == "ours" else {}
    dtype = getattr(torch, spec["dtype"])
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=dtype, **attention).eval()
    end, mean = tokenizer.eos_token_id, spec["mean"]

    def shift(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., end] = -torch.inf
        if mean:
            others = logits.float().logsumexp(-1)
            logits[..., end] = (others - torch.log(torch.tensor(mean - 1.0))).to(logits.dtype)
        return logits

    model.get_output_embeddings().register_forward_hook(shift)
    model.generation_config.eos_token_id = end
    return model, tokenizer


def at_its_pace(sample: Callable[[int], int], spec: Spec, pacer: Pacer) -> None:
    """Sample again and again, the first time a few tokens; `sample` says how many tokens it drew."""
    import torch

    tokens = []
    pacer.ready()
    with torch.no_grad():
        while True:
            tokens.append(sample(spec["limit"] if tokens else 2))
            if pacer.step():
                break
    pacer.say({"tokens": tokens})


def run_ours(spec: Spec) -> None:
    pacer = Pacer()
    from onestage.rollout.engines import Decoding, Request
    from onestage.rollout.engines.transformers import Transformers

    model, tokenizer = loaded(spec)
    engine = Transformers(model, tokenizer, BATCH)
    if not spec["refills"]:
        engine._refills = False
    prompts = prompts_of(spec, model.config.vocab_size)
    requests = [Request(ids, spec["group"], f"{n}") for n, ids in enumerate(prompts)]

    def sample(limit: int) -> int:
        drawn = engine(requests, Decoding(limit))
        assert not engine.remarks, engine.remarks
        return sum(len(one.ids) for group in drawn for one in group)

    at_its_pace(sample, spec, pacer)


def run_generate(spec: Spec) -> None:
    pacer = Pacer()
    import torch

    model, tokenizer = loaded(spec)
    end = tokenizer.eos_token_id
    rows = [ids for ids in prompts_of(spec, model.config.vocab_size) for _ in range(spec["group"])]
    torch.manual_seed(SEED)

    def sample(limit: int) -> int:
        return sum(batch(rows[n : n + BATCH], limit) for n in range(0, len(rows), BATCH))

    def batch(some: Sequence[Any], limit: int) -> int:
        longest = max(map(len, some))
        ids = torch.full((len(some), longest), end)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(some):
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, longest - len(prompt) :] = 1
        out = model.generate(
            **{"input_ids": ids, "attention_mask": mask, "max_new_tokens": limit},
            **{"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
            **{"eos_token_id": end, "pad_token_id": end},
        )[:, longest:]
        ended = (out == end).int()
        return int(torch.where(ended.any(1), ended.argmax(1) + 1, out.shape[1]).sum())

    at_its_pace(sample, spec, pacer)


def run_vllm(spec: Spec) -> None:
    """vLLM in this process, in an interpreter that has it."""
    pacer = Pacer()
    os.environ.update(AROUND_VLLM)
    import numpy as np
    from vllm import LLM, SamplingParams

    served = LLM(
        **{"model": spec["model"], "dtype": spec["dtype"], "max_num_seqs": BATCH},
        **{"max_model_len": 256, "enforce_eager": True, "seed": SEED, "disable_log_stats": True},
    )
    draw = np.random.default_rng(SEED)
    prompts = prompts_of(spec, 40_000)

    def sample(limit: int) -> int:
        asked, how = [], []
        for prompt in prompts:
            sizes = [limit] * spec["group"]
            if spec["mean"]:
                sizes = np.minimum(draw.geometric(1 / spec["mean"], spec["group"]), limit).tolist()
            for size in sizes:
                asked.append({"prompt_token_ids": prompt.tolist()})
                how.append(SamplingParams(temperature=1.0, max_tokens=size, ignore_eos=True))
        found = served.generate(asked, how, use_tqdm=False)
        return sum(len(one.outputs[0].token_ids) for one in found)

    at_its_pace(sample, spec, pacer)


def run_ready(spec: Spec) -> None:
    """Where the figures are taken."""
    pacer = Pacer()
    import torch

    names = ("torch", "transformers", "trl")
    pacer.say(
        {"threads": torch.get_num_threads(), "versions": {one: version(one) for one in names}}
    )


# --- The races ------------------------------------------------------------------------------------


def sampling(mode: str, dtype: str, options: Any, work: Path) -> dict[str, Any]:
    """Tokens a second of each contestant in each round."""
    sizes = MODES[mode] | ({**TINY, "mean": MODES[mode]["mean"] and 3} if options.tiny else {})
    told = {**sizes, "model": str(options.real.resolve()), "dtype": dtype}
    specs = {name: {**spec, **told} for name, spec in SAMPLERS.items()}
    # One batch has no places to give on, and three of `generate` take minutes.
    del specs["generate" if mode == "spread" else "onestage, as it was"]
    children = [start(name, spec, work, SCRIPT) for name, spec in specs.items()]
    if options.vllm:
        spec = {"kind": "vllm", **told}
        children.append(start("vLLM", spec, work, SCRIPT, options.vllm))
    race(children, options.rounds or 2, 1, lambda line: print(f"  {line}", flush=True))
    return {child.name: figures(child, child.final["tokens"][1:]) for child in children}


def figures(child: Child, tokens: Sequence[int]) -> dict[str, list[float]]:
    return {
        "tokens": list(tokens),
        "seconds": child.timed,
        "cpu_seconds": child.cpu_seconds[1:],
    }


def grpo(dtype: str, options: Any, work: Path) -> dict[str, Any]:
    """Seconds a step and of sampling, and tokens, of onestage and of TRL."""
    sizes = GRPO | ({"problems": 1, "group": 2, "limit": 4} if options.tiny else {})
    rounds = options.rounds or 2
    with gzip.open(options.data / "gsm8k.train.jsonl.gz", "rt") as lines:
        questions = [json.loads(line)["question"] for line in itertools.islice(lines, 200)]
    with (work / "problems.jsonl").open("w") as out:
        for question in questions[: sizes["problems"] * (rounds + 2)]:
            prompt = [{"role": "user", "content": question}]
            out.write(json.dumps({"prompt": prompt, "nums": [1, 2], "target": 3}) + "\n")
    told = {"work": str(work), "steps": 1 + rounds, "dtype": dtype, "lora": True, **sizes}
    told["model"] = str(options.real.resolve())
    script = SCRIPT.with_name("rollout.py")
    children = [
        start("onestage", {"kind": "onestage", **told}, work, script),
        start("TRL", {"kind": "trl", "pieces": 1, **told}, work, script),
    ]
    race(children, rounds, 1, lambda line: print(f"  {line}", flush=True))
    found = {}
    for child in children:
        last = slice(-len(child.timed), None)
        found[child.name] = figures(child, child.final["tokens"][last])
        found[child.name]["sampling_seconds"] = child.final["sampling"][last]
    return found


TARGETS = [
    ("spread", "onestage, as it was", 1.5),
    ("full", "generate", 1.5),
    ("apart", "generate", 1.5),
    ("spread", "vLLM", 0.5),
    ("full", "vLLM", 0.5),
    ("grpo", "TRL", 2.0),
]


def report(found: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each contestant, with the least and most of single rounds, and one for each target."""
    for race_, contestants in found.items():
        for name, entry in contestants.items():
            rates = [n / s for n, s in zip(entry["tokens"], entry["seconds"], strict=True)]
            print(f"{race_}, {name}: {_with_spread(entry['seconds'])} s, ", end="")
            print(f"{_with_spread(rates)} completion tokens a second")
        for mode, other, wanted in TARGETS:
            if race_.startswith(mode) and other in contestants:
                by = ("cpu_seconds", "seconds")
                cpu, clock = (_ratios(contestants, other, how, mode != "grpo") for how in by)
                verdict = "met   " if statistics.median(cpu) >= wanted else "MISSED"
                print(
                    f"{verdict} {race_}: {other} takes {_with_spread(cpu)} times the processor time, "
                    f"{_with_spread(clock)} by the clock (target {wanted:g})"
                )


def _ratios(contestants: Mapping[str, Any], other: str, how: str, by_token: bool) -> list[float]:
    """How many times as long the other takes than we do, in each round."""
    each = []
    for name in (other, "onestage"):
        entry = contestants[name]
        many = entry["tokens"] if by_token else [1] * len(entry["tokens"])
        each.append([s / n for s, n in zip(entry[how], many, strict=True)])
    return [a / b for a, b in zip(*each, strict=True)]


def _with_spread(each: Sequence[float]) -> str:
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def compete(options: argparse.Namespace) -> None:
    """What `bench/rollout.py --real` runs."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rollout-") as folder:
        work = Path(folder)
        ready = start("machine", {"kind": "ready"}, work, SCRIPT)
        ready.process.wait()
        where = machine(ready.ready)
        for mode, dtype in itertools.product(options.modes, options.dtypes):
            print(f"{mode}, {dtype}:", flush=True)
            measure = grpo if mode == "grpo" else lambda *told, m=mode: sampling(m, *told)
            found[f"{mode} {dtype}"] = measure(dtype, options, work)
    report(found)
    if not options.no_save:
        file = RESULTS / "real_rollout.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        told = {name: {"machine": where, **entry} for name, entry in found.items()}
        write_results("real_rollout", before | told)


KINDS = {"ours": run_ours, "generate": run_generate, "vllm": run_vllm, "ready": run_ready}

if __name__ == "__main__":
    given = json.loads(sys.argv[sys.argv.index("--child") + 1])
    KINDS[given["kind"]](given)
