"""Countdown with three numbers, learnt by a small model from little supervision: SFT, RFT, R3 and UFT.

    python bench/countdown.py run OUT     # base models and runs of two seeds, kept in OUT
    python bench/countdown.py page OUT    # results/countdown.json and the figure of docs/countdown.md

Liu et al. 2025 (arXiv 2505.16984), figure 4 in small. A Llama of 0.8 million parameters is pretrained on
arithmetic text: equations, and derivations in the form of worked solutions whose header names a target
that has nothing to do with them. So the base knows how to calculate, to use the numbers it is given and
to write an answer, and reaches a target by chance. Then every method learns from the same 500 problems
with worked solutions, and is examined greedily, without hints, on problems that nobody has seen.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
GIVEN, TARGET, OPERATORS = (1, 25), (10, 100), "+-*"
PROBLEMS, EXAM, WATCHED = 500, 400, 100
"""Problems to train on, in the exam at the end, and in those along the way."""
STEPS, HINT_STEPS, EVAL_STEPS = 300, 180, 25
PROMPTS, GROUP, LONGEST = 16, 8, 48
"""Problems of a step, completions of a problem, and tokens of a completion at most."""
RATE = {"rl": 1e-3, "sft": 1e-3}
LAYERS, WIDTH = 3, 96

GRPO = {"name": "grpo", "beta": 0.001, "kl_estimator": "k3", "entropy_coef": 0.001}
UFT = {"name": "hinted", "beta": 0.001, "hint_coef": 0.001, "entropy_coef": 0.001}
COSINE = {"name": "cosine", "hint_steps": HINT_STEPS}
METHODS: dict[str, dict[str, Any]] = {
    "SFT": {"stages": ["sft"]},
    "RFT": {"stages": ["rl"], "objective": GRPO, "hint": "none"},
    "SFT then RFT": {"stages": ["sft", "rl"], "objective": GRPO, "hint": "none"},
    "R3": {"stages": ["rl"], "objective": GRPO, "hint": "uniform"},
    "cosine": {"stages": ["rl"], "objective": GRPO, "hint": COSINE},
    "UFT": {"stages": ["rl"], "objective": UFT, "hint": COSINE},
}


def tokenizer() -> Any:
    """Digits one by one; operators with their spaces, and the fixed phrases, are one token each."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    phrases = ["Therefore, the final equation is ", "\n<answer> ", " </answer>"]
    marks = [f" {mark} " for mark in "+-*/="]
    words = ["<pad>", "<s>", "</s>", "<unk>", *phrases, *marks, *"0123456789", *"()- \n"]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    pattern = "|".join([*phrases, r" [-+*/=] ", r"\d", r"[\s\S]"]).replace("(", r"\(")
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **names)


def pretraining_text(seed: int, count: int) -> Iterator[str]:
    """Equations, and derivations from three numbers to whatever comes out, under another target."""
    draw = random.Random(seed)
    for number in range(count):
        if number % 2:
            lines = []
            for _ in range(5):
                (a, b), op = draw.choices(range(1, 101), k=2), draw.choice(OPERATORS)
                a, b = (a, b) if op != "*" else (a % 25 + 1, b % 25 + 1)
                a, b = (max(a, b), min(a, b)) if op == "-" else (a, b)
                lines.append(f"{a} {op} {b} = {_result(a, op, b)}")
            yield "\n".join(lines)
            continue
        numbers = [draw.randint(*GIVEN) for _ in range(3)]
        pool = [(n, str(n)) for n in numbers]
        lines = []
        while len(pool) > 1:
            draw.shuffle(pool)
            (a, left), (b, right), op = pool.pop(), pool.pop(), draw.choice(OPERATORS)
            if op == "-" and a < b:
                a, left, b, right = b, right, a, left
            pool.append((_result(a, op, b), f"({left} {op} {right})"))
            lines.append(f"{a} {op} {b} = {pool[-1][0]}")
        whole = pool[0][1][1:-1]
        header = f"{' '.join(map(str, numbers))} = {draw.randint(*TARGET)}"
        solved = f"Therefore, the final equation is {whole}\n<answer> {whole} </answer>"
        yield "\n".join([header, *lines, solved])


