"""A DPO step on a real model: onestage and TRL side by side, in float32 and in bfloat16.

    python bench/real_model.py FOLDER            # SmolLM2-135M-Instruct or Gemma 3 270M, say
    python bench/real_model.py FOLDER --quick

LoRA (r 16 on all linear layers, alpha 32) with fused AdamW on the same 4 pairs of `hh_harmless_pairs`
in every step, each of at most 512 tokens. bfloat16 is the precision that the model is loaded in, on both
sides. TRL in its fastest settings (`against_trl.py`): reference log-probabilities made before training,
as onestage's are, no gradient checkpointing, its head on labelled positions only, as on CUDA, pairs one
after the other or in one piece; and as it comes, with the reference asked again in every step. Nobody's
work before the first step is timed.

Contestants are processes that take turns, and the first step of each is not counted. Since all steps
have the same records, a ratio is one of medians; beside it stand the ratios of single rounds, which say
how much of it is noise.

Targets: at least twice as fast as TRL at its best and three times as fast as TRL as it comes, in either
precision.
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
    QUICK,
    SEED,
    TRL_DPO,
    Child,
    Pacer,
    Spec,
    machine,
    race,
    run_onestage,
    run_trl,
    start,
    write_results,
)

PAIRS, MAX_LENGTH = 4, 512
PRECISIONS = ("float32", "bfloat16")
SETTINGS = ("TRL, record by record", "TRL, in one piece", "TRL, as it comes")


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


KINDS: dict[str, Callable[[Spec], None]] = {
    "prepare": prepare,
    "onestage": run_onestage,
    "trl": run_trl,
}


def contestants(
    model: Path, pairs: Path, work: Path, dtype: str, settings: Sequence[str]
) -> dict[str, Spec]:
    """onestage, and TRL in each setting."""
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
    found: dict[str, Spec] = {"onestage": {"kind": "onestage", "work": str(work), "recipe": recipe}}
    for name in settings:
        found[name] = {
            **{"kind": "trl", "trainer": "DPO", "work": str(work), "model": str(model)},
            **{"columns": ["prompt", "chosen", "rejected"], "data": str(pairs), "stream": "pairs"},
            **{"batch_size": PAIRS, "max_steps": 1000, "max_length": MAX_LENGTH, "dtype": dtype},
            **{"lora": {"r": 16, "lora_alpha": 32}, "options": TRL_DPO[name]},
        }
    return found


def ratio(slow: Child, fast: Child) -> tuple[float, float, float]:
    """How many times as long the first takes: of medians, and the least and most of single steps."""
    each = [a / b for a, b in zip(slow.timed, fast.timed, strict=True)]
    return slow.median / fast.median, min(each), max(each)


def ratio_cpu(slow: Child, fast: Child) -> tuple[float, float, float]:
    """The same in processor time, which says more where others compute, too."""
    each = [a / b for a, b in zip(slow.cpu_seconds[1:], fast.cpu_seconds[1:], strict=True)]
    return slow.cpu_median / fast.cpu_median, min(each), max(each)


def report(dtype: str, children: dict[str, Child]) -> dict[str, Any]:
    """Print a line a contestant and one a target; returns the figures."""
    ours = children["onestage"]
    theirs = [child for name, child in children.items() if child is not ours]
    best = min(theirs, key=lambda child: child.median)
    found: dict[str, Any] = {}
    for name, child in children.items():
        losses = ", ".join(f"{loss:.4f}" for loss in child.final["losses"][:2])
        peak = f"{child.final['peak_mib']:,.0f} MiB"
        times = f"{child.median:7.2f} s a step ({child.cpu_median:.2f} of processor time)"
        print(f"{dtype} {name:24} {times}, {peak} (losses {losses})")
        found[name] = {
            "seconds": child.timed,
            "cpu_seconds": child.cpu_seconds[1:],
            **{k: child.final[k] for k in ("peak_mib", "losses")},
        }
    targets = [("TRL at its best", best, 2.0), ("TRL as it comes", children[SETTINGS[-1]], 3.0)]
    for what, slow, wanted in targets:
        times, least, most = ratio(slow, ours)
        verdict = "met" if times >= wanted else "MISSED"
        cpu = ratio_cpu(slow, ours)
        also = "{:.2f} ({:.2f} to {:.2f}) in processor time".format(*cpu)
        print(
            f"{dtype}: {times:.2f} ({least:.2f} to {most:.2f}) x {what}, {also}; {wanted:g}: {verdict}"
        )
        found[what] = {"setting": slow.name, "ratio": [times, least, most], "ratio_cpu": cpu}
    return found


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--quick", action="store_true", help="two rounds, two ways of TRL; writes no results"
    )
    parser.add_argument("--rounds", type=int, help="steps of each contestant (default 5, quick 2)")
    parser.add_argument("--dtypes", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--child", type=json.loads)
    options = parser.parse_args(given)
    if options.child:
        KINDS[options.child["kind"]](options.child)
        return
    rounds = options.rounds or (2 if options.quick else 5)
    settings = [name for name in SETTINGS if name in QUICK or not options.quick]
    if options.model is None:
        raise SystemExit("name a model's folder (shared/models/real_model.py smollm2 FOLDER)")
    with tempfile.TemporaryDirectory() as folder:
        work, pairs = Path(folder), Path(folder) / "pairs.jsonl"
        source = str(options.data / "hh_harmless_pairs.train.jsonl.gz")
        spec = {"kind": "prepare", "model": str(options.model), "data": source, "out": str(pairs)}
        made = start("prepare", spec, work, Path(__file__))
        made.process.wait()
        print(f"tokens of the pairs: {made.ready['tokens']}")
        found = {}
        for dtype in options.dtypes:
            specs = contestants(options.model.resolve(), pairs, work, dtype, settings)
            children = [start(name, one, work, Path(__file__)) for name, one in specs.items()]
            race(children, rounds, 1, lambda line: print(line, flush=True))
            found[dtype] = report(dtype, {child.name: child for child in children})
    if not options.quick:
        name = f"real_model_{options.model.resolve().name}"
        write_results(name, {"machine": machine(made.ready), **found})


if __name__ == "__main__":
    main()
