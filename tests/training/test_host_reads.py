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
from torch.utils._python_dispatch import TorchDispatchMode

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


ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
"""Operations whose result, or its size, must come from the device before the next can be given to it."""


class Waits(TorchDispatchMode):
    """Counts what a process would wait for if its tensors lay on a device, by the file of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, given = function._schema.name.partition("::")[2], kwargs or {}
        places = args[1] if name in ("index", "index_put", "index_put_") else ()
        masked = any(at is not None and at.dtype == torch.bool for at in places)
        sized = "output_size" in given and given["output_size"] is not None
        repeated = name == "repeat_interleave" and not sized
        if masked or repeated or name.startswith(ASKING):
            files = [frame.filename for frame in traceback.extract_stack(limit=40)]
            ours = [file for file in files if "/onestage/" in file]
            where = "/".join(Path(ours[-1]).parts[-2:]) if ours else "not ours"
            # An optimiser counts its steps on the host.
            counting = any("torch/optim/" in file for file in files)
            if not counting and not where.endswith(ON_THE_HOST):
                self.found[f"{where} {name}"] += 1
        return function(*args, **given)


@pytest.mark.parametrize("kind", ["pair", "demonstration"])
def test_a_step_waits_for_its_device_once(
    kind: str, recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from inside torch, where an index by a mask is found, too, in a step of three rows."""
    waits, rows = Waits(), []
    take, passes = loop.take_step, loop.passes_of

    def step(*args: Any) -> Any:
        with waits:
            return take(*args)

    def row(*args: Any) -> int:
        rows.append(1)
        return passes(*args)

    monkeypatch.setattr(loop, "take_step", step)
    monkeypatch.setattr(loop, "passes_of", row)
    objective = {"pair": "dpo", "demonstration": "sft"}[kind]
    recipe = recipe_of(kind, objective=objective)
    recipe["train"] |= {"max_steps": 1, "batch_size": 8, "max_length": 64, "tokens_per_row": 64}
    build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None).go(self_check=False)
    assert len(rows) >= 3
    assert waits.found == {}


def test_waits_are_seen() -> None:
    numbers = torch.arange(6)
    with Waits() as waits:
        numbers[numbers > 2]
        numbers[numbers]
        torch.repeat_interleave(numbers, numbers)
        torch.repeat_interleave(numbers, numbers, output_size=15)
        numbers.sum().item()
        numbers[numbers > 4] = 0
    assert sum(waits.found.values()) == 4