def _result(a: int, op: str, b: int) -> int:
    return a + b if op == "+" else a - b if op == "-" else a * b


def write(file: Path, rows: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def files(out: Path, seed: int) -> dict[str, Path]:
    """The problems of a seed; the exam is the same for all."""
    from onestage.problems.countdown import generate

    how = {"numbers": (3, 3), "given": GIVEN, "target": TARGET, "operators": OPERATORS}
    how = {**how, "template": "short"}
    folder = out / f"data{seed}"
    found = {name: folder / f"{name}.jsonl" for name in ("train", "exam", "watched", "text")}
    if not found["text"].exists():
        write(found["train"], generate(PROBLEMS, seed=seed, **how, split="train"))
        exam = list(generate(EXAM + WATCHED, seed=0, **how, split="test"))
        write(found["exam"], exam[:EXAM])
        write(found["watched"], exam[EXAM:])
        write(found["text"], ({"text": text} for text in pretraining_text(seed, 60_000)))
    return found


def base(out: Path, seed: int) -> Path:
    """The pretrained model of a seed; made once."""
    folder = out / f"base{seed}"
    if not (folder / "model").exists():
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
                    "max_position_embeddings": 128,
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
                "max_steps": 1800,
                "batch_size": 32,
                "learning_rate": 5e-3,
                "lr_scheduler_type": "cosine",
                "warmup_ratio": 0.03,
                "max_length": 128,
                "tokens_per_row": 1024,
                "logging_steps": 250,
                "seed": seed,
            },
            "cache_dir": str(out / "cache"),
        }
        train(recipe, folder)
    return folder / "model"


def recipe_of(out: Path, method: str, seed: int) -> dict[str, Any]:
    """A run of a method; SFT takes a third of the steps, so that it sees its rows ten times."""
    how, rows = METHODS[method], files(out, seed)
    stream = {"name": "countdown", "path": str(rows["train"]), "kind": "check"}
    stream |= {"reward": "countdown", "eval_path": str(rows["watched"])}
    sft = {
        "data": [{**stream, "kind": "demonstration"}],
        "objective": "sft",
        "train": {"max_steps": STEPS // 3, "learning_rate": RATE["sft"]},
    }
    watched = {"name": "watched", "path": str(rows["watched"]), "kind": "check", "weight": 0}
    watched |= {"reward": "countdown", "eval_path": str(rows["watched"])}
    for section in sft["data"]:
        section.pop("reward")
        section.pop("eval_path")
    sft["data"].append(watched)
    sft["objective"] = {"demonstration": "sft", "check": "grpo"}
    rl = {
        "data": [{**stream, "hint": how.get("hint", "none")}],
        "objective": how.get("objective"),
        "train": {"max_steps": STEPS, "learning_rate": RATE["rl"]},
    }
    common = {
        "model": {"name": str(base(out, seed))},
        "rollout": {"num_generations": GROUP, "max_completion_length": LONGEST},
        "cache_dir": str(out / "cache"),
    }
    train_options = {
        "batch_size": PROMPTS,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 10,
        "max_length": 128,
        "tokens_per_row": 2048,
        "logging_steps": 5,
        "eval_steps": EVAL_STEPS,
        "seed": seed,
    }
    sections = [{"sft": sft, "rl": rl}[name] for name in how["stages"]]
    if len(sections) == 1:
        return {**common, **sections[0], "train": {**train_options, **sections[0]["train"]}}
    stages = [
        {"name": name, **section, "train": {**train_options, **section["train"]}}
        for name, section in zip(how["stages"], sections, strict=True)
    ]
    return {**common, "data": stages[0]["data"], "stages": stages}


def train(recipe: dict[str, Any], out: Path) -> None:
    from onestage import parse_recipe, run_recipe, run_stages

    parsed = parse_recipe(recipe)
    if parsed.stages:
        run_stages(parsed, out)
    else:
        run_recipe(parsed, out)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    out = Path(sys.argv[2])
    if sys.argv[1] == "base":
        base(out, int(sys.argv[3]))
    else:
        method, seed = sys.argv[3], int(sys.argv[4])
        train(recipe_of(out, method, seed), out / f"{method.replace(' ', '_')}-{seed}")
