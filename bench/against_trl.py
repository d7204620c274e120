"""onestage and TRL's own trainers side by side: seconds a step and peak memory.

    python bench/against_trl.py            # about 15 minutes on two cores
    python bench/against_trl.py --quick    # a few minutes, fewer steps

The same Llama (23 M parameters, random weights), the same records in the same steps, full fine-tuning
with fused AdamW in float32 on the CPU:

- `dpo`: 8 pairs of `hh_harmless_pairs` a step;
- `sft`: 8 demonstrations of `gpteacher_roleplay` a step;
- `groups`: UFT on 4 scored groups of `alpaca_eval_scored` a step. TRL has no such loss.

TRL as it comes (DPO: a second model as reference in every step; gradient checkpointing), and in the
settings that make it faster: no checkpointing; reference log-probabilities made before training, as
onestage's are (neither is timed); its head on labelled positions only, as on CUDA (`LABELLED`; its
default on a CPU scores prompts and padding too); record by record with accumulation, which pads a pair
to its longer answer and a demonstration not at all; SFT also padding-free and packed (there a step has
other records, so tokens a second are compared). DPO's `padding_free` is switched off in TRL 1.16. **The
ratio that counts is that to the fastest of these, which is printed first.**

Each contestant is a process of its own (so peak memory is its own) that waits between steps; the
parent lets them run one after another, a block of steps each, round after round (A B C A B C ...), so
that a noisy machine is noisy for all of them. A step is timed from one to the next: fetching and
collating the records is in it. The first step of each is not counted. Steps differ much by their
records (padding most of all), so a ratio is taken step by step, on the same records, and the median
of these is given.

Model FLOPs of a step, counted for onestage from what it computes, a multiply-add being two:

    3 * (2 * body * nodes + 2 * V * H * scored + 4 * layers * H * keys)

with body = parameters of the layers without embedding and head, nodes = tokens of the forest,
scored = positions the head sees, keys = visible keys summed over nodes; 3 = one forward and twice
that backward. The recomputed logits of the backward pass, norms and the optimiser are not counted.
The machine's own rate is that of a 2048 x 2048 float32 `torch.mm`, measured between the blocks.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
RESULTS = HERE / "results"
VOCABULARY, MAX_LENGTH, SEED = 16384, 1024, 42
MODEL = {
    **{"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6},
    **{"num_attention_heads": 6, "num_key_value_heads": 6, "vocab_size": VOCABULARY},
    **{"max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
}
LEARNING_RATE = 1e-5
BEST = "the fastest"
MIB = 1 << 20

TINY = "ONESTAGE_BENCH_TINY"
SMALL = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "num_key_value_heads": 2},
}
if os.environ.get(TINY):
    MODEL.update(SMALL)
QUICK = ("TRL, record by record", "TRL, as it comes")

Spec = dict[str, Any]
"""What a child is told: `kind`, and the options of that kind."""


# --- Children: processes that work when told to ---------------------------------------------------


@dataclass
class Child:
    """A contestant: a process that runs a number of steps whenever it is let go."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    """Of each step so far."""
    cpu_seconds: list[float] = field(default_factory=list)
    """The same in processor time, over all threads."""
    final: dict[str, Any] = field(default_factory=dict)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended early:\n{self.log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def go(self, steps: int) -> None:
        """Let it run some steps, and wait for them."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.seconds += answer["seconds"]
        self.cpu_seconds += answer["cpu_seconds"]

    def end(self) -> None:
        """Ask for what it has to say at the end."""
        assert self.process.stdin is not None
        self.process.stdin.write("0\n")
        self.process.stdin.flush()
        self.final = self.answer()
        self.process.wait()

    @property
    def timed(self) -> list[float]:
        """Seconds of all steps but the first, which warms up."""
        return self.seconds[1:]

    @property
    def median(self) -> float:
        return statistics.median(self.timed)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu_seconds[1:])


