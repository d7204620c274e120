"""A step asks its device for numbers once, however many rows it has: each time the process waits until
the device has done all that it was given, and has nothing to do until it is given more."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from onestage import objectives
from onestage.objectives import Scored
from onestage.objectives._host import sent
from onestage.objectives._trial import trained
from onestage.runfolder import read_metrics
from onestage.training import loop
from onestage.training.build import build
from onestage.training.metrics import Tally, measure
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


SOME: dict[str, dict[str, Any]] = {
    "uft": {"offset": "learned", "pairs": "score"},
    "bradley_terry": {"margin": "score", "target": "soft"},
    "hinted": {"hint_reduction": "token", "loss_type": "grpo"},
    "reinforce": {"baseline": "running"},
}
"""Options under which an objective reads more than by default."""


def on_meta(batch: Scored) -> Scored:
    """Names and shapes of a batch, without numbers; the feedback is known on the host."""

    def there(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value_K.to("meta") for name, value_K in values.items()}

    known = replace(batch.feedback, scored=len(batch.response_K))
    return replace(
        batch,
        feedback=sent(known, "meta"),
        logp_K=batch.logp_K.to("meta").requires_grad_(),
        ref_logp_K=batch.ref_logp_K.to("meta"),
        response_K=batch.response_K.to("meta"),
        extra={n: value_K.requires_grad_() for n, value_K in there(batch.extra).items()},
        remembered=there(batch.remembered),
    )


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in objectives.names()), *SOME.items()]
)
def test_no_objective_asks_its_device(name: str, options: dict[str, Any]) -> None:
    """Of a device that has no numbers torch refuses every question: an index by a mask, how many there
    are, whether one is 0."""
    objective = objectives.make({"name": name, **options})
    batch = on_meta(trained(objective))
    loss = objective(batch)
    loss.loss_U.sum().backward()
    assert any(said.grad is not None for said in (batch.logp_K, *batch.extra.values()))
    common = measure(batch, objective.beta, reference="reference" in objective.needs)
    tally = Tally()
    groups = ["all"] * (int(batch.feedback.host.record_N.max()) + 1)  # type: ignore[union-attr]
    tally.add([replace(loss, metrics={**common, **loss.metrics})], groups)
    with pytest.raises((NotImplementedError, RuntimeError)):
        _ = tally.sums  # read in the end: it would be seen


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
            known = any(file.endswith("objectives/_host.py") for file in ours)
            # An optimiser counts its steps on the host.
            counting = any("torch/optim/" in file for file in files)
            if not counting and not known and not where.endswith(ON_THE_HOST):
                self.found[f"{where} {name}"] += 1
        return function(*args, **given)


EVERY = ("demonstration", "score", "label", "pair", "group", "text")


@pytest.mark.parametrize(
    ("objective", "kinds"),
    [
        ("dpo", ["pair"]),
        ("sft", ["demonstration"]),
        ({"name": "uft", "offset": "learned"}, EVERY),
        ("bradley_terry", ["pair", "score", "label"]),
    ],
)
def test_a_step_waits_for_its_device_once(
    objective: Any,
    kinds: Sequence[str],
    recipe_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
    recipe = recipe_of(*kinds, objective=objective)
    if objective == "bradley_terry":
        recipe["model"]["task"] = "reward"
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
