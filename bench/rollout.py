"""Online training: sampling, the update and a whole GRPO step, ours and TRL's.

    python bench/rollout.py --threads 1            # some 5 minutes, much more on large --vocabularies
    python bench/rollout.py --threads 1 --quick
    python bench/rollout.py --threads 1 --real FOLDER    # a real model: `real_rollout.py`

A Llama with random weights (hidden size 256, 4 layers) and a tokenizer of made-up words, prompts of 50
to 70 tokens, 8 problems a step with 8 completions each of at most 96 tokens, GRPO (`dapo`, beta 0, one
update a sampling), a plain function of the text as the reward for both. 2 % of the vocabulary are end
tokens, so that a random model's completions end at different times. onestage runs its real loop, TRL
its real GRPOTrainer on `model.generate` (no vLLM), without gradient checkpointing, its batch in one
piece or in four. Contestants are processes that take turns, as in `against_trl.py`. They do not sample
the same tokens, so the time of sampling, taken inside the steps, is compared by completion token.

`update`: one step (packing, forward, backward, AdamW) on a group of 8 completions whose prompt, and
hint, stands once, against the same with prompts repeated, rows of 1,024 tokens; alternately, in one
process.

Targets: sampling not slower than TRL's; the whole step 1.5 times as fast; the update with a prompt as
long as the answers 1.5 times as fast, gradients equal to 1e-5 of their largest entry.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from against_trl import (
    DATA,
    LEARNING_RATE,
    SEED,
    Child,
    Pacer,
    Spec,
    machine,
    paced,
    race,
    run_matmul,
    set_threads,
    start,
    write_results,
)
from length import length_reward
from real_rollout import compete

SCRIPT = Path(__file__).resolve()
PROBLEMS, GROUP, LIMIT = 8, 8, 96
ENDS = 0.02
"""Part of the vocabulary that ends a completion."""
SIZES: Spec = {
    **{"problems": PROBLEMS, "group": GROUP, "limit": LIMIT},
    **{"dtype": "float32", "lora": False},
}
"""Of a step, where a child is not told otherwise."""
CONTESTANTS = {"TRL": 1, "TRL, batch in four": 4}


# --- Children -------------------------------------------------------------------------------------


def prepare(spec: Spec) -> None:
    """Model, tokenizer and problems."""
    pacer = Pacer()
    from importlib.metadata import version

    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    work, size = Path(spec["work"]), spec["vocabulary"]
    words = {"<pad>": 0, "<end>": 1} | {f"w{n}": n for n in range(2, size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>"
    )
    model = LlamaForCausalLM(config(size))
    model.generation_config.eos_token_id = list(range(1, 1 + int(ENDS * size)))
    model.save_pretrained(work / "model")
    wrapped.save_pretrained(work / "model")
    draw = random.Random(SEED)
    with (work / "problems.jsonl").open("w") as out:
        for _ in range(spec["problems"]):
            prompt = " ".join(f"w{draw.randrange(2, size)}" for _ in range(draw.randint(50, 70)))
            out.write(json.dumps({"prompt": prompt, "nums": [1, 2], "target": 3}) + "\n")
    pacer.say(
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        }
    )


def config(vocabulary: int) -> Any:
    import torch
    from transformers import LlamaConfig

    torch.manual_seed(0)
    return LlamaConfig(
        **{"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4},
        **{"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": vocabulary},
        **{"max_position_embeddings": 4096, "bos_token_id": None, "pad_token_id": 0},
        eos_token_id=1,
    )


def model_of(spec: Spec) -> str:
    return str(spec.get("model") or Path(spec["work"]) / "model")


class Watch:
    """Seconds and completion tokens of each sampling."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []

    def around(self, sample: Any, count: Any) -> Any:
        @functools.wraps(sample)
        def timed(*given: Any, **more: Any) -> Any:
            began = time.perf_counter()
            found = sample(*given, **more)
            self.seconds.append(time.perf_counter() - began)
            self.tokens.append(count(found))
            return found

        return timed


