"""What `onestage check --gpus` prints: each way to do it, what takes the memory, and what is assumed."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onestage.training.scale import BETWEEN, USED, Fit, Scaled, best, parts_of


def show_scale(console: Console, scaled: Scaled) -> None:
    """Print the estimate."""
    ways = scaled.ways()
    console.print(ways_table(scaled, ways))
    for line in advice(scaled, ways):
        console.print(Text(line))


def ways_table(scaled: Scaled, ways: list[Fit]) -> Table:
    """Memory, speed, hours and cost of each way."""
    machines = scaled.machines
    title = f"What it would take on {machines.gpus} x {machines.gpu.name} (an estimate)"
    table = Table(title=title, title_justify="left")
    for name in ("sharding", "activation checkpointing", "fits"):
        table.add_column(name)
    for name in ("GB a GPU", "tokens a second", "hours", "cost"):
        table.add_column(name, justify="right")
    for way in ways:
        shown = [_pair(way.speed, ",.0f"), _pair(way.hours, ".3g"), _pair(way.cost, ",.3g")]
        table.add_row(
            way.sharding,
            _on(way.checkpointing),
            "yes" if way.fits else "no",
            f"{way.needed / 1e9:,.1f}",
            *(shown if way.fits else ["", "", ""]),
        )
    return table


def advice(scaled: Scaled, ways: list[Fit]) -> list[str]:
    """Which way to take, what takes its memory, and what all of it assumes."""
    chosen, machines, gpu = best(ways), scaled.machines, scaled.machines.gpu
    lines = []
    if chosen is None:
        least = min(ways, key=lambda way: way.needed)
        number = scaled.enough()
        then = f"{number} of them would do" if number else "not even 1024 of them would do"
        lines.append(
            f"it does not fit: at the least {least.needed / 1e9:,.1f} GB a GPU, of which each has "
            f"{least.room / 1e9:,.1f}; {then}; or lower train.max_length and train.tokens_per_row, or "
            "train an adapter (model.lora)"
        )
    told = chosen or min(ways, key=lambda way: way.needed)
    if chosen:
        lines.append(
            f"the fastest that fits: sharding {chosen.sharding}, activation checkpointing "
            f"{_on(chosen.checkpointing)}, held up by {chosen.bound}; {_asked(scaled, ways, chosen)}"
        )
    taken = ", ".join(f"{name} {size / 1e9:,.1f}" for name, size in parts_of(told))
    lines.append(f"GB on a GPU: {taken}; it has {told.room / 1e9:,.1f} of {gpu.memory:g} to give")
    low, high = USED
    lines.append(
        f"assumed, not measured: {low:.0%} to {high:.0%} of the data sheet's {gpu.tflops:g} TFLOP/s, "
        f"{gpu.link:g} GB/s between GPUs of a node, "
        f"{min(gpu.link, BETWEEN):g} to those of others ({machines.node} a node), equal work for all, "
        f"rows of {scaled.work.row:,} tokens, every path {scaled.work.path:,} long"
        + (", and no time for sampling answers" if scaled.work.sampled else "")
    )
    return lines


def _asked(scaled: Scaled, ways: list[Fit], chosen: Fit) -> str:
    """What the recipe says, and what to write for the fastest instead."""
    sharding, checkpointing = scaled.asked
    if (chosen.sharding, chosen.checkpointing) == scaled.asked:
        return "the recipe says so"
    mine = [way for way in ways if (way.sharding, way.checkpointing) == scaled.asked]
    verdict = (
        ("which fits, too" if mine[0].fits else "which does not fit") if mine else "none of these"
    )
    return (
        f"the recipe says {sharding} and {_on(checkpointing)}, {verdict}: "
        f"--set distributed.sharding={chosen.sharding} "
        f"--set model.gradient_checkpointing={str(chosen.checkpointing).lower()}"
    )


def _on(value: bool) -> str:
    return "on" if value else "off"


def _pair(low_high: tuple[float, float] | None, form: str) -> str:
    if low_high is None:
        return ""
    least, most = (f"{one:{form}}" for one in sorted(low_high))
    return least if least == most else f"{least} to {most}"  # links hold it up, whatever a GPU does
