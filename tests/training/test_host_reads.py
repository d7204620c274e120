"""A step asks its device for numbers once, however many rows it has: each time the process waits until
the device has done all that it was given, and has nothing to do until it is given more."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onestage.runfolder import read_metrics
from onestage.training import loop
from onestage.training.build import build
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
READS = ("cpu", "tolist", "item", "numpy", "__float__", "__bool__", "__int__", "__index__")
ON_THE_HOST = ("models/attention.py", "training/terms.py")
"""What these read is of the feedback, or of the mask of the CPU's own attention: it lies on the host."""


@contextmanager
def counted(found: Counter[str]) -> Iterator[None]:
    """Counts what is read of tensors, by the file of ours that does."""

    def watched(name: str, real: Any) -> Any:
        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            ours = [
                f.filename for f in traceback.extract_stack(limit=8) if "onestage" in f.filename
            ]
            if ours and not ours[-1].endswith(ON_THE_HOST):
                found["/".join(Path(ours[-1]).parts[-2:]) + f" {name}"] += 1
            return real(self, *args, **kwargs)

        return read

    with pytest.MonkeyPatch.context() as patch:
        for name in READS:
            patch.setattr(Tensor, name, watched(name, getattr(Tensor, name)))
        yield


def reads_of_a_step(
    recipe: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, Counter[str]]:
    """Rows of a step, and what was read in it."""
    found: Counter[str] = Counter()
    rows: list[int] = []
    take, passes = loop.take_step, loop.passes_of

    def step(*args: Any) -> Any:
        with counted(found):
            return take(*args)

    def row(*args: Any) -> int:
        rows.append(1)
        return passes(*args)

    monkeypatch.setattr(loop, "take_step", step)
    monkeypatch.setattr(loop, "passes_of", row)
    build(parse_recipe(recipe), out, say=lambda line: None).go(self_check=False)
    monkeypatch.undo()
    return len(rows), found


RUNS = {
    "uft of every kind": {"objective": {"name": "uft", "beta": 0.1, "offset": "learned"}},
    "what a schedule observes": {
        "objective": {"demonstration": "sft", "pair": "dpo"},
        "schedule": "maxright",
        "optimum": {"given": {"dpo": 0.0, "sft": 0.0}},
    },
    "a running mean": {"objective": "kto"},
}
KINDS = {
    "uft of every kind": ("demonstration", "score", "pair", "group"),
    "what a schedule observes": ("demonstration", "pair"),
    "a running mean": ("label", "pair"),
}


@pytest.mark.parametrize("run", RUNS)
def test_reads_of_a_step_do_not_grow_with_its_rows(
    run: str, recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for size in (64, 512):
        recipe = recipe_of(*KINDS[run], **RUNS[run])
        recipe["train"] |= {
            "max_steps": 1,
            "batch_size": 24,
            "max_length": 64,
            "tokens_per_row": size,
        }
        out = tmp_path / str(size)
        rows, reads = reads_of_a_step(recipe, out, monkeypatch)
        found[size] = (rows, reads, read_metrics(out)[0]["loss"])
    (many, reads, loss), (few, same, again) = found.values()
    assert many >= few + 2, (many, few)
    assert reads == same == {"training/loop.py tolist": 1}
    assert loss == pytest.approx(again, rel=1e-5)


def test_the_count_sees_what_is_read() -> None:
    """The test above would pass with a counter that sees nothing."""
    found: Counter[str] = Counter()
    with counted(found):
        loop._read(torch.ones(2), torch.ones(1))
        loop._read(torch.ones(2))
    assert found == {"training/loop.py tolist": 2}