def run_onestage(spec: Spec) -> None:
    pacer, watch = Pacer(), Watch()
    from onestage.rollout.engines.transformers import Transformers
    from onestage.training.callbacks import Callback
    from onestage.training.pipeline import carry_out
    from onestage.training.recipe import parse_recipe

    class Paced(Callback):
        def begin(self, run: Any) -> None:
            pacer.ready()

        def step(self, run: Any, loss: float) -> None:
            run.stop = pacer.step()

    work, sizes = Path(spec["work"]), SIZES | spec
    problems = {"name": "problems", "path": str(work / "problems.jsonl"), "kind": "check"}
    adapters = {"lora": {"r": 16, "alpha": 32}} if sizes["lora"] else {}
    recipe = {
        "model": {"name": model_of(spec), "dtype": sizes["dtype"], **adapters},
        "data": [{**problems, "reward": f"{SCRIPT.with_name('length.py')}:Length"}],
        "objective": {"name": "grpo"},
        "rollout": {"num_generations": sizes["group"], "max_completion_length": sizes["limit"]},
        "train": {
            **{"max_steps": spec["steps"], "batch_size": sizes["problems"]},
            **{"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant"},
            **{"optim": "adamw_torch_fused", "seed": SEED, "max_length": 512},
            **{"max_grad_norm": 1.0, "logging_steps": 1_000_000},
        },
    }
    Transformers.__call__ = watch.around(  # type: ignore[method-assign]
        Transformers.__call__, lambda found: sum(len(c.ids) for group in found for c in group)
    )
    with tempfile.TemporaryDirectory(dir=work) as folder:
        recipe["cache_dir"] = f"{folder}/cache"
        carry_out(parse_recipe(recipe), Path(folder) / "run", self_check=False, callbacks=[Paced()])
    pacer.say({"sampling": watch.seconds, "tokens": watch.tokens})


def run_trl(spec: Spec) -> None:
    pacer, watch = Pacer(), Watch()
    from datasets import Dataset, disable_progress_bars
    from trl import GRPOConfig, GRPOTrainer

    disable_progress_bars()
    work, pieces, sizes = Path(spec["work"]), spec["pieces"], SIZES | spec
    from peft import LoraConfig

    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")

    def reward(completions: Any, **other: Any) -> list[float]:
        return [
            length_reward(one if isinstance(one, str) else one[0]["content"]) for one in completions
        ]

    rows = [json.loads(line)["prompt"] for line in (work / "problems.jsonl").open()]
    with tempfile.TemporaryDirectory(dir=work) as folder:
        trainer = GRPOTrainer(
            model=model_of(spec),
            reward_funcs=reward,
            peft_config=lora if sizes["lora"] else None,
            args=GRPOConfig(
                output_dir=folder,
                max_steps=spec["steps"],
                per_device_train_batch_size=sizes["problems"] * sizes["group"] // pieces,
                gradient_accumulation_steps=pieces,
                num_generations=sizes["group"],
                max_completion_length=sizes["limit"],
                **{"loss_type": "dapo", "beta": 0.0, "top_k": 0, "top_p": 1.0, "temperature": 1.0},
                **{"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant"},
                **{"optim": "adamw_torch_fused", "weight_decay": 0.0, "max_grad_norm": 1.0},
                **{"gradient_checkpointing": False, "bf16": False, "use_cpu": True, "seed": SEED},
                **{"logging_steps": 1_000_000, "report_to": "none", "save_strategy": "no"},
                **{"shuffle_dataset": False, "disable_tqdm": True},
                model_init_kwargs={"dtype": sizes["dtype"]},
            ),
            train_dataset=Dataset.from_dict({"prompt": rows}),
            callbacks=[paced(pacer)],
        )
        trainer._generate_single_turn = watch.around(
            trainer._generate_single_turn, lambda found: sum(map(len, found[0]))
        )
        trainer.train()
        pacer.say({"sampling": watch.seconds, "tokens": watch.tokens})


