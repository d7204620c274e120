"""How many weights of a bfloat16 checkpoint move in 40 steps of AdamW at 5e-5, and where the loss goes.

The first row steps the bfloat16 weights themselves, in a loop of plain transformers and torch; the
others are runs of onestage. Weights are compared as they are in bfloat16. With `ONESTAGE_SMOLLM2` also
of that model.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import onestage as one
from bench.trust.templates import bytes_tokenizer
from onestage.runfolder import silent

STEPS, RATE = 40, 5e-5
TEXTS = (
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "Rice is cooked in a closed pot, with twice its measure of water, for fifteen minutes.",
    "A function that adds one to its argument is the smallest that is worth a name.",
    "Roses are red and violets are blue, and sugar is sweet in the morning tea.",
)


def table() -> str:
    lines = [
        "| model | what is stepped | weights that moved | loss of a text, before and after |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as root:
        for name, folder in _models(Path(root)):
            lines += _rows(name, folder, Path(root))
    return "\n".join(lines)


def _models(root: Path) -> list[tuple[str, Path]]:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 300}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(root / "tiny")
    bytes_tokenizer().save_pretrained(root / "tiny")
    real = Path(os.environ.get("ONESTAGE_SMOLLM2", "not there"))
    found = [("a tiny Llama", root / "tiny")]
    return [*found, ("SmolLM2-135M-Instruct", real)] if real.is_dir() else found


def _rows(name: str, folder: Path, root: Path) -> list[str]:
    start = _loaded(folder)
    before = _loss(start, folder)
    ways = {"bfloat16 weights themselves": _plain(folder)}
    for way, dtype in (("float32 masters (`dtype: auto`)", "auto"), ("float32", "float32")):
        done = one.train(
            model={"name": str(folder), "dtype": dtype},
            data=[{"text": text} for text in TEXTS],
            objective="sft",
            train={
                **{"max_steps": STEPS, "learning_rate": RATE, "batch_size": 4},
                **{"lr_scheduler_type": "constant", "max_length": 128},
            },
            out=root / f"{name} {dtype}",
            self_check=False,
            say=silent,
        )
        ways[way] = _loaded(done.model)
    return [
        f"| {name} | {way} | {_moved(start, model):.1%} | {before:.3f}, {_loss(model, folder):.3f} |"
        for way, model in ways.items()
    ]


def _loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def _loss(model: Any, folder: Path) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    losses = []
    with torch.no_grad():
        for text in TEXTS:
            ids = tokenizer(text, return_tensors="pt").input_ids
            losses.append(model.float()(ids, labels=ids).loss.item())
    return sum(losses) / len(losses)


def _plain(folder: Path) -> Any:
    """The model after as many steps on its own bfloat16 weights."""
    model, tokenizer = _loaded(folder), AutoTokenizer.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for _ in range(STEPS):
        for text in TEXTS:
            ids = tokenizer(text, return_tensors="pt").input_ids
            (model(ids, labels=ids).loss / len(TEXTS)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def _moved(start: Any, model: Any) -> float:
    """The share of weights that are others in bfloat16."""
    now = dict(model.named_parameters())
    changed = sum(
        (now[name].to(torch.bfloat16) != parameter.to(torch.bfloat16)).sum().item()
        for name, parameter in start.named_parameters()
    )
    return changed / sum(parameter.numel() for parameter in start.parameters())
