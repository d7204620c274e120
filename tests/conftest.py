"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.endpoint import endpoint  # noqa: F401 - a fixture
from support.tiny import TINY, make_tokenizer, tiny_llama, write_rows
from transformers import PreTrainedTokenizerFast

from onestage.models import rates
from onestage.rollout.rewards import _pool as pool

# The console reads its width when it is made: a width set outside would fold what tests look for.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="module", autouse=True)
def imported_for_good() -> None:
    """What is there before a file's tests is no garbage of theirs. Stages, ranks and libraries collect
    all garbage again and again, and looking through a million objects of imports each time took two
    fifths of the suite."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def as_on_any_processor() -> None:
    """What is said of a precision that a processor is slow in would stand in some machines' lines."""
    rates.SLOW = math.inf


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> None:
    """Nothing is waited for until it is on the disk: 27,000 times, a tenth of the suite. That it is
    asked for is tested where it matters, and processes that tests start do wait."""
    os.fsync = lambda _: None


@pytest.fixture(scope="session", autouse=True)
def one_checker() -> Iterator[None]:
    """One process that checks answers, where a second would start and import for two of them."""
    with closing(pool.Pool(workers=1)) as alone:
        pool._shared = alone
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer, saved as a model folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


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