def run_update(spec: Spec) -> None:
    """A step is one update with prompts shared and one with prompts repeated."""
    pacer = Pacer()
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from onestage.data.encoded import Encoded, Sampled
    from onestage.data.packing import pack_records
    from onestage.data.record import ROLES
    from onestage.data.trees import TokenPath
    from onestage.models.attention import NAME
    from onestage.models.policy import Policy
    from onestage.objectives.grpo import GRPO
    from onestage.training.terms import Terms

    prompt, hint, answer = spec["prompt"], spec["hint"], spec["answer"]
    model = AutoModelForCausalLM.from_config(config(1000), attn_implementation=NAME)
    policy, terms = Policy(model), Terms({"it": GRPO()}, {("s", "check"): "it"})
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.0, fused=True)
    random_ids = np.random.default_rng(SEED)
    begin = random_ids.integers(2, 1000, size=prompt + hint).astype(np.int32)
    roles, scores, paths, kept = [], [], [], []
    for number in range(GROUP):
        ids = random_ids.integers(2, 1000, size=answer).astype(np.int32)
        spans, responses = [(prompt + hint, prompt + hint + answer)], []
        if hint and not number:
            spans.insert(0, (prompt, prompt + hint))
            responses.append(0)
            roles.append(ROLES.index("hint"))
            scores.append(float("nan"))
        responses.append(len(roles))
        roles.append(ROLES.index("response"))
        scores.append(number / GROUP)
        paths.append(TokenPath(np.concatenate([begin, ids]), tuple(spans), tuple(responses)))
        advantage = (number - (GROUP - 1) / 2) / GROUP
        kept.append(np.full(sum(b - a for a, b in spans), advantage, np.float32))
    sampled = Sampled(tuple(roles), {"advantage": tuple(kept)})
    record = Encoded("check", tuple(paths), tuple(scores), 1.0, "s", "0", sampled=sampled)
    # Repeated, each completion is a record of its own, so that rows are no longer than they need be.
    apart = [
        replace(
            record,
            paths=(replace(path, responses=tuple(range(len(path.spans)))),),
            scores=tuple(scores[n] for n in path.responses),
            sampled=Sampled(tuple(roles[n] for n in path.responses), {"advantage": (some,)}),
        )
        for path, some in zip(paths, kept, strict=True)
    ]

    def update(share: bool) -> tuple[float, list[torch.Tensor], int]:
        began = time.perf_counter()
        batch = pack_records([record] if share else apart, 1024, share=share)
        (count,) = terms.count(batch.records).values()
        optimizer.zero_grad(set_to_none=True)
        for row in batch.rows:
            logp_K = policy(row)
            losses = terms.losses(row, batch, {"logp": logp_K})
            (losses["it"].loss_U.sum() / count).backward()
        gradients = [p.grad for p in policy.parameters() if p.grad is not None]
        optimizer.step()
        return time.perf_counter() - began, gradients, sum(map(len, batch.rows))

    seconds: dict[bool, list[float]] = {True: [], False: []}
    pacer.ready()
    while True:
        once, repeated = update(True), update(False)
        seconds[True].append(once[0])
        seconds[False].append(repeated[0])
        if pacer.step():
            break
    scale = max(float(g.abs().max()) for g in repeated[1])
    gaps = [float((a - b).abs().max()) for a, b in zip(once[1], repeated[1], strict=True)]
    pacer.say(
        {
            "once": seconds[True][1:],
            "repeated": seconds[False][1:],
            "positions": [once[2], repeated[2]],
            "gradient_difference": max(gaps) / scale,
        }
    )


KINDS = {
    "prepare": prepare,
    "onestage": run_onestage,
    "trl": run_trl,
    "update": run_update,
    "matmul": run_matmul,
}


# --- The races ------------------------------------------------------------------------------------


def whole_steps(work: Path, rounds: int) -> dict[str, Any]:
    """The contestants' steps in turns; figures by contestant."""
    told = {"work": str(work), "steps": 1 + rounds}
    specs: dict[str, Spec] = {"onestage": {"kind": "onestage", **told}}
    for name, pieces in CONTESTANTS.items():
        specs[name] = {"kind": "trl", "pieces": pieces, **told}
    children = [start(name, spec, work, SCRIPT) for name, spec in specs.items()]
    race(children, rounds, 1, lambda line: print(line, flush=True))
    ours = children[0]
    return {child.name: _figures(child, ours) for child in children}


