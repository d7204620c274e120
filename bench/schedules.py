"""What choosing costs: ALRIGHT, MAXRIGHT and Mix against Sequential on the same kinds of records.

    python bench/schedules.py            # about ten minutes on two cores
    python bench/schedules.py --quick

The same Llama (23 M parameters, random weights), SFT on `gpteacher_roleplay` and DPO on
`hh_harmless_pairs`, 8 records of a term a step, full fine-tuning on the CPU. Each run is a process
of its own; they take turns as in `against_trl.py`. A term's n-th batch is the same in every run, so
each step is compared with the same batch (the same two batches, for Mix) in a run that trains on
that term alone: the sum over all matched steps, divided by that of the batches alone. Sequential
stands beside as the measure of noise: it computes exactly the same. Under MAXRIGHT (k = 10, the
defaults) one term always has the larger loss here, so the other one is measured every 10 steps: the
dearest case.

Targets: ALRIGHT and MAXRIGHT at most 2 % slower, Mix at most 5 %, and Mix's peak memory within 3 %
of the larger objective alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from against_trl import (
    DATA,
    MODEL,
    Child,
    machine,
    prepared,
    recipe_for,
    set_threads,
    start,
    write_results,
)
from mixing import BATCH, FILES

OBJECTIVE = {"demonstrations": "sft", "pairs": {"name": "dpo", "beta": 0.1}}
HALF = {"sft": 0.5, "dpo": 0.5}


def contestants(work: Path, steps: int) -> dict[str, Child]:
    """The runs, ready to start. Sequential changes over in the middle of its `steps`."""
    schedules: dict[str, Any] = {
        "sequential": {"name": "sequential", "weights": HALF},
        "alright": {"name": "alright", "weights": HALF},
        "maxright": {"name": "maxright", "weights": HALF},
        "mix": {"name": "mix", "weights": HALF},
        "demonstrations alone": {"name": "mix", "weights": {"sft": 1, "dpo": 0}},
        "pairs alone": {"name": "mix", "weights": {"sft": 0, "dpo": 1}},
    }
    found = {}
    for name, schedule in schedules.items():
        recipe = recipe_for(work, FILES, OBJECTIVE, BATCH, steps)
        recipe["schedule"] = schedule
        told = {"kind": "onestage", "work": str(work), "recipe": recipe}
        found[name] = start(name, told, work)
    return found


def race(children: dict[str, Child], rounds: int, block: int) -> None:
    """One step to warm up, then blocks of steps in turns; Mix takes half as many (of two batches)."""
    names = list(children)
    for name in names:
        children[name].go(1)
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            children[name].go(block // 2 if name == "mix" else block)
        print(f"  round {number + 1} of {rounds}", flush=True)
    for child in children.values():
        child.end()


def figures(children: dict[str, Child], rounds: int) -> dict[str, Any]:
    """Totals of each run, and what its records cost beside the runs that train on one term alone."""
    found: dict[str, Any] = {}
    alone = {kind: children[f"{kind} alone"] for kind in FILES}
    for name, child in children.items():
        kinds = child.final["flops_of"]
        found[name] = {
            "steps": len(child.seconds) - 1,
            "tokens": sum(child.final["tokens"][1 : len(child.seconds)]),
            "seconds": sum(child.seconds[1:]),
            "cpu_seconds": sum(child.cpu_seconds[1:]),
            "peak_mib": child.final["peak_mib"],
        }
        for key in ("seconds", "cpu_seconds"):
            spent, expected, place = [], [], dict.fromkeys(FILES, 0)
            for step, seconds in enumerate(getattr(child, key)):
                batches = [(kind, place[kind]) for kind in FILES if kind in kinds[step]]
                for kind, _ in batches:
                    place[kind] += 1
                # The first step of every run warms it up; a batch must have been timed in both runs.
                times = [getattr(alone[kind], key) for kind, _ in batches]
                if step and all(0 < n < len(t) for (_, n), t in zip(batches, times, strict=True)):
                    spent.append(seconds)
                    expected.append(sum(t[n] for (_, n), t in zip(batches, times, strict=True)))
            found[name][f"matched_{key}"] = len(spent)
            found[name][f"ratio_{key}"] = sum(spent) / sum(expected)
            found[name][f"rounds_{key}"] = of_rounds(spent, expected, rounds)
    larger = max(found[f"{kind} alone"]["peak_mib"] for kind in FILES)
    found["mix"]["ratio_memory"] = found["mix"]["peak_mib"] / larger
    return found


def of_rounds(spent: list[float], expected: list[float], rounds: int) -> list[float]:
    """The ratios of as many parts of a run as there were rounds."""
    size = -(-len(spent) // rounds)
    starts = range(0, len(spent), size)
    return [sum(spent[n : n + size]) / sum(expected[n : n + size]) for n in starts]


def report(found: dict[str, Any]) -> None:
    for name, entry in found.items():
        print(
            f"{name:>22}: {entry['steps']} steps, {entry['tokens']:,} tokens, "
            f"{entry['seconds']:.1f} s, {entry['cpu_seconds']:.1f} s of processor, "
            f"{entry['peak_mib']:,.0f} MiB; {entry['ratio_cpu_seconds']:.3f} of the same records alone "
            f"({min(entry['rounds_cpu_seconds']):.3f} to {max(entry['rounds_cpu_seconds']):.3f})"
        )
    for name, bound in (("alright", 1.02), ("maxright", 1.02), ("mix", 1.05)):
        for key in ("ratio_seconds", "ratio_cpu_seconds"):
            value = found[name][key]
            print(f"{'met   ' if value <= bound else 'MISSED'} {name} {key} {value:.3f} <= {bound}")
    value = found["mix"]["ratio_memory"]
    print(f"{'met   ' if value <= 1.03 else 'MISSED'} mix ratio_memory {value:.3f} <= 1.03")


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    parser.add_argument("--threads", type=int, help="of each run (default: torch's own)")
    parser.add_argument("--no-save", action="store_true", help="do not write the results file")
    options = parser.parse_args()
    set_threads(options.threads)
    rounds, block = (2, 4) if options.quick else (5, 8)
    steps = 1 + rounds * block
    with tempfile.TemporaryDirectory(prefix="schedules-") as folder:
        work = Path(folder)
        ready = prepared(work, options.data, dict.fromkeys(FILES.values(), BATCH * steps))
        where = machine(ready)
        children = contestants(work, steps)
        race(children, rounds, block)
    found = figures(children, rounds)
    report(found)
    if not options.no_save:
        write_results("schedules", {"machine": where, "model": MODEL, "runs": found})


if __name__ == "__main__":
    main()
