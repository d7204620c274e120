"""The trade-off between imitation and preferences: sequential, Mix, ALRIGHT, MAXRIGHT and UFT.

    python bench/tradeoff.py real        # SFT on gpteacher_roleplay, DPO on hh_harmless_pairs
    python bench/tradeoff.py lab         # the same two objectives in the generated world
    python bench/tradeoff.py page        # tables and figures of docs/trade-off.md from the results
    python bench/tradeoff.py real --quick    # two steps of few runs: that it runs; writes no results

Fernando et al. 2024 (arXiv 2410.15483), figure 3, at the size of a laptop. Every run of a comparison
starts from the same small pretrained Llama (one for each seed), is full fine-tuning with AdamW at a
constant learning rate, and trains on the same number of tokens (`real`) or updates (`lab`). lambda is
the weight of DPO: of its loss (Mix), of its steps (sequential), its probability (ALRIGHT), its factor
(MAXRIGHT), its share of the records (UFT).

Care that the published comparison did not take (xright.md T2, T3, T14): gaps on held-out rows and on
training rows; gaps normalised by the start; the same three learning rates tried for every method at
lambda = .5 on a seed that is not reported, the best by normalised ideal distance (on training rows, as
the paper measures) kept; f* by runs of one objective at the same budget, the lowest evaluation of any of
the three learning rates or of the start.
Retention is the loss on gsm8k text, which the base was pretrained on and no run sees.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
RESULTS = HERE / "results"
LAMBDAS = (0.01, 0.25, 0.5, 0.75, 0.99)
RATES = (3e-4, 1e-3, 3e-3)
BETA = 0.1
TUNING_SEED = 100
ROWS = 100
"""Held-out rows, and training rows, that a loss is taken on."""
DEMOS, PAIRS = 300, 200
VOCABULARY, MAX_LENGTH = 2048, 320

METHODS: dict[str, dict[str, Any]] = {
    "DPO then SFT": {"name": "sequential", "order": ["dpo", "sft"]},
    "SFT then DPO": {"name": "sequential", "order": ["sft", "dpo"]},
    "Mix": {"name": "mix"},
    "ALRIGHT": {"name": "alright"},
    "MAXRIGHT published": {"name": "maxright", "decide": "same_batch"},
    "MAXRIGHT ema": {"name": "maxright", "decide": "ema"},
    "MAXRIGHT": {"name": "maxright", "decide": "independent"},
    "UFT": {"name": "proportional"},
}
QUICK: dict[str, Any] = {
    **{"LAMBDAS": (0.5,), "RATES": (1e-3,), "LAB_RATES": (1e-3,), "LENGTHS": (1, 1, 2)},
    **{"ROWS": 2, "DEMOS": 4, "PAIRS": 4, "LAB": ("ALRIGHT", "MAXRIGHT")},
    "METHODS": {name: METHODS[name] for name in ("Mix", "ALRIGHT", "MAXRIGHT", "UFT")},
}
"""What `--quick` sets these, and those further down, to."""


def schedule_of(method: str, part: float) -> Any:
    """The recipe's schedule; UFT's lambda stands in the data's weights."""
    found = dict(METHODS[method])
    return found if method == "UFT" else {**found, "weights": {"dpo": part, "sft": 1 - part}}


def recipe_of(
    base: Path, files: Mapping[str, Path], cache: Path, method: str, part: float, train: Any
) -> dict[str, Any]:
    """One run. Streams of weight 0 are only there to be evaluated, by SFT and DPO whatever trains."""
    joint = method == "UFT"
    streams = [
        {"name": "demos", "path": str(files["demos"]), "weight": 1 - part if joint else 1},
        {"name": "pairs", "path": str(files["pairs"]), "weight": part if joint else 1},
    ]
    objective: dict[str, Any] = {key: {"name": "uft", "beta": BETA} for key in ("demos", "pairs")}
    if not joint:
        objective = {"demos": "sft", "pairs": {"name": "dpo", "beta": BETA}}
    for kind, loss in (("demos", "sft"), ("pairs", {"name": "dpo", "beta": BETA})):
        for split in ("held", "seen"):
            name, file = f"{kind}_{split}", str(files[f"{kind}_{split}"])
            streams.append({"name": name, "path": file, "weight": 0, "eval_path": file})
            objective[name] = loss
    recipe = {
        "model": {"name": str(base)},
        "data": streams,
        "objective": objective,
        "schedule": schedule_of(method, part),
        "train": {
            **{"lr_scheduler_type": "constant", "max_length": MAX_LENGTH, "overflow": "drop"},
            **{"tokens_per_row": 1024, "logging_steps": 1_000_000, "eval_steps": 1_000_000},
            **train,
        },
        "cache_dir": str(cache),
    }
    if "kept" in files:
        kept = {"name": "kept", "path": str(files["kept"])}
        recipe["probe"] = {
            **{"steps": 1_000_000, "gradients": False, "task_tokens": 0},
            "retention": [kept],
        }
    return recipe


