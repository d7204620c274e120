"""Countdown with three numbers, learnt by a small model from little supervision: SFT, RFT, R3 and UFT.

    python bench/countdown.py run OUT     # a base model and runs of two seeds, kept in OUT
    python bench/countdown.py page OUT    # results/countdown.json and the figure of docs/countdown.md
    python bench/countdown.py run OUT --base MODEL    # adapters on a pretrained model, in short
    python bench/countdown.py page OUT --base MODEL    # results/countdown_real.json
    python bench/countdown.py run OUT --quick    # two steps of everything: that it runs, no more

Liu et al. 2025 (arXiv 2505.16984), figure 4 in small. Solutions are searches: the numbers are added and
subtracted in one way after the other, step by step, until one way hits the target (which stands
behind every line). A Llama of
0.35 million parameters is pretrained on arithmetic text: equations, and searches that answer with their
last line. Of the searches one in five stops where it hits the target in its header; the others stop
anywhere, under a target of no meaning. So the base knows how to calculate, to use the numbers it is
given and to write an answer, and has seen what a target is for without having learnt to go by it.
Then every method learns from the same 300 problems with worked solutions, and is examined greedily,
without hints, on problems that nobody has seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
GIVEN, TARGET, OPERATORS = (1, 9), (1, 27), "+-"
PROBLEMS, EXAM, ORDERS = 300, 40, 5
"""Problems to train on, all with a worked solution; problems that are only examined, and the most
orders in which their numbers are given."""
TEXTS, BASE_STEPS = 80_000, 2000
"""Pieces of pretraining text, and steps on them."""
MEANT = 0.2
"""Part of the searches in the pretraining text that stop at their target."""
STEPS, HINT_STEPS, EVAL_STEPS = 120, 72, 12
SFT_STEPS, SFT_EVAL_STEPS = 94, 12
"""Five passes over the worked solutions, as in the paper."""
PROMPTS, GROUP, LONGEST, MAX_LENGTH = 16, 8, 112, 250
"""Problems of a step, completions of a problem, and tokens of a completion at most; and with its prompt
and the longest hint before it."""
RATE = {"rl": 3e-4, "sft": 1e-3}
WARMUP = 10
LAYERS, WIDTH = 3, 96
SEEDS = (0, 1)
QUICK: dict[str, Any] = {
    **{"PROBLEMS": 6, "EXAM": 2, "ORDERS": 1, "TEXTS": 100, "BASE_STEPS": 2},
    **{"STEPS": 2, "EVAL_STEPS": 2, "SFT_STEPS": 2, "PROMPTS": 2, "GROUP": 2, "LONGEST": 12},
    **{"FORM": 4, "FORM_STEPS": 2},
}
"""What `--quick` sets these to."""
REAL: dict[str, Any] = {
    **{"PROBLEMS": 64, "EXAM": 40, "ORDERS": 1, "STEPS": 24, "HINT_STEPS": 15, "EVAL_STEPS": 12},
    **{"SFT_STEPS": 80, "SFT_EVAL_STEPS": 40, "PROMPTS": 4, "GROUP": 4, "LONGEST": 64},
    **{"MAX_LENGTH": 320, "SEEDS": (0,), "RATE": {"rl": 2e-4, "sft": 3e-4}, "WARMUP": 4},
}
"""With `--base`: five passes over 64 solutions, and 384 completions."""
FORM, FORM_STEPS, FORM_RATE = 64, 48, 1e-4
"""With `--base`: other problems with worked solutions, from which the whole model learns to write
answers in their tags before any method begins, and steps on them and their learning rate. What never
writes an answer is never paid."""
BASE: str | None = None

GRPO = {"name": "grpo", "beta": 0.001, "entropy_coef": 0.001}
UFT = {"name": "hinted", "entropy_coef": 0.001}
EXAMINED: dict[str, Any] = {
    "objective": {"demonstration": "sft", "check": GRPO},
    "schedule": {"name": "mix", "weights": {"sft": 1.0, "grpo": 0.0}},
}
"""Of SFT: the problems are only examined."""
WEIGHTS = {"hinted": 1.0, "sft": 1.0, "dpo": 1.0}
METHODS: dict[str, dict[str, Any]] = {
    "SFT": {"stages": ["sft"]},
    "RFT": {"stages": ["rl"], "objective": GRPO},
    "SFT then RFT": {"stages": ["sft", "rl"], "objective": GRPO},
    "R3": {"stages": ["rl"], "objective": GRPO, "hint": "uniform"},
    "UFT": {"stages": ["rl"], "objective": UFT, "hint": "cosine"},
    "mix": {"stages": ["all"], "schedule": {"name": "mix", "weights": WEIGHTS}},
    "maxright": {"stages": ["all"], "schedule": {"name": "maxright", "weights": WEIGHTS}},
}
"""The last two train on worked solutions, pairs of right and wrong ones, and problems in one run."""


def tokenizer() -> Any:
    """Digits one by one; operators with their spaces, and the fixed phrases, are one token each."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    phrases = ["<answer> ", " </answer>"]
    marks = [f" {mark} " for mark in "+-=|"]
    words = ["<pad>", "<s>", "</s>", "<unk>", *phrases, *marks, *"0123456789", *"- \n"]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    pattern = "|".join([*phrases, r" [-+=|] ", r"\d", r"[\s\S]"])
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **names)


