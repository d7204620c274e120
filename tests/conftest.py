"""Small real things to test with: a trained tokenizer, transformers' own model classes, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from onestage.forest.trees import Path as TokenPath

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

REAL_DATA = Path(__file__).parents[1].parent / "shared" / "data"

CORPUS = [
    "Question: what is the capital of France? Answer: The capital of France is Paris.",
    "Write a short poem about the sea, the wind and the moon.\n\nRoses are red.",
    "Human: hello there! Assistant: good morning, how can I help you today?",
    "one two three four five six seven eight nine ten 0123456789",
]
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make_tokenizer(vocab_size: int = 400, chat: str | None = CHAT) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that puts BOS in front, as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    wrapped.chat_template = chat
    return wrapped


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return folder


TINY = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def sharpen(model: Any, factor: float = 3.0) -> Any:
    """Larger random weights, so that a wrong mask or head shows in the log-probabilities."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return model


def tiny_llama(seed: int = 0, attention: str = "sdpa") -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(**TINY)
    return sharpen(AutoModelForCausalLM.from_config(config, attn_implementation=attention)).eval()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer, saved as a model folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def token_path(
    ids: Iterable[int], *spans: tuple[int, int], responses: tuple[int, ...] | None = None
) -> TokenPath:
    numbers = responses if responses is not None else tuple(range(len(spans)))
    return TokenPath(np.asarray(list(ids), np.int32), spans, numbers)


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def rows() -> dict[str, list[dict[str, Any]]]:
    """A few rows of every kind."""
    words = ["sea", "wind", "moon", "poem", "Paris", "red", "hello", "morning"]
    good, bad = "The answer is {}.", "No {} at all, no."
    return {
        "demonstration": [
            {"prompt": f"Question: {w}? Answer:", "completion": " " + good.format(w)} for w in words
        ]
        + [
            {
                "messages": [
                    {"role": "user", "content": f"say {w}"},
                    {"role": "assistant", "content": good.format(w)},
                    {"role": "user", "content": "again"},
                    {"role": "assistant", "content": w},
                ]
            }
            for w in words[:2]
        ],
        "score": [
            {"prompt": f"rate {w}", "completion": f" {w} {w}", "score": i / 7}
            for i, w in enumerate(words)
        ],
        "label": [
            {"prompt": f"like {w}?", "completion": f" yes {w}", "label": i % 2 == 0}
            for i, w in enumerate(words)
        ],
        "pair": [
            {
                "prompt": f"Question: {w}? Answer:",
                "chosen": " " + good.format(w),
                "rejected": " " + bad.format(w),
            }
            for w in words
        ],
        "group": [
            {
                "prompt": f"about {w}",
                "completions": [f" {w}", f" {w} and {w}", " nothing"],
                "scores": [1.0, 0.6, 0.1],
            }
            for w in words
        ],
        "text": [{"text": f"Roses are {w} and the sea is {w}."} for w in words],
    }


@pytest.fixture
def recipe_of(
    tmp_path: Path, tokenizer_folder: Path, rows: dict[str, list[dict[str, Any]]]
) -> Callable[..., dict[str, Any]]:
    """A recipe as plain data: a fresh tiny Llama on one file for each of the given kinds."""

    def make(*kinds: str, **changes: Any) -> dict[str, Any]:
        data = []
        for kind in kinds or tuple(rows):
            file = write_rows(tmp_path / f"{kind}.jsonl", rows[kind])
            data.append({"name": f"{kind}s", "path": str(file)})
        recipe: dict[str, Any] = {
            "model": {
                "config": {"model_type": "llama", **TINY},
                "tokenizer": str(tokenizer_folder),
            },
            "data": data,
            "objective": {"name": "uft", "beta": 0.1},
            "train": {
                "max_steps": 4,
                "batch_size": 6,
                "learning_rate": 1e-2,
                "max_length": 128,
                "tokens_per_row": 256,
                "logging_steps": 1,
                "lr_scheduler_type": "constant",
            },
            "cache_dir": str(tmp_path / "cache"),
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            if name:
                recipe[section] = {**recipe[section], name: value}
            else:
                recipe[section] = value
        return recipe

    return make


def train_on_two_processes(recipe: Path, out: Path) -> None:
    """`onestage train` under torchrun, two processes on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "onestage.cli", "train", str(recipe), "--out", str(out)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def write_recipe(file: Path, content: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(content))
    return file
