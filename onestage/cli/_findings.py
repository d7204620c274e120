"""What the commands print: tables, marked examples, verdicts. Reads findings, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from onestage.data.encoded import Encoded
from onestage.data.inspect import Findings, StreamFindings
from onestage.data.kinds import FEEDBACK
from onestage.models.estimate import Estimate

SHOWN_TOKENS = 240
"""Tokens of an example that are printed; the middle of a longer prompt is left out."""


def data_table(found: Findings) -> Table:
    """Records, responses and tokens of each stream."""
    table = Table(title="What will be trained on", title_justify="left")
    for name in ("stream", "records"):
        table.add_column(name)
    for name in ("responses", "tokens", "scored", "longest", "shared"):
        table.add_column(name, justify="right")
    for name, stream in _named(found):
        what = stream.store.table
        kinds = "\n".join(f"{count:,} {kind}" for kind, count in what.records.items())
        figures = (what.responses, what.tokens, what.scored_tokens, what.longest)
        table.add_row(
            name, kinds or "none", *(f"{figure:,}" for figure in figures), f"{stream.saving:.0%}"
        )
    return table


def losses_table(found: Findings) -> Table:
    """What is not trained on as it stands, and what stands twice."""
    table = Table(title="What is left out, cut or repeated", title_justify="left")
    table.add_column("stream")
    for name in ("refused rows", "ties", "unlabelled", "cut prompts", "repeated records"):
        table.add_column(name, justify="right")
    for name, stream in _named(found):
        what = stream.store.table
        counts = (what.refused, what.ties, what.unlabelled, what.cut, stream.duplicates)
        table.add_row(name, *(f"[bold yellow]{n:,}[/]" if n else "0" for n in counts))
    return table


def _named(found: Findings) -> list[tuple[str, StreamFindings]]:
    held_out = [(f"{name} (held out)", stream) for name, stream in found.held_out.items()]
    return [*found.streams.items(), *held_out]


def histograms(found: Findings) -> Table:
    """Tokens of records, in powers of two."""
    table = Table(title="Tokens of a record", title_justify="left", show_lines=True)
    for name in ("stream", "quantiles", "histogram"):
        table.add_column(name)
    for name, stream in found.streams.items():
        most = max((count for _, count in stream.histogram), default=1)
        bars = "\n".join(
            f"{label:>9} {'#' * max(1, round(30 * count / most)) if count else '':<30} {count:,}"
            for label, count in stream.histogram
        )
        quantiles = "\n".join(f"{key} {value:,.0f}" for key, value in stream.lengths.items())
        table.add_row(name, quantiles, bars)
    return table


def balances(found: Findings) -> Table | None:
    """How labels and scores are spread."""
    table = Table(title="Labels and scores", title_justify="left")
    for name in ("stream", "kind", "responses", "mean", "min", "max", "above 1/2"):
        table.add_column(name)
    for name, stream in found.streams.items():
        kinds = sorted({key.partition("/")[0] for key in stream.labels})
        for kind in kinds:
            figures = {
                k.partition("/")[2]: v for k, v in stream.labels.items() if k.startswith(kind)
            }
            numbers = [f"{figures[key]:.3f}" for key in ("mean", "min", "max") if key in figures]
            share = f"{figures.get('above_half', 0):.0%}"
            table.add_row(name, kind, f"{figures['count']:,.0f}", *numbers, share)
    return table if table.row_count else None


def example(kind: str, record: Encoded, tokenizer: Any) -> Panel:
    """One record as the model sees it; scored spans stand in brackets, tokens change shade."""
    parts = []
    for number, path in enumerate(record.paths[:2]):
        text = Text()
        starts, ends = ({span[side] for span in path.spans} for side in (0, 1))
        scored = {i for start, end in path.spans for i in range(start, end)}
        shown = _shown(len(path.ids), path.opening)
        for place, index in enumerate(shown):
            if place and index != shown[place - 1] + 1:
                text.append(" [...] ", style="dim italic")
            piece = tokenizer.decode([int(path.ids[index])], clean_up_tokenization_spaces=False)
            if index in starts:
                text.append("\u27e6", style="bold green")
            shade = ("black on green", "black on bright_green")[index % 2]
            text.append(piece, style=shade if index in scored else "dim")
            if index + 1 in ends:
                text.append("\u27e7", style="bold green")
        title = (
            ("chosen", "rejected")[number] if FEEDBACK[record.kind].paired else f"path {number + 1}"
        )
        score = (
            f", score {record.scores[number]:.3g}" if FEEDBACK[record.kind].scale != "none" else ""
        )
        parts.append(Text(f"{title}{score} ({len(path.ids)} tokens)", style="bold"))
        parts.append(text)
    more = len(record.paths) - 2
    if more > 0:
        parts.append(Text(f"and {more} more", style="dim"))
    return Panel(Group(*parts), title=f"{kind}: {record.source} {record.id}", title_align="left")


def _shown(length: int, start: int) -> list[int]:
    if length <= SHOWN_TOKENS:
        return list(range(length))
    head = min(40, start)
    middle = range(max(start - 20, head), min(length - 10, start + SHOWN_TOKENS - 80))
    return [*range(head), *middle, *range(max(length - 10, middle.stop), length)]


def plan(what: Estimate) -> Table:
    """Steps, time and memory."""
    table = Table(title="What it will take (rough)", title_justify="left", show_header=False)
    table.add_column()
    table.add_column()
    rows: Mapping[str, str] = {
        "schedule": what.schedule,
        "tokens": f"{what.tokens:,}",
        "parameters": f"{what.parameters:,} ({what.trained:,} trained)",
        "precision": what.precision,
        "memory": f"{what.memory_gb:,.1f} GB beside the libraries",
        "time": f"{_duration(what.seconds)} ({what.basis})",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def show(console: Console, found: Findings, tokenizer: Any, what: Estimate | None) -> None:
    """Print everything that `onestage check` found, the verdict last."""
    console.print(data_table(found))
    console.print(losses_table(found))
    console.print(histograms(found))
    spread = balances(found)
    if spread is not None:
        console.print(spread)
    for kind, record in found.examples.items():
        console.print(example(kind, record, tokenizer))
    if what is not None:
        console.print(plan(what))
    for line in found.notes:
        console.print(Text(line))
    for line in found.warnings:
        console.print(Text(f"warning: {line}", style="yellow"))
    for line in found.errors:
        console.print(Text(f"error: {line}", style="bold red"))
    verdict = "cannot be trained as it is" if found.errors else "ready to train"
    console.print(Text(verdict, style="bold red" if found.errors else "bold green"))