def start(
    name: str,
    spec: Spec,
    work: Path,
    script: Path = Path(__file__),
    python: str = sys.executable,
) -> Child:
    """Start a child process of `script` and wait until it is ready to take its first step."""
    log = work / f"{name.replace(' ', '-').replace(',', '')}.log"
    process = subprocess.Popen(
        [python, str(script), "--child", json.dumps(spec)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
    )
    child = Child(name, process, log)
    child.ready = child.answer()
    return child


def race(children: Sequence[Child], rounds: int, steps: int, say: Callable[[str], None]) -> None:
    """One step of each to warm up, then blocks of steps in turns, the order changing each round."""
    for child in children:
        child.go(1)
    for number in range(rounds):
        turn = number % len(children)
        for child in [*children[turn:], *children[:turn]]:
            child.go(steps)
        medians = ", ".join(f"{child.name} {child.median:.3f}" for child in children)
        say(f"  round {number + 1} of {rounds}: {medians}")
    for child in children:
        child.end()


class Pacer:
    """The child's side: counts steps and waits for the parent between blocks of them."""

    def __init__(self) -> None:
        self.channel: IO[str] = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever prints goes to the log
        self.left, self.since, self.cpu_since = 0, 0.0, 0.0
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.over = False

    def say(self, answer: Mapping[str, Any]) -> None:
        self.channel.write(json.dumps(answer) + "\n")
        self.channel.flush()

    def ready(self) -> None:
        """Before the first step."""
        self.say({"resident_mib": resident_mib()})
        self._wait()

    def step(self) -> bool:
        """After each step; True when there are no more."""
        now, cpu = time.perf_counter(), time.process_time()
        self.seconds.append(now - self.since)
        self.cpu_seconds.append(cpu - self.cpu_since)
        self.since, self.cpu_since, self.left = now, cpu, self.left - 1
        if self.left == 0:
            self.say({"seconds": self.seconds, "cpu_seconds": self.cpu_seconds})
            self.seconds, self.cpu_seconds = [], []
            self._wait()
        return self.over

    def _wait(self) -> None:
        self.left = int(sys.stdin.readline() or 0)
        self.over = self.left == 0
        self.since, self.cpu_since = time.perf_counter(), time.process_time()


def paced(pacer: Pacer) -> Any:
    """A callback of transformers' trainer, and so of TRL's, that keeps the pace."""
    from transformers import TrainerCallback

    class Paced(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            pacer.ready()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            control.should_training_stop = pacer.step()

    return Paced()


def peak_mib() -> float:
    """Largest resident memory of this process so far.

    `ru_maxrss` would begin with what the parent had; Linux keeps one for this process alone.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def resident_mib() -> float:
    return _status("VmRSS") or math.nan


def _status(key: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 / MIB for x in lines if x.startswith(f"{key}:")), None)


# --- What the children run ------------------------------------------------------------------------


def prepare(spec: Spec) -> None:
    """Tokenizer, model and the rows that fit; in a child, so that the parent stays small."""
    pacer = Pacer()
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from onestage.data.encoded import Encoded
    from onestage.data.reading import read
    from onestage.data.tokenize import Encoder

    work = Path(spec["work"])
    script = importlib.util.spec_from_file_location(
        "train_tokenizer", HERE.parent / "recipes" / "train_tokenizer.py"
    )
    assert script is not None
    assert script.loader is not None
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    tokenizer = module.train([file for file, _ in spec["data"].values()], VOCABULARY)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL))
    model.save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    encoder = Encoder(tokenizer, MAX_LENGTH)
    dropped = {}
    for name, (file, wanted) in spec["data"].items():
        records = encoder.encode_all(read(file, name=name))
        with gzip.open(file, "rt") as lines, (work / f"{name}.jsonl").open("w") as out:
            fits = ((x, r) for x, r in zip(lines, records, strict=True))
            kept, seen = 0, 0
            for line, record in fits:
                seen += 1
                if isinstance(record, Encoded):
                    out.write(line)
                    kept += 1
                if kept == wanted:
                    break
        dropped[name] = seen - kept
    pacer.say(
        {
            "dropped": dropped,
            "parameters": sum(p.numel() for p in model.parameters()),
            "threads": torch.get_num_threads(),
            "versions": _versions(),
        }
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl")}


def run_onestage(spec: Spec) -> None:
    """onestage's own loop on a recipe, paced by a callback."""
    pacer = Pacer()
    from onestage.training.callbacks import Callback
    from onestage.training.pipeline import carry_out
    from onestage.training.recipe import parse_recipe

    losses: list[float] = []
    drawn: list[Any] = []
    final: dict[str, Any] = {}

    class Paced(Callback):
        def begin(self, run: Any) -> None:
            draw = run.feeds.draw

            def remembered(terms: Any) -> Any:
                drawn.append(draw(terms))
                return drawn[-1]

            run.feeds.draw = remembered
            pacer.ready()

        def step(self, run: Any, loss: float) -> None:
            losses.append(loss)
            run.stop = pacer.step()
            if run.stop:  # before the checkpoint that a stopped run leaves
                final.update(peak_mib=peak_mib(), losses=losses, **work_of(run, drawn))

    with tempfile.TemporaryDirectory(dir=spec["work"]) as folder:
        recipe = parse_recipe({**spec["recipe"], "cache_dir": f"{folder}/cache"})
        # Without the self-check: its full logits are no part of a step, and would be the peak of memory.
        carry_out(recipe, Path(folder) / "run", self_check=False, callbacks=[Paced()])
    pacer.say(final)


def work_of(run: Any, drawn: Sequence[Any]) -> dict[str, Any]:
    """What each step, on these records, computed: see the definition of model FLOPs above."""
    import numpy as np

    from onestage.data.packing import pack_records

    config, base = run.policy.base.config, run.policy.base.base_model
    body = sum(p.numel() for p in base.layers.parameters())
    found: dict[str, list[Any]] = {
        key: [] for key in ("flops", "flops_of", "positions", "tokens", "scored", "rows")
    }

    def work(records: Sequence[Any]) -> tuple[int, int, int, int]:
        """Model FLOPs, positions, scored positions and rows of some records."""
        rows = pack_records(records, run.options.row_budget).rows if records else ()
        nodes = sum(map(len, rows))
        scored = sum(len(np.unique(row.tree.node_K)) for row in rows)
        keys = sum(int((row.tree.position_T + 1).sum()) for row in rows)
        forward = 2 * body * nodes + 2 * config.vocab_size * config.hidden_size * scored
        forward += 4 * config.num_hidden_layers * config.hidden_size * keys
        return 3 * forward, nodes, scored, len(rows)

    for records in drawn:
        flops, nodes, scored, rows = work(records)
        streams = {record.source for record in records}
        each = {name: work([r for r in records if r.source == name])[0] for name in streams}
        found["flops"].append(flops)
        found["flops_of"].append(each)
        found["positions"].append(nodes)
        found["tokens"].append(sum(record.tokens for record in records))
        found["scored"].append(scored)
        found["rows"].append(rows)
    return found


LABELLED, MICRO = "head_on_labelled", "record_by_record"
"""In the options of a contestant, beside those of TRL's configurations."""


def score_labelled_positions() -> None:
    """TRL's head leaves out positions without a label where it has Triton. It can do so everywhere."""
    from trl.trainer import utils

    utils._use_triton = lambda device: True


def run_trl(spec: Spec) -> None:
    """TRL's own trainer, paced by a callback."""
    pacer = Pacer()
    import torch
    import trl
    from datasets import Dataset, disable_progress_bars

    from onestage.data.mixture import order

    disable_progress_bars()
    rows = [json.loads(line) for line in Path(spec["data"]).read_text().splitlines()]
    rows = [rows[int(number)] for number in order(SEED, spec["stream"], 0, len(rows))]
    kept = {key: [row[key] for row in rows] for key in spec["columns"]}
    told = dict(spec["options"])
    if told.pop(LABELLED, False):
        score_labelled_positions()
    whole = spec["batch_size"]
    size = 1 if told.pop(MICRO, False) or told.get("packing") else whole
    if told.get("padding_free"):
        told["max_length"] = None  # TRL's own condition; the rows were chosen to fit
    model, adapters = spec["model"], {}
    if "lora" in spec:
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, spec["dtype"]))
        adapters = {
            "peft_config": LoraConfig(
                target_modules="all-linear", task_type="CAUSAL_LM", **spec["lora"]
            ),
            "processing_class": AutoTokenizer.from_pretrained(spec["model"]),
        }
    with tempfile.TemporaryDirectory(dir=spec["work"]) as folder:
        config = getattr(trl, f"{spec['trainer']}Config")(
            output_dir=folder,
            max_steps=spec.get("max_steps", len(rows) // whole),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=1 if told.get("packing") else whole // size,
            train_sampling_strategy="sequential",
            **{"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant"},
            **{"optim": "adamw_torch_fused", "weight_decay": 0.0, "max_grad_norm": 1.0},
            **{"bf16": False, "use_cpu": True, "seed": SEED},
            **{"logging_steps": 1, "report_to": "none", "save_strategy": "no"},
            disable_tqdm=True,
            **{"max_length": spec.get("max_length", MAX_LENGTH), **told},
        )
        trainer = getattr(trl, f"{spec['trainer']}Trainer")(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict(kept),
            callbacks=[paced(pacer)],
            **adapters,
        )
        trainer.train()
        peak = peak_mib()
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        a_step = size * config.gradient_accumulation_steps
        rows_of = [range(s * a_step, (s + 1) * a_step) for s in range(len(losses))]
        shapes = [
            shape_of(trainer, [n % len(trainer.train_dataset) for n in r], size) for r in rows_of
        ]
        positions, tokens = ([one[place] for one in shapes] for place in (0, 1))
        pacer.say({"peak_mib": peak, "losses": losses, "positions": positions, "tokens": tokens})


def shape_of(trainer: Any, rows: Sequence[int], size: int) -> tuple[int, int]:
    """Positions that TRL computes for some rows, and tokens among them."""
    positions = tokens = 0
    for start in range(0, len(rows), size):
        batch = trainer.data_collator(
            [trainer.train_dataset[n] for n in rows[start : start + size]]
        )
        here = batch["input_ids"].numel()
        positions += here
        tokens += int(batch["attention_mask"].sum()) if "attention_mask" in batch else here
    return positions, tokens


def run_matmul(spec: Spec) -> None:
    """The machine's own rate: a step is one product of two 2048 x 2048 matrices, many times."""
    pacer = Pacer()
    import torch

    size, times = 2048, 4
    left, right = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    pacer.ready()
    while True:
        for _ in range(times):
            torch.mm(left, right, out=out)
        if pacer.step():
            break
    pacer.say({"peak_mib": peak_mib(), "flops": times * 2 * size**3})


KINDS: dict[str, Callable[[Spec], None]] = {
    "prepare": prepare,
    "onestage": run_onestage,
    "trl": run_trl,
    "matmul": run_matmul,
}


# --- The races ------------------------------------------------------------------------------------

FASTER = {"gradient_checkpointing": False, LABELLED: True}
TRL_DPO = {
    "TRL, record by record": {**FASTER, "precompute_ref_log_probs": True, MICRO: True},
    "TRL, in one piece": {**FASTER, "precompute_ref_log_probs": True},
    "TRL, its head on a CPU": {"gradient_checkpointing": False, "precompute_ref_log_probs": True},
    "TRL, as it comes": {},
}
TRL_SFT = {
    "TRL, record by record": {**FASTER, "completion_only_loss": True, MICRO: True},
    "TRL, padding-free": {**FASTER, "completion_only_loss": True, "padding_free": True},
    "TRL, packed": {**FASTER, "completion_only_loss": True, "packing": True},
    "TRL, its head on a CPU": {"completion_only_loss": True, "gradient_checkpointing": False},
    "TRL, as it comes": {"completion_only_loss": True},
}


@dataclass(frozen=True)
class Task:
    """One comparison. `columns` are those of the data that TRL is given."""

    name: str
    data: str
    batch_size: int
    objective: dict[str, Any]
    trainer: str = ""
    columns: tuple[str, ...] = ()
    theirs: Mapping[str, dict[str, Any]] = field(default_factory=dict)


TASKS = [
    Task(
        "dpo",
        "hh_harmless_pairs",
        8,
        {"name": "dpo", "beta": 0.1},
        "DPO",
        ("prompt", "chosen", "rejected"),
        TRL_DPO,
    ),
    Task("sft", "gpteacher_roleplay", 8, {"name": "sft"}, "SFT", ("prompt", "completion"), TRL_SFT),
    Task("groups", "alpaca_eval_scored", 4, {"name": "uft"}),
]


def recipe_for(
    work: Path,
    streams: Mapping[str, str],
    objective: Any,
    batch_size: int,
    steps: int,
    per_step: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A recipe of the bench's model on some of the prepared files, by stream name."""
    data: list[dict[str, Any]] = [
        {"name": name, "path": str(work / f"{file}.jsonl")} for name, file in streams.items()
    ]
    for stream in data:
        if per_step:
            stream["per_step"] = per_step[stream["name"]]
    return {
        "model": {"name": str(work / "model"), "dtype": "float32"},
        "data": data,
        "objective": objective,
        "train": {
            **{"max_steps": steps, "batch_size": batch_size, "learning_rate": LEARNING_RATE},
            **{"lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "seed": SEED},
            **{"max_length": MAX_LENGTH, "max_grad_norm": 1.0, "logging_steps": 1_000_000},
        },
    }


def prepared(work: Path, data: Path, wanted: Mapping[str, int]) -> dict[str, Any]:
    """Make the model and the files of the bench; returns what there is to say of them."""
    files = {name: (str(data / f"{name}.train.jsonl.gz"), n) for name, n in wanted.items()}
    missing = [file for file, _ in files.values() if not Path(file).is_file()]
    if missing:
        raise SystemExit(f"no data at {missing[0]}; name its folder with --data")
    child = start("prepare", {"kind": "prepare", "work": str(work), "data": files}, work)
    child.process.wait()
    return child.ready


def compete(task: Task, work: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Run one comparison; returns its figures by contestant."""
    rows = task.batch_size * (1 + rounds * steps + 1)
    source = work / f"{task.data}.jsonl"
    with source.open() as lines, (work / f"{task.name}.jsonl").open("w") as out:
        out.writelines(islice(lines, rows))
    recipe = recipe_for(work, {task.name: task.name}, task.objective, task.batch_size, 1_000_000)
    specs: dict[str, Spec] = {
        "matmul": {"kind": "matmul"},
        "onestage": {"kind": "onestage", "work": str(work), "recipe": recipe},
    }
    for name, options in task.theirs.items():
        specs[name] = {
            **{"kind": "trl", "work": str(work), "model": str(work / "model")},
            **{"data": str(work / f"{task.name}.jsonl"), "stream": task.name},
            **{"trainer": task.trainer, "columns": task.columns, "options": options},
            "batch_size": task.batch_size,
        }
    children = [start(f"{name}", {**spec}, work) for name, spec in specs.items()]
    race(children, rounds, steps, lambda line: print(line, flush=True))
    return figures(task, {child.name: child for child in children})


def figures(task: Task, children: Mapping[str, Child]) -> dict[str, Any]:
    """What a race found."""
    ours, machine = children["onestage"], children["matmul"]
    rate = machine.final["flops"] / machine.median
    found: dict[str, Any] = {
        "records_a_step": task.batch_size,
        "matmul_gflops": rate / 1e9,
        "contestants": {},
    }
    for name, child in children.items():
        if name == "matmul":
            continue
        final, steps = child.final, slice(1, 1 + len(child.timed))
        apart = [abs(a - b) for a, b in zip(final["losses"], ours.final["losses"], strict=True)]
        tokens = sum(final["tokens"][steps])
        # A packed step has other records than ours: then a token's share is what can be compared.
        share = [1.0] * len(child.timed)
        if task.theirs.get(name, {}).get("packing"):
            both = zip(ours.final["tokens"][steps], final["tokens"][steps], strict=True)
            share = [mine / theirs for mine, theirs in both]
        slower = [a / b * s for a, b, s in zip(child.timed, ours.timed, share, strict=True)]
        entry: dict[str, Any] = {
            "seconds_a_step": child.median,
            "seconds": child.timed,
            "steps_a_second": 1 / child.median,
            "ratio_seconds": statistics.median(slower),
            "ratio_least": min(slower),
            "ratio_most": max(slower),
            "cpu_seconds_a_step": child.cpu_median,
            "ratio_cpu_seconds": _step_by_step(child.cpu_seconds[1:], ours.cpu_seconds[1:]),
            "ratio_total_seconds": sum(child.timed) / sum(ours.timed),
            "tokens_a_second": tokens / sum(child.timed),
            "positions_a_step": statistics.mean(final["positions"][steps]),
            "tokens_a_step": statistics.mean(final["tokens"][steps]),
            "peak_mib": final["peak_mib"],
            "resident_before_mib": child.ready["resident_mib"],
            "ratio_memory": ours.final["peak_mib"] / final["peak_mib"],
            "first_loss": final["losses"][0],
            "first_loss_difference": apart[0],
            "largest_loss_difference": max(apart),
        }
        if name == "onestage":
            flops = sum(final["flops"][steps])
            entry["scored_a_step"] = statistics.mean(final["scored"][steps])
            entry["gflop_a_step"] = statistics.mean(final["flops"][steps]) / 1e9
            entry["model_gflops"] = flops / sum(child.timed) / 1e9
            entry["fraction_of_matmul"] = flops / sum(child.timed) / rate
        found["contestants"][name] = entry
    return found


def _step_by_step(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


TARGETS = [
    ("dpo", BEST, "ratio_seconds", ">=", 2.0, "times TRL at its best"),
    ("dpo", "TRL, as it comes", "ratio_seconds", ">=", 3.0, "times TRL as it comes"),
    ("dpo", BEST, "first_loss_difference", "<=", 1e-4, "between the first losses"),
    (
        "sft",
        "TRL, record by record",
        "first_loss_difference",
        "<=",
        1e-4,
        "between the first losses",
    ),
]


def fastest(contestants: Mapping[str, Any]) -> str:
    """The contestant that is TRL at its best."""
    theirs = [name for name in contestants if name.startswith("TRL")]
    return min(theirs, key=lambda name: contestants[name]["ratio_seconds"], default="")


def report(tasks: Mapping[str, Any]) -> None:
    """Print the tables and how the targets were met."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    columns = ("s/step", "slower", "slower (cpu)", "tokens/s", "positions", "peak MiB", "ours/its")
    for name, found in tasks.items():
        if best := fastest(found["contestants"]):
            entry = found["contestants"][best]
            console.print(
                f"[bold]{name}: {entry['ratio_seconds']:.2f} times as fast as TRL at its best[/] "
                f"({best}; steps {entry['ratio_least']:.2f} to {entry['ratio_most']:.2f})"
            )
        table = Table(
            title=f"{name}: {found['records_a_step']} records a step", title_justify="left"
        )
        table.add_column("contestant")
        for column in (*columns, "first loss", "losses apart"):
            table.add_column(column, justify="right")
        for contestant, entry in found["contestants"].items():
            table.add_row(
                contestant,
                f"{entry['seconds_a_step']:.3f}",
                f"{entry['ratio_seconds']:.2f}x ({entry['ratio_least']:.2f}-{entry['ratio_most']:.2f})",
                f"{entry['ratio_cpu_seconds']:.2f}x",
                f"{entry['tokens_a_second']:,.0f}",
                f"{entry['positions_a_step']:,.0f}",
                f"{entry['peak_mib']:,.0f}",
                f"{entry['ratio_memory']:.2f}",
                f"{entry['first_loss']:.6f}",
                f"{entry['largest_loss_difference']:.1e}",
            )
        console.print(table)
        ours = found["contestants"]["onestage"]
        console.print(
            f"onestage: {ours['gflop_a_step']:.0f} model GFLOP a step, {ours['model_gflops']:.0f} "
            f"GFLOP/s = {ours['fraction_of_matmul']:.0%} of the machine's own "
            f"{found['matmul_gflops']:.0f} GFLOP/s (2048 x 2048 float32 product)\n"
        )
    for task, contestant, key, sign, bound, what in TARGETS:
        there = tasks.get(task, {}).get("contestants", {})
        entry = there.get(fastest(there) if contestant == BEST else contestant)
        if entry is None:
            continue
        value = entry[key]
        met = value >= bound if sign == ">=" else value <= bound
        console.print(
            f"{'met   ' if met else 'MISSED'} {task}: {value:.3g} {what} (target {sign} {bound:g})"
        )


def machine(ready: Mapping[str, Any]) -> dict[str, Any]:
    """Where the figures were taken."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": date.today().isoformat(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": ready["threads"],
        "python": platform.python_version(),
        **ready["versions"],
        "load_before": os.getloadavg()[0],
    }


def write_results(name: str, content: Mapping[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(_rounded(content), indent=1) + "\n")
    print(f"written to {file.relative_to(HERE.parent)}")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def set_threads(threads: int | None) -> None:
    """For all children. One thread each makes processor time meaningful on a busy machine, where two
    threads mostly wait for each other."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def run_child(given: str) -> None:
    spec = json.loads(given)
    KINDS[spec["kind"]](spec)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps, two ways of TRL only")
    parser.add_argument(
        "--tiny", action="store_true", help="one step of a tiny model: does it run?"
    )
    parser.add_argument("--tasks", nargs="+", default=[task.name for task in TASKS])
    parser.add_argument("--rounds", type=int, help="blocks of each contestant (default 5, quick 2)")
    parser.add_argument("--steps", type=int, help="steps in a block (default 2, quick 1)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    parser.add_argument("--threads", type=int, help="of each contestant (default: torch's own)")
    parser.add_argument("--no-save", action="store_true", help="do not write the results file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child)
        return
    set_threads(options.threads)
    quick = options.quick or options.tiny
    rounds, steps = options.rounds or (2 if quick else 5), options.steps
    steps = steps or (1 if quick else 2)
    if options.tiny:
        os.environ[TINY] = "1"  # children are told so
        MODEL.update(SMALL)
        rounds = 1
    with tempfile.TemporaryDirectory(prefix="against-trl-") as folder:
        work = Path(folder)
        tasks = [task for task in TASKS if task.name in options.tasks]
        wanted = {task.data: task.batch_size * (2 + rounds * steps) for task in tasks}
        ready = prepared(work, options.data, wanted)
        where = {**machine(ready), "parameters": ready["parameters"], "dropped": ready["dropped"]}
        print(json.dumps(where))
        found = {}
        for task in tasks:
            if quick:
                ways = [w for w in task.theirs.items() if w[0] in QUICK]
                task = Task(**{**task.__dict__, "theirs": dict(ways)})
            print(f"{task.name}:", flush=True)
            found[task.name] = compete(task, work, rounds, steps)
    report(found)
    if not (options.no_save or options.tiny):
        write_results("against_trl", {"machine": where, "model": MODEL, "tasks": found})


if __name__ == "__main__":
    main()