def pretraining_text(seed: int, count: int) -> Iterator[str]:
    """Equations, and searches; of these one in five knows its target, the others stop anywhere."""
    draw = random.Random(seed)
    for number in range(count):
        numbers = [draw.randint(*GIVEN) for _ in range(3)]
        if number % 2:
            others = [[draw.randint(*GIVEN) for _ in range(3)] for _ in range(5)]
            yield "\n".join(draw.choice(ways(one))[0] for one in others)
        else:
            known = draw.random() < MEANT
            target = draw.choice(ways(numbers))[2] if known else draw.randint(*TARGET)
            lines, answer = search(numbers, target, target if known else None, draw)
            yield f"{' '.join(map(str, numbers))} = {target}\n{''.join(lines)}{answer}"


def ways(numbers: list[int]) -> list[tuple[str, str, int]]:
    """Every way to add and subtract three numbers: line, expression and result."""
    found = []
    for signs in itertools.product("+-", repeat=3):
        plus, minus = ([n for n, s in zip(numbers, signs, strict=True) if s == k] for k in "+-")
        if plus:
            first, *rest = [(n, "+") for n in plus] + [(n, "-") for n in minus]
            line = expression = str(first[0])
            result = first[0]
            for number, sign in rest:
                result += number if sign == "+" else -number
                line += f" {sign} {number} = {result}"
                expression += f" {sign} {number}"
            found.append((line, expression, result))
    return found


def search(
    numbers: list[int], shown: int, target: int | None, draw: random.Random
) -> tuple[list[str], str]:
    """The lines of a search, each with the number `shown` behind it, and its answer; without a target
    it stops anywhere."""
    tried = draw.sample(ways(numbers), 7)
    last = draw.randrange(5)
    if target is not None:
        last = next(n for n, (_, _, result) in enumerate(tried) if result == target)
    lines = [f"{line} | {shown}\n" for line, _, _ in tried[: last + 1]]
    return lines, f"<answer> {tried[last][1]} </answer>"


def worked(rows: Any, seed: int) -> Iterator[dict[str, Any]]:
    """The problems with searches as their solutions."""
    draw = random.Random(seed)
    for row in rows:
        lines, answer = search(list(row["nums"]), row["target"], row["target"], draw)
        facts = {"nums": row["nums"], "target": row["target"]}
        completion = "".join(lines) + answer
        yield {"prompt": row["prompt"], "solution": lines, "completion": completion, **facts}


