"""A DPO step on a real model: onestage and TRL side by side, in float32 and in bfloat16.

    python bench/real_model.py FOLDER            # of SmolLM2-135M-Instruct; about 10 minutes
    python bench/real_model.py FOLDER --quick

LoRA (r 16 on all linear layers, alpha 32) with fused AdamW on the same 4 pairs of `hh_harmless_pairs`
in every step, each of at most 512 tokens. TRL in its fastest setting: reference log-probabilities made
before training, as onestage's are, and no gradient checkpointing; bfloat16 is the precision that the
model is loaded in, on both sides. Neither side's work before the first step is timed.

Contestants are processes that take turns, as in `against_trl.py`, and the first step of each is not
counted. Since all steps have the same records, a ratio is one of medians; beside it stand the ratios of
single rounds, which say how much of it is noise.

Targets: bfloat16 is at least as fast as float32, and onestage at least 3 times as fast as TRL in either.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice
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
    run_onestage,
    start,
    write_results,
)

PAIRS, MAX_LENGTH = 4, 512
PRECISIONS = ("float32", "bfloat16")


def prepare(spec: Spec) -> None:
    """The first pairs that fit, in a child, so that the parent stays small."""
    pacer = Pacer()
    import gzip

    import torch
    from transformers import AutoTokenizer

    from onestage.data.encoded import Encoded
    from onestage.data.reading import read
    from onestage.data.tokenize import Encoder

    encoder = Encoder(AutoTokenizer.from_pretrained(spec["model"]), MAX_LENGTH)
    records = encoder.encode_all(read(spec["data"], name="pairs"))
    with gzip.open(spec["data"], "rt") as lines:
        both = ((x, r) for x, r in zip(lines, records, strict=False) if isinstance(r, Encoded))
        kept = list(islice(both, PAIRS))
    Path(spec["out"]).write_text("".join(line for line, _ in kept))
    pacer.say(
        {
            "tokens": [[len(path.ids) for path in record.paths] for _, record in kept],
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        }
    )


def run_trl(spec: Spec) -> None:
    """TRL's own DPO trainer with adapters, paced by a callback."""
    pacer = Pacer()
    import torch
    import trl
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    disable_progress_bars()
    rows = [json.loads(line) for line in Path(spec["data"]).read_text().splitlines()]
    columns = ("prompt", "chosen", "rejected")
    with tempfile.TemporaryDirectory(dir=spec["work"]) as folder:
        trainer = trl.DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(
                spec["model"], dtype=getattr(torch, spec["dtype"])
            ),
            processing_class=AutoTokenizer.from_pretrained(spec["model"]),
            args=trl.DPOConfig(
                output_dir=folder,
                max_steps=1000,
                per_device_train_batch_size=PAIRS,
                **{"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant"},
                **{"optim": "adamw_torch_fused", "weight_decay": 0.0, "max_grad_norm": 1.0},
                **{"max_length": MAX_LENGTH, "bf16": False, "use_cpu": True, "seed": SEED},
                **{"logging_steps": 1, "report_to": "none", "save_strategy": "no"},
                **{"precompute_ref_log_probs": True, "gradient_checkpointing": False},
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({key: [row[key] for row in rows] for key in columns}),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[paced(pacer)],
        )
        trainer.train()
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        pacer.say({"losses": losses})


KINDS: dict[str, Callable[[Spec], None]] = {
    "prepare": prepare,
    "onestage": run_onestage,
    "trl": run_trl,
}


def contestants(model: Path, pairs: Path, work: Path) -> dict[str, Spec]:
    """onestage and TRL in each precision."""
    found: dict[str, Spec] = {}
    for dtype in PRECISIONS:
        recipe = {
            "model": {"name": str(model), "dtype": dtype, "lora": {"r": 16, "alpha": 32}},
            "data": [{"name": "pairs", "path": str(pairs)}],
            "objective": {"name": "dpo", "beta": 0.1},
            "train": {
                **{"max_steps": 1000, "batch_size": PAIRS, "learning_rate": LEARNING_RATE},
                **{"lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "seed": SEED},
                **{"max_length": MAX_LENGTH, "max_grad_norm": 1.0, "logging_steps": 1_000_000},
            },
        }
        found[f"onestage {dtype}"] = {"kind": "onestage", "work": str(work), "recipe": recipe}
        found[f"TRL {dtype}"] = {
            **{"kind": "trl", "work": str(work), "model": str(model)},
            **{"data": str(pairs), "dtype": dtype},
        }
    return found


def ratio(slow: Child, fast: Child) -> tuple[float, float, float]:
    """How many times as long the first takes: of medians, and the least and most of single steps."""
    each = [a / b for a, b in zip(slow.timed, fast.timed, strict=True)]
    return slow.median / fast.median, min(each), max(each)


def report(children: dict[str, Child]) -> dict[str, Any]:
    """Print a line a contestant and one a target; returns the figures."""
    for name, child in children.items():
        losses = ", ".join(f"{loss:.4f}" for loss in child.final["losses"][:2])
        print(f"{name:20} {child.median:7.2f} s a step (losses {losses})")
    targets = [("onestage float32", "onestage bfloat16", 1.0)]
    targets += [(f"TRL {dtype}", f"onestage {dtype}", 3.0) for dtype in PRECISIONS]
    found: dict[str, Any] = {name: child.timed for name, child in children.items()}
    for slow, fast, wanted in targets:
        times, least, most = ratio(children[slow], children[fast])
        verdict = "met" if times >= wanted else "MISSED"
        print(f"{slow} / {fast}: {times:.2f} ({least:.2f} to {most:.2f}); {wanted:g}: {verdict}")
        found[f"{slow} / {fast}"] = [times, least, most]
    return found


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", type=json.loads)
    options = parser.parse_args(given)
    if options.child:
        KINDS[options.child["kind"]](options.child)
        return
    if options.model is None:
        raise SystemExit("name the folder of SmolLM2 (shared/models/real_model.py smollm2 FOLDER)")
    with tempfile.TemporaryDirectory() as folder:
        work, pairs = Path(folder), Path(folder) / "pairs.jsonl"
        source = str(options.data / "hh_harmless_pairs.train.jsonl.gz")
        spec = {"kind": "prepare", "model": str(options.model), "data": source, "out": str(pairs)}
        made = start("prepare", spec, work, Path(__file__))
        made.process.wait()
        print(f"tokens of the pairs: {made.ready['tokens']}")
        specs = contestants(options.model.resolve(), pairs, work)
        children = [start(name, one, work, Path(__file__)) for name, one in specs.items()]
        race(children, 2 if options.quick else 5, 1, lambda line: print(line, flush=True))
        found = report({child.name: child for child in children})
    if not options.quick:
        write_results("real_model", {"machine": machine(made.ready), **found})


if __name__ == "__main__":
    main()
