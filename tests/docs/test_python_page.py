"""docs/python.md and README: their blocks run as they are printed, one after the other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.markdown import blocks
from support.tiny import ROOT, make_tokenizer, tiny_llama, write_recipe, write_rows

PAGE = ROOT / "docs" / "python.md"
NAME = "Qwen/Qwen3-0.6B"  # the name on the page is a folder here: transformers looks there first
WORDS = "sea wind moon poem Paris red hello morning one two three four five six seven eight".split()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page speaks of, and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "cache"))
    tiny_llama().save_pretrained(tmp_path / NAME)
    make_tokenizer().save_pretrained(tmp_path / NAME)
    chat = [{"prompt": f"Question: {w}?", "completion": f" The answer is {w}."} for w in WORDS]
    pairs = [
        {"prompt": f"Question: {w}?", "chosen": f" It is {w}.", "rejected": f" Not {w}, no."}
        for w in WORDS
    ]
    write_rows(tmp_path / "chat.jsonl", chat)
    write_rows(tmp_path / "pairs.jsonl", pairs)
    numbers = [{"prompt": f"Make {n}.", "nums": [1, n - 1], "target": n} for n in (3, 4, 5)]
    write_rows(tmp_path / "countdown.jsonl", numbers)
    write_recipe(
        tmp_path / "recipe.yaml",
        {
            "model": NAME,
            "data": {"chat": "chat.jsonl"},
            "objective": "sft",
            "train": {"max_steps": 2, "batch_size": 4, "save_steps": 2, "logging_steps": 1},
        },
    )
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    for split in ("train", "validation", "test"):
        write_rows(held_out / f"demonstration.{split}.jsonl", chat)
        write_rows(held_out / f"pair.{split}.jsonl", pairs)
    write_recipe(
        tmp_path / "study.yaml",
        {
            "name": "small",
            "world": {
                **{"name": "folder", "model": NAME, "data": "held_out", "limit": 4},
                **{"answers": 1, "max_completion_length": 2},
            },
            "seeds": [0],
            "budget": {"updates": 1},
            "recipe": {
                "model": {"name": "{base}"},
                "data": [{"name": "demos", "path": "{data}/demonstration.train.jsonl"}],
                "train": {"batch_size": 4},
            },
            "methods": {"SFT": {"objective": "sft"}},
        },
    )
    return tmp_path


def test_every_block_runs_as_printed(place: Path) -> None:
    names: dict[str, Any] = {"__name__": "notebook"}
    for line, block in blocks(PAGE, "python"):
        # Padded, so that a traceback names the page's own line.
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)
    assert (place / "runs" / "first" / "model").is_dir()
    assert len(names["answers"]) == 1
    assert (place / "compared.html").is_file()
    assert names["merged"].folder.is_dir()
    assert names["loss"].item() < math.log(2)  # the last of the own loop's; the first is ln 2


def test_the_readme_s_block_runs(place: Path) -> None:
    names: dict[str, Any] = {}
    for _, block in blocks(ROOT / "README.md", "python"):
        exec(block, names)
    assert names["run"].done


def test_the_loop_of_one_s_own_is_short() -> None:
    _, loop = blocks(PAGE, "python")[-1]
    assert "optimizer.step()" in loop
    assert len(loop.strip().splitlines()) <= 25
