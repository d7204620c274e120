"""A step of DPO and of SFT at the shape of Llama 3.2 1B: onestage and TRL's own trainers.

Random weights, bfloat16 (autocast on both sides), adapters (r 16 on all linear layers) or all weights,
fused AdamW, the same records: two passes over them, of which the second is timed. TRL in the settings
in which it is fastest here: reference log-probabilities made before training as ours are, no gradient
checkpointing, the batch in one piece or one record at a time (which pads nothing), with Liger's kernels
where it takes them, and `padding_free` on transformers' own masks (FlashAttention's package is not
asked for; packing would change which records share a step). All weights: onestage holds masters beside
bfloat16, TRL trains bfloat16 itself, so compare memory with that in mind. Neither side's work before
the first step is timed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from on_gpu import SEED, Found, Given, folder_of, fresh, llama, rows_of, written
from on_gpu.clock import Clock

RATE = 1e-5


@dataclass(frozen=True)
class Task:
    name: str
    data: str
    batch: int
    columns: tuple[str, ...]


THEIRS: Mapping[str, Mapping[str, Any]] = {
    "TRL, one piece, Liger": {"use_liger_kernel": True},
    "TRL, padding-free": {"padding_free": True},
    "TRL, in one piece": {},
    "TRL, record by record": {"micro": 1},
    "TRL, as it comes": {"gradient_checkpointing": True, "defaults": True},
}


def race(task: Task, given: Given) -> Found:
    found = Found(
        f"{task.name.upper()}, {task.batch} records of {task.data} a step. Seconds a step: median "
        "(least-most) of the second pass over the records; peak memory of the device; theirs / ours: "
        "whole passes.",
        ("weights", "contestant", "s a step", "peak GiB", "theirs / ours"),
    )
    steps, size = given.of((1, 2), (6, task.batch))
    rows = rows_of(given, task.data, steps * size, given.of(400, 2400))
    for lora in (True, False):
        ours = attempt(by_us, task, rows, size, steps, lora, {}, given)
        told(found, lora, "onestage", ours, ours)
        for name, how in list(THEIRS.items())[: 2 if given.quick else None]:
            theirs = attempt(by_trl, task, rows, size, steps, lora, how, given)
            told(found, lora, name, theirs, ours)
    return found


def told(found: Found, lora: bool, name: str, mine: Any, ours: Any) -> None:
    """A line of the table."""
    kind = "LoRA" if lora else "all"
    if isinstance(mine, str):
        if name == "onestage":
            found.failed.append(f"{kind}: {mine}")
        found.add(kind, name, f"cannot: {mine}", "", "")
        return
    seconds, peak = mine
    median = f"{statistics.median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})"
    ratio = "" if isinstance(ours, str) else f"{sum(seconds) / sum(ours[0]):.2f}"
    found.add(kind, name, median, f"{peak:.1f}", ratio)


def attempt(way: Any, *given: Any) -> Any:
    """Seconds of the timed steps and peak memory, or why not."""
    fresh()
    try:
        return way(*given)
    except Exception as error:  # a setting that TRL refuses, or too little memory
        return " ".join(str(error).split())[:110] or type(error).__name__
    finally:
        fresh()


def by_us(
    task: Task, rows: Any, size: int, steps: int, lora: bool, how: Any, given: Given
) -> tuple[list[float], float]:
    from onestage.runfolder import silent
    from onestage.training.pipeline import carry_out
    from onestage.training.recipe import parse_recipe

    clock = Clock()
    file = written(given.work / f"{task.name}.jsonl", rows)
    model = {
        "name": str(folder_of(given, "training", llama(given), "bfloat16")),
        "dtype": "bfloat16",
    }
    if lora:
        model["lora"] = {"r": 16, "alpha": 32}
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        recipe = {
            **{"model": model, "data": [{"name": task.name, "path": str(file)}]},
            **{"objective": task.name, "cache_dir": f"{folder}/cache"},
            "train": {
                **{"max_steps": 2 * steps + 1, "batch_size": size, "learning_rate": RATE},
                **{"lr_scheduler_type": "constant", "seed": SEED, "logging_steps": 1_000_000},
                "bf16": given.device == "cuda",
                **{"max_length": 1024, "tokens_per_row": given.of(1024, 16384)},
            },
        }
        told: Any = {"self_check": False, "callbacks": [clock.ours(2 * steps)], "say": silent}
        carry_out(parse_recipe(recipe), Path(folder) / "run", **told)
    return clock.seconds[steps:], clock.peak


def by_trl(
    task: Task, rows: Any, size: int, steps: int, lora: bool, how: Any, given: Given
) -> tuple[list[float], float]:
    import torch
    import trl
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    disable_progress_bars()
    clock = Clock()
    micro = how.get("micro", size)
    keys = ("use_liger_kernel", "padding_free", "gradient_checkpointing")
    more = {"gradient_checkpointing": False, **{key: how[key] for key in keys if key in how}}
    if "padding_free" in more and task.name == "sft":
        more["max_length"] = None  # TRL's own condition; no record here is longer
    if task.name == "dpo":
        more["precompute_ref_log_probs"] = "defaults" not in how
    folder = folder_of(given, "training", llama(given), "bfloat16")
    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    config, trainer = (getattr(trl, f"{task.name.upper()}{end}") for end in ("Config", "Trainer"))
    with tempfile.TemporaryDirectory(dir=given.work) as out:
        training = trainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16),
            processing_class=AutoTokenizer.from_pretrained(folder),
            args=config(
                **{"output_dir": out, "max_steps": 2 * steps, "per_device_train_batch_size": micro},
                gradient_accumulation_steps=size // micro,
                **{"learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0},
                **{"optim": "adamw_torch_fused", "max_grad_norm": 1.0},
                **{"bf16": given.device == "cuda", "use_cpu": given.device == "cpu", "seed": SEED},
                **{"logging_steps": 1_000_000, "report_to": "none", "save_strategy": "no"},
                disable_tqdm=True,
                **{"max_length": 1024, **more},
            ),
            train_dataset=Dataset.from_list(
                [{key: row[key] for key in task.columns} for row in rows]
            ),
            peft_config=adapters if lora else None,
            callbacks=[clock.theirs()],
        )
        training.train()
    return clock.seconds[steps:], clock.peak
