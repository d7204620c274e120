"""A step of GRPO that samples its own answers, at the shape of Llama 3.2 1B: onestage and TRL.

8 problems (questions of GSM8K) with 8 answers of at most 128 tokens each, a function of the text as the
reward, adapters, bfloat16; both sample by transformers (TRL without vLLM, its default), TRL without
gradient checkpointing and in one piece. A random model seldom ends by itself, so answers have full
length. One step to warm up, three timed.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from on_gpu import SEED, Found, Given, folder_of, llama, rows_of, written
from on_gpu.clock import Clock
from on_gpu.training import RATE, attempt

PROBLEMS, GROUP = 8, 8


def measure(given: Given) -> Found:
    found = Found(
        "Seconds of a whole step and of its sampling, medians; tokens sampled a second.",
        ("contestant", "s a step", "s sampling", "tokens a second", "peak GiB", "theirs / ours"),
    )
    count, group, limit, steps = given.of((2, 2, 4, 1), (PROBLEMS, GROUP, 128, 3))
    rows = [
        {"prompt": row["question"]} for row in rows_of(given, "gsm8k", (steps + 1) * count, 600)
    ]
    ours = attempt(by_us, rows, (count, group, limit, steps), given)
    theirs = attempt(by_trl, rows, (count, group, limit, steps), given)
    for name, mine in (("onestage", ours), ("TRL, transformers' generate", theirs)):
        if isinstance(mine, str):
            found.add(name, f"cannot: {mine}", "", "", "", "")
            found.failed += [f"{name}: {mine}"] if name == "onestage" else []
            continue
        seconds, sampling, tokens, peak = mine
        ratio = "" if isinstance(ours, str) else sum(seconds) / sum(ours[0])
        middle = [statistics.median(each) for each in (seconds, sampling)]
        found.add(name, *middle, sum(tokens) / sum(sampling), peak, ratio)
    return found


def tokens_of(found: Any) -> int:
    """Of the completions that our engine gave."""
    return sum(len(completion.ids) for group in found for completion in group)


def by_us(rows: Any, sizes: tuple[int, int, int, int], given: Given) -> Any:
    from rollout import Watch

    from onestage.rollout.engines.transformers import Transformers
    from onestage.runfolder import silent
    from onestage.training.pipeline import carry_out
    from onestage.training.recipe import parse_recipe

    count, group, limit, steps = sizes
    clock, watch, plain = Clock(), Watch(), Transformers.__call__
    Transformers.__call__ = watch.around(plain, tokens_of)  # type: ignore[method-assign]
    facts = [{**row, "nums": [1, 2], "target": 3} for row in rows]
    file = written(given.work / "questions.jsonl", facts)
    folder = folder_of(given, "training", llama(given), "bfloat16")
    reward = f"{Path(__file__).parents[1] / 'length.py'}:Length"
    problems = {"name": "problems", "path": str(file), "kind": "check", "reward": reward}
    with tempfile.TemporaryDirectory(dir=given.work) as out:
        recipe = {
            "model": {"name": str(folder), "dtype": "bfloat16", "lora": {"r": 16, "alpha": 32}},
            **{"data": [problems], "objective": "grpo", "cache_dir": f"{out}/cache"},
            "rollout": {"num_generations": group, "max_completion_length": limit},
            "train": {
                **{
                    "max_steps": steps + 2,
                    "batch_size": count,
                    "learning_rate": RATE,
                    "seed": SEED,
                },
                **{"lr_scheduler_type": "constant", "max_length": 1024, "logging_steps": 1_000_000},
                "bf16": given.device == "cuda",
                "tokens_per_row": given.of(1024, 16384),
            },
        }
        told: Any = {"self_check": False, "callbacks": [clock.ours(steps + 1)], "say": silent}
        try:
            carry_out(parse_recipe(recipe), Path(out) / "run", **told)
        finally:
            Transformers.__call__ = plain  # type: ignore[method-assign]
    timed = slice(1, steps + 1)
    return clock.seconds[timed], watch.seconds[timed], watch.tokens[timed], clock.peak


def by_trl(rows: Any, sizes: tuple[int, int, int, int], given: Given) -> Any:
    import torch
    from datasets import Dataset, disable_progress_bars
    from length import length_reward
    from peft import LoraConfig
    from rollout import Watch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    disable_progress_bars()
    count, group, limit, steps = sizes

    def reward(completions: Any, **other: Any) -> list[float]:
        return [length_reward(text) for text in completions]

    clock, watch = Clock(), Watch()
    folder = folder_of(given, "training", llama(given), "bfloat16")
    with tempfile.TemporaryDirectory(dir=given.work) as out:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=reward,
            args=GRPOConfig(
                **{"output_dir": out, "max_steps": steps + 1, "num_generations": group},
                **{"per_device_train_batch_size": count * group, "max_completion_length": limit},
                **{"loss_type": "dapo", "beta": 0.0, "top_k": 0, "top_p": 1.0, "temperature": 1.0},
                **{"learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0},
                **{"optim": "adamw_torch_fused", "gradient_checkpointing": False, "seed": SEED},
                **{"bf16": given.device == "cuda", "use_cpu": given.device == "cpu"},
                **{"logging_steps": 1_000_000, "report_to": "none", "save_strategy": "no"},
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[clock.theirs()],
        )
        sample = trainer._generate_single_turn
        trainer._generate_single_turn = watch.around(sample, lambda found: sum(map(len, found[0])))
        trainer.train()
    return clock.seconds[1:], watch.seconds[1:], watch.tokens[1:], clock.peak