def _figures(child: Child, ours: Child) -> dict[str, Any]:
    sampling, tokens = child.final["sampling"][-len(child.timed) :], child.final["tokens"]
    tokens = tokens[-len(child.timed) :]
    our_sampling = ours.final["sampling"][-len(ours.timed) :]
    our_tokens = ours.final["tokens"][-len(ours.timed) :]
    by_token = [s / n for s, n in zip(sampling, tokens, strict=True)]
    our_by_token = [s / n for s, n in zip(our_sampling, our_tokens, strict=True)]
    updates = [a - b for a, b in zip(child.timed, sampling, strict=True)]
    our_updates = [a - b for a, b in zip(ours.timed, our_sampling, strict=True)]
    return {
        "seconds": child.timed,
        "sampling_seconds": sampling,
        "completion_tokens": tokens,
        "sampled_tokens_a_second": [1 / s for s in by_token],
        "ratio_step": _ratio(child.timed, ours.timed),
        "ratio_cpu_step": _ratio(child.cpu_seconds[1:], ours.cpu_seconds[1:]),
        "ratio_sampling_by_token": _ratio(by_token, our_by_token),
        "ratio_rest": _ratio(updates, our_updates),
    }


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Of neighbouring steps: the median and the smallest."""
    found = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(found), "min": min(found)}


UPDATES = {
    "prompt as long as the answers": {"prompt": 128, "hint": 0, "answer": 128},
    "with a hint of half of it": {"prompt": 128, "hint": 64, "answer": 128},
    "prompt 4 times the answers": {"prompt": 512, "hint": 0, "answer": 128},
}


def updates(work: Path, repeats: int) -> dict[str, Any]:
    found = {}
    for name, sizes in UPDATES.items():
        child = start("update", {"kind": "update", **sizes}, work, SCRIPT)
        child.go(1 + repeats)
        child.end()
        final = child.final
        found[name] = {**sizes, **final, "ratio": _ratio(final["repeated"], final["once"])}
        print(f"  {name}: {found[name]['ratio']}", flush=True)
    return found


def report(steps: dict[str, Any], update: dict[str, Any]) -> None:
    checks = []
    for vocabulary, contestants in steps.items():
        for name, entry in contestants.items():
            print(
                f"V = {vocabulary}, {name}: {statistics.median(entry['seconds']):.2f} s a step, "
                f"{statistics.median(entry['sampled_tokens_a_second']):,.0f} tokens/s sampled; "
                f"onestage is faster by {entry['ratio_step']['median']:.2f} (a step), "
                f"{entry['ratio_sampling_by_token']['median']:.2f} (sampling), "
                f"{entry['ratio_rest']['median']:.2f} (the rest)"
            )
        best = [entry for name, entry in contestants.items() if name != "onestage"]
        sampling = min(entry["ratio_sampling_by_token"]["median"] for entry in best)
        checks.append((f"V = {vocabulary}: sampling", sampling, 1.0, True))
        step = min(entry["ratio_step"]["median"] for entry in best)
        checks.append((f"V = {vocabulary}: whole step", step, 1.5, True))
    for name, entry in update.items():
        checks.append((f"update, {name}", entry["ratio"]["median"], 1.5, True))
        checks.append((f"gradient, {name}", entry["gradient_difference"], 1e-5, False))
    for name, value, bound, above in checks:
        met = value >= bound if above else value <= bound
        print(f"{'met   ' if met else 'MISSED'} {name}: {value:.3g} (target {bound:g})")


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[1000], help="sizes")
    parser.add_argument("--rounds", type=int, help="steps of each contestant (default 5, quick 2)")
    parser.add_argument("--threads", type=int, help="of each contestant (default: torch's own)")
    parser.add_argument("--no-save", action="store_true", help="do not write the results file")
    parser.add_argument("--real", type=Path, help="folder of a real model: see real_rollout.py")
    parser.add_argument("--modes", nargs="+", default=["spread", "full", "grpo"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--vllm", help="with --real: an interpreter that has vLLM for the CPU")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    parser.add_argument(
        "--tiny", action="store_true", help="with --real: in seconds, to see it run"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        spec = json.loads(options.child)
        KINDS[spec["kind"]](spec)
        return
    set_threads(options.threads)
    if options.real:
        compete(options)
        return
    rounds = options.rounds or (2 if options.quick else 5)
    steps: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rollout-") as folder:
        update = updates(Path(folder), 3 * rounds)
        for vocabulary in options.vocabularies:
            work = Path(folder) / str(vocabulary)
            work.mkdir()
            told = {"vocabulary": vocabulary, "problems": PROBLEMS * (rounds + 2)}
            child = start("prepare", {"kind": "prepare", "work": str(work), **told}, work, SCRIPT)
            child.process.wait()
            where = machine(child.ready)
            print(f"vocabulary {vocabulary}:", flush=True)
            steps[str(vocabulary)] = whole_steps(work, rounds)
            where["load_after"] = os.getloadavg()[0]
            if not options.no_save:  # after each, for a larger vocabulary takes long
                write_results("rollout", {"machine": where, "steps": steps, "update": update})
        report(steps, update)


if __name__ == "__main__":
    main()