def run_one(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train one recipe in this process; what it ends with."""
    import resource

    from onestage.runfolder import read_metrics
    from onestage.training.pipeline import carry_out
    from onestage.training.recipe import parse_recipe

    out, recipe = Path(job["out"]), job["recipe"]
    began = time.perf_counter()
    if not (out / "model").exists():
        carry_out(parse_recipe(recipe), out, self_check=False, say=lambda line: None)
    seconds = time.perf_counter() - began
    ends: dict[str, Any] = {}
    for line in read_metrics(out):
        if line["step"]:
            ends |= line
    found = {
        **{key: ends.get(f"eval/{key}/loss") for key in EVALUATED},
        "retention_loss": ends.get("retention/kept/loss"),
        "retention_kl": ends.get("retention/kept/kl"),
        **{"steps": ends["step"], "tokens": ends["tokens"], "seconds": seconds},
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    for file in (out / "model").glob("*.safetensors"):
        file.unlink()  # the figures are kept, the weights are not
    return {**{k: v for k, v in job.items() if k not in ("recipe", "out")}, **found}


EVALUATED = ("demos_held", "demos_seen", "pairs_held", "pairs_seen")


def work(jobs: list[dict[str, Any]], folder: Path, processes: int) -> list[dict[str, Any]]:
    """All jobs, dealt to some one-thread processes; finished ones are found again."""
    folder.mkdir(parents=True, exist_ok=True)
    done = _done(folder)
    left = [job for job in jobs if job["key"] not in done]
    children = []
    for number in range(processes):
        mine = folder / f"jobs-{number}.json"
        mine.write_text(json.dumps(left[number::processes]))
        command = [sys.executable, __file__, "work", str(mine)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        children.append(subprocess.Popen(command, env=environment))
    if any(child.wait() for child in children):
        raise SystemExit("a worker failed")
    done = _done(folder)
    return [done[job["key"]] for job in jobs]


def _done(folder: Path) -> dict[str, Any]:
    """Results by key, gathered in one file from those of the workers."""
    found = {}
    files = sorted(folder.glob("*done.jsonl"))
    for file in files:
        for line in file.read_text().splitlines():
            result = json.loads(line)
            found[result["key"]] = result
    (folder / "done.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found.values()))
    for file in files:
        if file.name != "done.jsonl":
            file.unlink()
    return found


def worker(file: Path) -> None:
    """Run the jobs of a file, one line of results each."""
    import torch

    torch.set_num_threads(1)
    done = file.with_suffix(".done.jsonl")
    jobs = json.loads(file.read_text())
    with done.open("w") as out:
        for number, job in enumerate(jobs):
            line = json.dumps(run_one(job))
            out.write(line + "\n")
            out.flush()
            print(f"{number + 1}/{len(jobs)} {line[:300]}", flush=True)


# --- Real data ------------------------------------------------------------------------------------


def read_rows(data: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(data / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def real_files(data: Path, folder: Path) -> dict[str, Path]:
    """Training, held-out and seen rows, text to pretrain on, and text to be kept."""
    folder.mkdir(parents=True, exist_ok=True)
    demos, pairs = (
        read_rows(data, "gpteacher_roleplay.train"),
        read_rows(data, "hh_harmless_pairs.train"),
    )
    math = [f"{row['question']}\n{row['answer']}" for row in read_rows(data, "gsm8k.train")]
    answers = [
        f"{row['prompt']}\n{answer}"
        for row in read_rows(data, "alpaca_eval_scored.train")
        for answer in row["completions"]
    ]
    text = [f"{row['prompt']} {row['completion']}" for row in demos]
    text += [row["prompt"] + row[side] for row in pairs for side in ("chosen", "rejected")]
    text += math + answers
    demos, pairs = demos[:DEMOS], pairs[:PAIRS]  # some epochs of each, as in the paper
    return {
        "demos": write_rows(folder / "demos.jsonl", demos),
        "pairs": write_rows(folder / "pairs.jsonl", pairs),
        "demos_held": write_rows(
            folder / "demos_held.jsonl", read_rows(data, "gpteacher_roleplay.eval")[:ROWS]
        ),
        "pairs_held": write_rows(
            folder / "pairs_held.jsonl", read_rows(data, "hh_harmless_pairs.eval")[:ROWS]
        ),
        "demos_seen": write_rows(folder / "demos_seen.jsonl", demos[:ROWS]),
        "pairs_seen": write_rows(folder / "pairs_seen.jsonl", pairs[:ROWS]),
        "kept": write_rows(folder / "kept.jsonl", [{"text": one} for one in math[:100]]),
        "text": write_rows(folder / "text.jsonl", [{"text": one} for one in text]),
    }


def real_base(folder: Path, files: Mapping[str, Path], seed: int, steps: int) -> Path:
    """A small Llama pretrained on the text of the training rows, gsm8k and AlpacaEval answers."""
    from onestage.training.pipeline import carry_out
    from onestage.training.recipe import parse_recipe

    out, tokenizer = folder / f"base-{seed}", folder / "tokenizer"
    if (out / "model").is_dir():
        return out / "model"
    if not tokenizer.is_dir():
        command = [sys.executable, str(HERE.parent / "recipes" / "train_tokenizer.py")]
        command += [str(tokenizer), "--vocab-size", str(VOCABULARY), str(files["text"])]
        subprocess.run(command, check=True)
    config = {
        **{"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 96},
        **{"intermediate_size": 288, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"max_position_embeddings": 1024, "bos_token_id": 0, "eos_token_id": 1},
        "tie_word_embeddings": True,
    }
    train = {
        **{"max_steps": steps, "batch_size": 16, "learning_rate": 4e-3, "warmup_ratio": 0.05},
        **{"lr_scheduler_type": "cosine", "max_length": MAX_LENGTH, "overflow": "drop"},
        **{"tokens_per_row": 1024, "logging_steps": 50, "seed": seed},
    }
    recipe = {
        "model": {"config": config, "tokenizer": str(tokenizer)},
        "data": [{"name": "text", "path": str(files["text"])}],
        "objective": "sft",
        "train": train,
        "cache_dir": str(folder / "cache"),
    }
    return carry_out(parse_recipe(recipe), out, self_check=False)


def tokens_of(results: Mapping[str, Any]) -> float:
    return results["tokens"] / results["steps"]


def compare(
    name: str,
    bases: Mapping[int, Path],
    files: Mapping[int, Mapping[str, Path]],
    folder: Path,
    budget: int,
    processes: int,
) -> dict[str, Any]:
    """f* and learning rates on one seed, then every method, lambda and seed at equal tokens."""
    cache = folder / "cache"

    def job(stage: str, method: str, part: float, rate: float, seed: int) -> dict[str, Any]:
        steps = max(1, round(budget / per_step(method, part)))
        train = {"max_steps": steps, "learning_rate": rate, "seed": seed, "batch_size": 8}
        if METHODS[method]["name"] == "maxright":  # nobody knows how often it takes which
            most = budget / (8 * min(length.values()))
            train |= {"max_steps": max(1, round(1.1 * most)), "max_tokens": budget}
        recipe = recipe_of(bases[seed], files[seed], cache, method, part, train)
        if METHODS[method]["name"] == "maxright" and best:
            values = {"sft": best[seed]["demos_seen"], "dpo": best[seed]["pairs_seen"]}
            recipe["optimum"] = {"given": values}
        key = f"{stage}-{method}-{part}-{rate}-{seed}".replace(" ", "_")
        told = {"method": method, "lambda": part, "rate": rate, "seed": seed}
        return {"key": key, "out": str(folder / "runs" / key), "recipe": recipe, **told}

    def per_step(method: str, part: float) -> float:
        """Mean tokens of a step of 8 records, from how long the records are."""
        if METHODS[method]["name"] == "mix":
            return 8 * (length["demos"] + length["pairs"])
        return 8 * (part * length["pairs"] + (1 - part) * length["demos"])

    best: dict[int, dict[str, float]] = {}
    start = {seed: start_of(bases[seed], files[seed], cache, folder, seed) for seed in bases}
    length = lengths(bases, files, cache)
    singles = [
        job("single", "ALRIGHT", part, rate, seed)
        for seed in bases
        for part in (0.0, 1.0)
        for rate in RATES
    ]
    alone = work(singles, folder / "single", processes)
    best |= lowest(start, alone)
    trials = [job("tune", method, 0.5, rate, TUNING_SEED) for method in METHODS for rate in RATES]
    tuned = work(trials, folder / "tune", processes)
    rates = best_rates([one | distances(one, best, start) for one in tuned], "seen_normalised")
    jobs = [
        job("run", method, part, rates[method], seed)
        for seed in bases
        if seed != TUNING_SEED
        for part in LAMBDAS
        for method in METHODS
    ]
    runs = work(jobs, folder / "run", processes)
    # One tuning seed may choose different rates for the forms of MAXRIGHT; each at the others', too.
    forms = [method for method in METHODS if METHODS[method]["name"] == "maxright"]
    swapped = [
        job("run", method, part, rate, seed)
        for method in forms
        for rate in sorted({rates[form] for form in forms} - {rates[method]})
        for seed in bases
        if seed != TUNING_SEED
        for part in LAMBDAS
    ]
    also = work(swapped, folder / "also", processes) if swapped else []
    return {
        **{"name": name, "budget": budget, "rates": rates, "best": best, "start": start},
        "tuning": [one | distances(one, best, start) for one in tuned],
        "runs": [one | distances(one, best, start) for one in runs],
        "also": [one | distances(one, best, start) for one in also],
        "singles": alone,
    }


def lowest(
    start: Mapping[int, Mapping[str, float]], runs: list[dict[str, Any]]
) -> dict[int, dict[str, float]]:
    """f* by seed: the lowest of each loss at the start and at the end of some runs."""
    found = {}
    for seed, losses in start.items():
        mine = [losses, *(one for one in runs if one["seed"] == seed)]
        found[seed] = {key: min(one[key] for one in mine) for key in EVALUATED}
    return found


def best_rates(tuned: list[dict[str, Any]], key: str) -> dict[str, float]:
    """The learning rate of each method whose trial has the smallest `key`."""
    methods = dict.fromkeys(one["method"] for one in tuned)
    return {
        method: min((one for one in tuned if one["method"] == method), key=lambda one: one[key])[
            "rate"
        ]
        for method in methods
    }


def lengths(bases: Any, files: Any, cache: Path) -> dict[str, float]:
    """Mean tokens of a record of each stream, by reading them as a run would."""
    from onestage.training.build import Draft
    from onestage.training.recipe import parse_recipe

    seed = next(iter(bases))
    recipe = parse_recipe(recipe_of(bases[seed], files[seed], cache, "Mix", 0.5, {"max_steps": 1}))
    draft = Draft(recipe)
    draft.read(print)
    data = draft.stores
    return {n: data.train[n].table.tokens / len(data.train[n]) for n in ("demos", "pairs")}


def start_of(base: Path, files: Any, cache: Path, folder: Path, seed: int) -> dict[str, float]:
    """The base's own losses: a run whose one step moves nothing."""
    train = {"max_steps": 1, "learning_rate": 1e-12, "seed": seed, "batch_size": 2}
    recipe = recipe_of(base, files, cache, "Mix", 0.5, train)
    job = {"key": f"start-{seed}", "out": str(folder / "runs" / f"start-{seed}"), "recipe": recipe}
    (found,) = work([job], folder / f"start-{seed}", 1)
    return {key: found[key] for key in (*EVALUATED, "retention_loss")}


def distances(one: Mapping[str, Any], best: Any, start: Any) -> dict[str, float]:
    """Gaps and ideal distances of a run on held-out and on seen rows."""
    from onestage.stats import gaps, ideal_distance, normalised

    found = {}
    for split in ("held", "seen"):
        keys = (f"demos_{split}", f"pairs_{split}")
        losses, low, high = (
            {key: source[key] for key in keys}
            for source in (one, best[one["seed"]], start[one["seed"]])
        )
        raw, part = gaps(losses, low), normalised(losses, low, high)
        found |= {f"gap_{key}": value for key, value in raw.items()}
        found |= {f"part_{key}": value for key, value in part.items()}
        found[f"{split}_raw"] = ideal_distance(raw)
        found[f"{split}_normalised"] = ideal_distance(part)
    return found


def real(options: argparse.Namespace) -> None:
    folder = options.work / "real"
    shared = real_files(options.data, folder / "data")
    seeds = [TUNING_SEED, *range(options.seeds)]
    bases = {seed: real_base(folder, shared, seed, options.pretraining) for seed in seeds}
    files = {key: {k: v for k, v in shared.items() if k != "text"} for key in seeds}
    found = compare("real", bases, files, folder, options.tokens, options.processes)
    if not options.quick:
        write(RESULTS / "tradeoff_real.json", found, options)


# --- The lab's world ------------------------------------------------------------------------------

LENGTHS = (96, 192, 384, 768)
"""Updates of a run; of Mix, whose updates take two batches, as many."""
LAB = ("DPO then SFT", "SFT then DPO", "Mix", "ALRIGHT", "MAXRIGHT ema", "MAXRIGHT")


def lab_files(folder: Path, seed: int, steps: int | None) -> tuple[Path, dict[str, Path]]:
    """The base model of a generated world (of so many steps, where not as usual), and its rows."""
    from itertools import islice

    from onestage.studies.lab.ground import make_base
    from onestage.studies.lab.world import LabWorld

    home, world = folder / f"world-{seed}", LabWorld(seed)
    home.mkdir(parents=True, exist_ok=True)
    base = make_base(world, folder / "cache", seed=seed, steps=steps)
    found = {}
    for name, kind in (("demos", "demonstration"), ("pairs", "pair")):
        train = world.rows(kind, "train")  # type: ignore[arg-type]
        found[name] = write_rows(home / f"{name}.jsonl", train)
        found[f"{name}_seen"] = write_rows(home / f"{name}_seen.jsonl", train[:128])
        held = world.rows(kind, "validation")  # type: ignore[arg-type]
        found[f"{name}_held"] = write_rows(home / f"{name}_held.jsonl", held)
    kept = [{"text": text} for text in islice(world.pretraining_text("validation"), 128)]
    found["kept"] = write_rows(home / "kept.jsonl", kept)
    return base, found


def lab(options: argparse.Namespace) -> None:
    """Ideal distance against the number of updates, lambda = .5."""
    folder = options.work / "lab"
    seeds = [TUNING_SEED, *range(options.seeds)]
    made = {seed: lab_files(folder, seed, 2 if options.quick else None) for seed in seeds}

    def job(stage: str, method: str, part: float, rate: float, seed: int, steps: int) -> Any:
        base, files = made[seed]
        train = {"max_steps": steps, "learning_rate": rate, "seed": seed, "batch_size": 16}
        recipe = recipe_of(base, files, folder / "cache", method, part, train)
        recipe["train"]["tokens_per_row"] = 512
        if METHODS[method]["name"] == "maxright" and best:
            values = {"sft": best[seed]["demos_held"], "dpo": best[seed]["pairs_held"]}
            recipe["optimum"] = {"given": values}
        key = f"{stage}-{method}-{part}-{rate}-{seed}-{steps}".replace(" ", "_")
        told = {"method": method, "lambda": part, "rate": rate, "seed": seed, "updates": steps}
        return {"key": key, "out": str(folder / "runs" / key), "recipe": recipe, **told}

    best: dict[int, dict[str, float]] = {}
    start = {seed: start_of(*made[seed], folder / "cache", folder, seed) for seed in seeds}
    singles = [
        job("single", "ALRIGHT", part, rate, seed, LENGTHS[-1])
        for seed in seeds
        for part in (0.0, 1.0)
        for rate in LAB_RATES
    ]
    alone = work(singles, folder / "single", options.processes)
    best |= lowest(start, alone)
    trials = [job("tune", m, 0.5, r, TUNING_SEED, LENGTHS[2]) for m in LAB for r in LAB_RATES]
    tuned = work(trials, folder / "tune", options.processes)
    rates = best_rates([one | distances(one, best, start) for one in tuned], "held_raw")
    jobs = [
        job("run", method, 0.5, rates[method], seed, steps)
        for steps in LENGTHS
        for seed in seeds[1:]
        for method in LAB
    ]
    runs = work(jobs, folder / "run", options.processes)
    found = {
        **{"name": "lab", "rates": rates, "best": best, "start": start},
        "tuning": [one | distances(one, best, start) for one in tuned],
        "runs": [one | distances(one, best, start) for one in runs],
        "singles": alone,
    }
    if not options.quick:
        write(RESULTS / "tradeoff_lab.json", found, options)


LAB_RATES = (5e-4, 1e-3, 2e-3)


# --- Tables and figures ---------------------------------------------------------------------------


def told(values: list[float], digits: int = 3) -> str:
    """Mean and half the range over seeds (with two seeds: the distance of each from the mean)."""
    spread = (max(values) - min(values)) / 2
    return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def of(runs: list[dict[str, Any]], key: str, **where: Any) -> list[float]:
    return [r[key] for r in runs if all(r[k.rstrip("_")] == v for k, v in where.items())]


def real_page(found: dict[str, Any]) -> str:
    from onestage.stats import hypervolume

    runs = found["runs"]
    rows = []
    for part in LAMBDAS:
        for method in METHODS:
            mine = [r for r in runs if r["method"] == method and r["lambda"] == part]
            columns = ("gap_pairs_seen", "gap_demos_seen", "seen_raw", "seen_normalised")
            columns += ("gap_pairs_held", "gap_demos_held", "retention_loss")
            cells = [told([r[key] for r in mine]) for key in columns]
            work = [f"{statistics.fmean(r[k] for r in mine):,.0f}" for k in ("tokens", "seconds")]
            rows.append([f"{part:g}", method, *cells, *work])
    header = ["lambda", "method", "DPO gap", "SFT gap", "ideal distance", "normalised"]
    header += ["DPO gap, held out", "SFT gap, held out", "gsm8k loss", "tokens", "s"]
    volume = []
    both = runs + found.get("also", [])
    for method, rate in sorted({(r["method"], r["rate"]) for r in both}, key=_as_listed):
        per_seed, mine = [], [r for r in both if r["method"] == method and r["rate"] == rate]
        for seed in sorted({r["seed"] for r in mine}):
            points = [
                (r["part_pairs_seen"], r["part_demos_seen"]) for r in mine if r["seed"] == seed
            ]
            per_seed.append(hypervolume(points, (1.0, 1.0)))
        columns = [
            *(statistics.fmean(r[key] for r in mine) for key in ("seen_raw", "seen_normalised")),
            statistics.fmean(
                max(r["lambda"] * r["gap_pairs_seen"], (1 - r["lambda"]) * r["gap_demos_seen"])
                for r in mine
            ),
            *(statistics.fmean(r[key] for r in mine) for key in ("held_raw", "retention_loss")),
        ]
        cells = [f"{value:.3f}" for value in columns]
        name = method if rate == found["rates"][method] else f"{method}, another form's rate"
        volume.append([name, f"{rate:g}", told(per_seed), *cells])
    names = ["method", "learning rate", "hypervolume of its front", "ideal distance", "normalised"]
    names += ["worst weighted gap", "ideal distance, held out", "gsm8k loss"]
    memory, seeds = max(r["peak_mib"] for r in runs), len({r["seed"] for r in runs})
    return "\n\n".join(
        [
            "Over the five lambdas, on training rows but for the last two columns. Hypervolume: of the "
            "normalised gaps (the start is 1, f* is 0), 1 being all there is. Worst weighted gap: the "
            "larger of lambda times the DPO gap and 1 - lambda times the SFT gap.",
            table(names, volume),
            f"Everything (mean ± half the range over {seeds} seeds; peak memory "
            f"of a worker process that ran all of these, {memory:,.0f} MiB):",
            table(header, rows),
        ]
    )


def _as_listed(entry: tuple[str, float]) -> tuple[int, float]:
    return list(METHODS).index(entry[0]), entry[1]


LAB_SHOWN = {
    "seen_raw": "ideal distance, training rows",
    "held_raw": "ideal distance, held-out rows",
    "retention_loss": "loss on the pretraining text",
}


def rebased(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs with f* the lowest loss that any run of their seed reached.

    In this world preferences are not learnt from pairs alone: the lowest held-out DPO losses are those
    of joint runs, so runs of one objective do not know f*.
    """
    start = {int(seed): losses for seed, losses in found["start"].items()}
    best = lowest(start, found["singles"] + found["runs"])
    return [run | distances(run, best, start) for run in found["runs"]]


def lab_page(found: dict[str, Any]) -> str:
    runs, rows = rebased(found), []
    for method in LAB:
        for key, name in LAB_SHOWN.items():
            cells = [told(of(runs, key, method=method, updates=steps)) for steps in LENGTHS]
            rows.append([method, f"{found['rates'][method]:g}", name, *cells])
    seeds = len({r["seed"] for r in runs})
    start = statistics.fmean(one["retention_loss"] for one in found["start"].values())
    return (
        table(["method", "rate", "", *(f"T = {steps}" for steps in LENGTHS)], rows)
        + f"\n\nMean ± half the range over {seeds} seeds; text loss at the start {start:.3f}."
    )


COLOURS = dict(
    zip(
        METHODS,
        "#d62728 #ff9896 #2ca02c #1f77b4 #9467bd #c5b0d5 #8c564b #7f7f7f".split(),
        strict=True,
    )
)


def figures(real_found: dict[str, Any] | None, lab_found: dict[str, Any] | None) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "onestage"
    from matplotlib import pyplot

    folder = HERE.parent / "docs" / "figures"
    folder.mkdir(exist_ok=True)
    if real_found:
        figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6))
        for axis, split in zip(axes, ("seen", "held"), strict=True):
            for method, colour in COLOURS.items():
                points = [
                    [
                        statistics.fmean(of(real_found["runs"], key, method=method, lambda_=part))
                        for key in (f"gap_demos_{split}", f"gap_pairs_{split}")
                    ]
                    for part in LAMBDAS
                ]
                axis.plot(*zip(*points, strict=True), "o-", color=colour, label=method, ms=4)
                for part, point in zip(LAMBDAS, points, strict=True):
                    axis.annotate(f"{part:g}", point, fontsize=6, color=colour)
            rows = "training rows" if split == "seen" else "held-out rows"
            axis.set(xlabel="SFT gap", ylabel="DPO gap", title=f"Gaps to f* on {rows}")
            axis.set_yscale("symlog", linthresh=0.1)
        axes[0].legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(folder / "tradeoff_real.svg", metadata={"Date": None})
    if lab_found:
        figure, axes = pyplot.subplots(1, 3, figsize=(13, 4))
        runs = rebased(lab_found)
        for method in LAB:
            for axis, key in zip(axes, LAB_SHOWN, strict=True):
                values = [of(runs, key, method=method, updates=t) for t in LENGTHS]
                means = [statistics.fmean(v) for v in values]
                axis.plot(LENGTHS, means, "o-", color=COLOURS[method], label=method)
                low, high = [min(v) for v in values], [max(v) for v in values]
                axis.fill_between(LENGTHS, low, high, color=COLOURS[method], alpha=0.12)
                axis.set(xscale="log", xlabel="updates T", title=LAB_SHOWN[key].capitalize())
                axis.set_xticks(LENGTHS, [str(t) for t in LENGTHS], minor=False)
                axis.minorticks_off()
        axes[0].set(yscale="log")
        axes[0].legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(folder / "tradeoff_lab.svg", metadata={"Date": None})


def page(options: argparse.Namespace) -> None:
    """Put tables between the marks of docs/trade-off.md, and draw the figures."""
    file = HERE.parent / "docs" / "trade-off.md"
    text, found = file.read_text(), {}
    for name, make in (("real", real_page), ("lab", lab_page)):
        results = RESULTS / f"tradeoff_{name}.json"
        if not results.is_file():
            continue
        found[name] = json.loads(results.read_text())
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = text.split(begin)
        text = before + begin + "\n\n" + make(found[name]) + "\n\n" + end + rest.split(end)[1]
    file.write_text(text)
    figures(found.get("real"), found.get("lab"))


def write(file: Path, found: dict[str, Any], options: argparse.Namespace) -> None:
    from onestage.runfolder import environment

    told = {k: v for k, v in environment().items() if k in ("versions", "machine", "git")}
    command = {k: v for k, v in vars(options).items() if isinstance(v, int | str)}
    file.write_text(json.dumps({**found, "options": command, **told}, indent=1) + "\n")
    print(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["real", "lab", "page", "work"])
    parser.add_argument("file", nargs="?", type=Path, help="of a worker: its jobs")
    parser.add_argument("--work", type=Path, default=Path("runs/tradeoff"))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--pretraining", type=int, default=400, help="steps of the base")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two steps of few runs")
    options = parser.parse_args()
    if options.quick:
        globals().update(QUICK)
        options.seeds, options.tokens, options.pretraining = 1, 1000, 2
    if options.what == "work":
        worker(options.file)
    else:
        {"real": real, "lab": lab, "page": page}[options.what](options)


if __name__ == "__main__":
    main()
