"""Three ways from hidden states to token log-probabilities: time and memory.

    python bench/head.py
    python bench/head.py --quick      # the smaller vocabulary only

- `chunked`: onestage's head, logits in chunks of positions, made again in the backward pass;
- `naive`: full logits, `log_softmax`, `gather`;
- `torch`: `torch.nn.functional.linear_cross_entropy(reduction="none")` of torch 2.13, with its
  chunking options and without. Its chunked form makes the gradients in the forward pass, before
  those of the values are known; what it can do with `reduction="none"` is part of what is shown.

Forward and backward of `sum(weight_K * logp_K)` in float32 with K = 1,500 positions, hidden size 384
and vocabularies of 16,384 and 49,152 (SmolLM2's), gradients of hidden states and head weight. Each way
runs in a process of its own, they take turns; memory is the largest a process held beyond what it held
before its first pass. Values and gradients are compared with the naive ones. Told are medians, and the
least and the most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from against_trl import (
    Pacer,
    machine,
    peak_mib,
    race,
    resident_mib,
    set_threads,
    start,
    write_results,
)

POSITIONS, HIDDEN = 1500, 384
VOCABULARIES = (16_384, 49_152)
WAYS = ("chunked", "naive", "torch", "torch, chunked")


def chunked(hidden: Any, weight: Any, target: Any) -> Any:
    from onestage.models.head import token_logps

    return token_logps(hidden, weight, target)


def naive(hidden: Any, weight: Any, target: Any) -> Any:
    import torch.nn.functional as F

    logits = F.linear(hidden, weight)
    return F.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]


def library(hidden: Any, weight: Any, target: Any) -> Any:
    import torch.nn.functional as F

    return -F.linear_cross_entropy(hidden, weight, target, reduction="none")


def library_chunked(hidden: Any, weight: Any, target: Any) -> Any:
    import torch

    options = torch.nn.LinearCrossEntropyOptions()
    return -torch.nn.functional.linear_cross_entropy(
        hidden, weight, target, reduction="none", options=options
    )


FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = dict(
    zip(WAYS, (chunked, naive, library, library_chunked), strict=True)
)


def run_way(spec: dict[str, Any]) -> None:
    """The child: passes of one way, a step being forward and backward."""
    pacer = Pacer()
    import torch

    generator = torch.Generator().manual_seed(0)
    size, vocabulary = POSITIONS, spec["vocabulary"]
    hidden = torch.randn(size, HIDDEN, generator=generator).requires_grad_()
    weight = (0.05 * torch.randn(vocabulary, HIDDEN, generator=generator)).requires_grad_()
    target = torch.randint(vocabulary, (size,), generator=generator)
    factor = torch.randn(size, generator=generator)
    way = FUNCTIONS[spec["way"]]
    # A small pass first: libraries load their kernels now, not in what is measured.
    way(hidden[:2], weight[:64], target[:2] % 64).sum().backward()
    hidden.grad = weight.grad = None
    before = resident_mib()
    pacer.ready()
    while True:
        hidden.grad = weight.grad = None
        values = way(hidden, weight, target)
        (values * factor).sum().backward()
        if pacer.step():
            break
    assert hidden.grad is not None
    assert weight.grad is not None
    pacer.say(
        {
            "extra_mib": peak_mib() - before,
            "values": values[:50].tolist(),
            "hidden": hidden.grad[:5].flatten()[:200].tolist(),
            "weight": weight.grad[target[:5], :40].flatten().tolist(),
        }
    )


def compare(vocabulary: int, rounds: int, work: Path) -> dict[str, Any]:
    """Time and memory by way; a way that cannot do it says why."""
    children, found = [], {}
    for way in WAYS:
        name = f"{way} {vocabulary}"
        try:
            child = start(name, {"way": way, "vocabulary": vocabulary}, work, Path(__file__))
            child.go(1)  # warms up; a way that fails fails here
            children.append(child)
        except RuntimeError:
            log = (work / f"{name.replace(' ', '-').replace(',', '')}.log").read_text()
            found[way] = {"cannot": log.strip().splitlines()[-1]}
    race(children, rounds, 1, lambda line: print(line, flush=True))
    right = next(child for child in children if child.name.startswith("naive"))
    for child in children:
        apart = {
            key: max(abs(a - b) for a, b in zip(child.final[key], right.final[key], strict=True))
            for key in ("values", "hidden", "weight")
        }
        found[child.name.rsplit(" ", 1)[0]] = {
            "seconds": statistics.median(child.seconds[2:]),
            "least_most": [min(child.seconds[2:]), max(child.seconds[2:])],
            "cpu_seconds": statistics.median(child.cpu_seconds[2:]),
            "cpu_least_most": [min(child.cpu_seconds[2:]), max(child.cpu_seconds[2:])],
            "extra_mib": child.final["extra_mib"],
            "largest_difference": apart,
        }
    return found


def report(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130)
    table = Table(title=f"K = {POSITIONS}, H = {HIDDEN}, float32", title_justify="left")
    for column in ("vocabulary", "way"):
        table.add_column(column)
    for column in ("seconds", "cpu seconds", "extra MiB", "values apart", "gradients apart"):
        table.add_column(column, justify="right")
    for vocabulary, ways in found.items():
        for way in WAYS:
            entry = ways[way]
            if "cannot" in entry:
                table.add_row(vocabulary, way, entry["cannot"][:70])
                continue
            apart = entry["largest_difference"]
            table.add_row(
                vocabulary,
                way,
                spread(entry["seconds"], entry["least_most"]),
                spread(entry["cpu_seconds"], entry["cpu_least_most"]),
                f"{entry['extra_mib']:,.0f}",
                f"{apart['values']:.1e}",
                f"{max(apart['hidden'], apart['weight']):.1e}",
            )
    console.print(table)


def spread(middle: float, ends: list[float]) -> str:
    return f"{middle:.2f} ({ends[0]:.2f}-{ends[1]:.2f})"


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smaller vocabulary, fewer passes")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES)
    parser.add_argument("--rounds", type=int, help="passes of each way (default 4, quick 3)")
    parser.add_argument("--threads", type=int, help="of each way (default: torch's own)")
    parser.add_argument("--no-save", action="store_true", help="do not write the results file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_way(json.loads(options.child))
        return
    set_threads(options.threads)
    rounds = options.rounds or (3 if options.quick else 4)
    sizes = VOCABULARIES[:1] if options.quick else options.vocabularies
    with tempfile.TemporaryDirectory(prefix="head-") as folder:
        found = {str(size): compare(size, rounds, Path(folder)) for size in sizes}
    report(found)
    if not options.no_save:
        where = machine({"threads": options.threads or "default", "versions": _versions()})
        write_results("head", {"machine": where, "vocabularies": found})


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"torch": version("torch")}


if __name__ == "__main__":
    main()