def exam(rows: Any) -> Iterator[dict[str, Any]]:
    """Each problem with its numbers in several orders: nobody has trained on any of these."""
    for row in rows:
        for nums in sorted(set(itertools.permutations(row["nums"])))[:ORDERS]:
            prompt = f"{' '.join(map(str, nums))} = {row['target']}\n"
            yield {"prompt": prompt, "nums": list(nums), "target": row["target"]}


def pairs(rows: list[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """The worked answer against a search that stops too early, or goes past the target."""
    draw = random.Random(seed)
    for row in rows:
        while True:
            lines, answer = search(list(row["nums"]), row["target"], None, draw)
            if not lines[-1].endswith(f" = {row['target']} | {row['target']}\n"):
                break
        wrong = "".join(lines) + answer
        yield {"prompt": row["prompt"], "chosen": row["completion"], "rejected": wrong}


def write(file: Path, rows: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def files(out: Path, seed: int) -> dict[str, Path]:
    """The problems of a seed; the exam is the same for all."""
    from onestage.rollout.rewards.countdown import Countdown

    how: dict[str, Any] = {"numbers": (3, 3), "given": GIVEN, "target": TARGET}
    how |= {"operators": OPERATORS, "template": "short" if BASE is None else "tinyzero"}
    folder = out / f"data{seed}"
    found = {name: folder / f"{name}.jsonl" for name in ("train", "pairs", "exam", "text", "form")}
    if found["train"].exists():
        return found
    if BASE is None:
        rows = list(worked(Countdown.rows(PROBLEMS, seed=seed, **how, split="train"), seed))
        write(found["pairs"], pairs(rows, seed))
        write(found["exam"], exam(Countdown.rows(EXAM, seed=0, **how, split="test")))
        write(found["text"], ({"text": text} for text in pretraining_text(seed, TEXTS)))
    else:
        drawn = list(Countdown.rows(FORM + PROBLEMS, seed=seed, **how, split="train"))
        form, rows = drawn[:FORM], drawn[FORM:]
        write(found["form"], form)
        write(found["exam"], Countdown.rows(EXAM, seed=0, **how, split="test"))
    write(found["train"], rows)
    return found


def base(out: Path, seed: int) -> Path:
    """The pretrained model of a seed; made once."""
    model = folder_of(out, "base", seed) / "model"
    if model.exists():
        return model
    if BASE is not None:
        rows = files(out, seed)
        form = {"name": "form", "path": str(rows["form"]), "kind": "demonstration"}
        how = {"max_steps": FORM_STEPS, "eval_steps": FORM_STEPS, "learning_rate": FORM_RATE}
        recipe = {
            "model": {"name": BASE, "dtype": "float32"},
            "data": [form, problems_of(rows)],
            **EXAMINED,
            "train": {**options(seed), **how},
            **sampled(out),
        }
    else:
        words = tokenizer()
        words.save_pretrained(out / "tokenizer")
        recipe = {
            "model": {
                "config": {
                    "model_type": "llama",
                    "vocab_size": len(words),
                    "hidden_size": WIDTH,
                    "num_hidden_layers": LAYERS,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 4,
                    "intermediate_size": 3 * WIDTH,
                    "max_position_embeddings": 256,
                    "tie_word_embeddings": True,
                    "bos_token_id": 1,
                    "eos_token_id": 2,
                    "pad_token_id": 0,
                },
                "tokenizer": str(out / "tokenizer"),
            },
            "data": [{"name": "text", "path": str(files(out, seed)["text"]), "kind": "text"}],
            "objective": "sft",
            "train": {
                "max_steps": BASE_STEPS,
                "batch_size": 32,
                "learning_rate": 5e-3,
                "lr_scheduler_type": "cosine",
                "warmup_ratio": 0.03,
                "max_length": 160,
                "tokens_per_row": 2048,
                "logging_steps": 250,
                "seed": seed,
            },
            "cache_dir": str(out / "cache"),
        }
    train(recipe, model.parent)
    return model


def problems_of(rows: dict[str, Path], hint: str = "none") -> dict[str, Any]:
    """The stream of the problems, with their exam."""
    how: Any = {"name": "cosine", "hint_steps": HINT_STEPS} if hint == "cosine" else hint
    found = {"name": "problems", "path": str(rows["train"]), "kind": "check", "hint": how}
    return {**found, "reward": "countdown", "eval_path": str(rows["exam"])}


def sampled(out: Path) -> dict[str, Any]:
    rollout = {"num_generations": GROUP, "max_completion_length": LONGEST}
    return {"rollout": rollout, "cache_dir": str(out / "cache")}


def options(seed: int) -> dict[str, Any]:
    return {
        "batch_size": PROMPTS,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": WARMUP,
        "max_length": MAX_LENGTH,
        "tokens_per_row": 2048,
        "logging_steps": 5,
        "eval_steps": EVAL_STEPS,
        "save_steps": EVAL_STEPS,
        "save_total_limit": 1,
        "seed": seed,
    }


def recipe_of(out: Path, method: str, seed: int) -> dict[str, Any]:
    """A run of a method, with the same problems, updates and sampled completions as the others."""
    how, rows = METHODS[method], files(out, seed)
    problems = problems_of(rows, how.get("hint", "none"))
    demonstrations = {"name": "worked", "path": str(rows["train"]), "kind": "demonstration"}
    paired = {"name": "pairs", "path": str(rows["pairs"])}
    sections: dict[str, dict[str, Any]] = {
        "sft": {
            "data": [demonstrations, problems_of(rows)],
            **EXAMINED,
            "train": {
                "max_steps": SFT_STEPS,
                "eval_steps": SFT_EVAL_STEPS,
                "learning_rate": RATE["sft"],
            },
        },
        "rl": {
            "data": [problems],
            "objective": how.get("objective"),
            "train": {"max_steps": STEPS, "learning_rate": RATE["rl"]},
        },
        "all": {
            "data": [demonstrations, paired, problems_of(rows, "cosine")],
            "objective": {"worked": "sft", "pairs": "dpo", "problems": UFT},
            "schedule": how.get("schedule"),
            "optimum": {"given": {"hinted": -1.0}},
            "train": {"max_steps": STEPS, "learning_rate": RATE["rl"]},
        },
    }
    lora = {"dtype": "float32", "lora": {"r": 16, "alpha": 32}}
    common = {
        "model": {"name": str(base(out, 0)), **(lora if BASE is not None else {})},
        **sampled(out),
    }
    chosen = [sections[name] for name in how["stages"]]
    chosen = [{**section, "train": options(seed) | section["train"]} for section in chosen]
    if len(chosen) == 1:
        return {**common, **chosen[0]}
    streams = [demonstrations, problems]
    stages = []
    for name, section in zip(how["stages"], chosen, strict=True):
        names = ["worked", "problems"] if name == "sft" else ["problems"]
        rest = {key: value for key, value in section.items() if key != "data"}
        stages.append({"name": name, "streams": names, **rest})
    stages[1]["reference"] = "start"
    if BASE is not None:
        stages[1]["adapter"] = "same"
    return {**common, "data": streams, "objective": GRPO, "stages": stages}


def train(recipe: dict[str, Any], folder: Path) -> None:
    """A run that was stopped goes on from its checkpoint, or begins anew."""
    from onestage.runfolder.following import begun
    from onestage.training.pipeline import carry_out
    from onestage.training.recipe import parse_recipe

    carry_out(parse_recipe(recipe), folder, resume=begun(folder))


def folder_of(out: Path, method: str, seed: int) -> Path:
    return out / f"{method.replace(' ', '_')}-{seed}"


def one(out: Path, method: str, seed: int) -> None:
    """A single run, in this process."""
    import torch

    torch.set_num_threads(1)
    if method == "base":
        base(out, seed)
    else:
        train(recipe_of(out, method, seed), folder_of(out, method, seed))


def run(out: Path, methods: list[str], seeds: list[int], jobs: int, more: list[str]) -> None:
    """Everything that is not there yet, in processes of one thread; `more`: words for each."""
    out.mkdir(parents=True, exist_ok=True)
    for wanted in ([("base", 0)], [(method, seed) for seed in seeds for method in methods]):
        todo = [job for job in wanted if not (folder_of(out, *job) / "model").exists()]
        with ThreadPoolExecutor(jobs) as pool:
            for failed in pool.map(lambda job: _apart(out, *job, more), todo):
                if failed:
                    print(failed)


def _apart(out: Path, method: str, seed: int, more: list[str]) -> str:
    log = out / f"{method.replace(' ', '_')}-{seed}.log"
    command = [sys.executable, __file__, "one", str(out), method, str(seed), *more]
    with log.open("w") as file:
        done = subprocess.run(
            command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    return f"{method} {seed} failed: see {log}" if done.returncode else ""


def curves(out: Path, method: str, seed: int) -> list[dict[str, float]]:
    """Step, sampled tokens and exam of a run; of stages, one behind the other."""
    points: list[dict[str, float]] = []
    folder = folder_of(out, method, seed)
    parts = sorted(folder.glob("[0-9]*-*")) or [folder]
    before = tokens = 0.0
    for part in parts:
        lines = [json.loads(line) for line in (part / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            if "rollout/seconds" in line:
                tokens += line["rollout/tokens_per_second"] * line["rollout/seconds"]
            if "eval/problems/success" in line:
                exam = line["eval/problems/success"]
                points.append({"step": before + line["step"], "sampled": tokens, "exam": exam})
        before += lines[-1]["step"]
    return points


def page(out: Path) -> None:
    """`results/countdown.json` and the figure, from the runs in `out`."""
    found = {
        method: {
            str(s): curves(out, method, s) for s in SEEDS if folder_of(out, method, s).exists()
        }
        for method in (*METHODS, *["base"] * (BASE is not None))
    }
    RESULTS.mkdir(exist_ok=True)
    name = "countdown" if BASE is None else "countdown_real"
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    if BASE is None:
        draw(found)
    for method, runs in found.items():
        ends = {seed: [p["exam"] for p in points] for seed, points in runs.items() if points}
        print(f"{method:14} {ends}")


def draw(found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "onestage"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for method, runs in found.items():
        some = [points for points in runs.values() if points]
        if not some:
            continue
        length = min(map(len, some))
        mean = [statistics.mean(points[n]["exam"] for points in some) for n in range(length)]
        low, high = ([f(p[n]["exam"] for p in some) for n in range(length)] for f in (min, max))
        for axis, key in zip(axes, ("step", "sampled"), strict=True):
            at = [statistics.mean(points[n][key] for points in some) for n in range(length)]
            (line,) = axis.plot(at, mean, label=method, linewidth=1.5)
            axis.fill_between(at, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
            axis.set_xlabel({"step": "updates", "sampled": "sampled tokens"}[key])
    axes[0].set_ylabel("exam: share of unseen problems solved")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    target = HERE.parent / "docs" / "figures" / "countdown.svg"
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "one", "page"])
    parser.add_argument("out", type=Path)
    parser.add_argument("method", nargs="?")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--methods", nargs="*", help="all; with --base, those of one kind of data")
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--base", help="a pretrained model folder, in the place of one made here")
    parser.add_argument("--quick", action="store_true", help="two steps of everything")
    given = parser.parse_args()
    out = given.out.resolve()
    if given.base:
        if not Path(given.base).is_dir():
            parser.error(f"--base {given.base}: there is no such folder")
        globals().update(REAL, BASE=given.base)
    if given.quick:
        globals().update(QUICK)
    if given.what == "one":
        one(out, given.method, given.seed)
    elif given.what == "run":
        more = ["--quick"] * given.quick + ["--base", given.base] * bool(given.base)
        alone = (m for m in METHODS if BASE is None or METHODS[m]["stages"] != ["all"])
        run(out, given.methods or list(alone), given.seeds or list(SEEDS), given.jobs, more)
    else:
        page(out)


if __name__ == "__main__":
    main()
