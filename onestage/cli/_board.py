"""What stands on the screen of a run: how far it is, and what its log has told so far.

`train` keeps one up to date as it goes, `watch` from the folder of a run elsewhere; both are fed the
lines of `metrics.jsonl` and `samples.jsonl`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from onestage.runfolder.secrets import hidden

Line = Mapping[str, Any]
RECENT = 20
"""Lines from which a run's pace is told."""
SHOWN = 240
"""Characters of a prompt, and of an answer."""


class Board:
    """Of one run. steps: how many it has, where that is known."""

    def __init__(self, steps: int | None = None, step: int = 0) -> None:
        self.steps, self.step = steps, step
        self.loss: float | None = None
        self.rate: float | None = None
        """Tokens a second."""
        self.left: float | None = None
        """Seconds."""
        self.streams: dict[str, dict[str, float]] = {}
        """By stream: `loss`, `first` (its first loss), `reward`, `eval` (held out)."""
        self.notes: dict[str, str] = {}
        """By heading, what was measured beside."""
        self.sample: Line | None = None
        self._tokens = 0.0
        self._pace: deque[tuple[int, float]] = deque(maxlen=RECENT)

    def at(self, step: int, loss: float, rate: float, left: float) -> None:
        """A step was done."""
        self.step, self.loss, self.rate, self.left = step, loss, rate, left

    def show(self, samples: Sequence[Line]) -> None:
        """What was sampled since; the last of it is shown."""
        self.sample = samples[-1] if samples else self.sample

    def take(self, line: Line) -> None:
        """A line of metrics."""
        step = line["step"]
        if "loss" in line:
            self._pass_time(step, line)
            self.step = step
            self.loss, self.rate = line["loss"], line.get("tokens_per_second")
            for stream in _streams_of(line):
                self._see(stream, "loss", line.get(f"{stream}/loss"))
                self._see(stream, "reward", line.get(f"{stream}/reward"))
        for stream, value in _held_out(line):
            self._see(stream, "eval", value)
        told = {
            "held out": evaluated(line),
            "kept": kept(line),
            "bounds": bounds(line),
            "certified": certified(line),
            "suites": suites(line),
        }
        self.notes |= {head: f"{text}  (step {step})" for head, text in told.items() if text}

    def _pass_time(self, step: int, line: Line) -> None:
        """The time left, from the tokens of the lines and their rate."""
        tokens, rate = line.get("tokens"), line.get("tokens_per_second")
        if not tokens or not rate:
            return
        if step > self.step and tokens > self._tokens:
            self._pace.append((step - self.step, (tokens - self._tokens) / rate))
        self._tokens = tokens
        steps, seconds = (
            (sum(part) for part in zip(*self._pace, strict=True)) if self._pace else (0, 0)
        )
        if self.steps is not None and steps:
            self.left = seconds / steps * max(0, self.steps - step)

    def _see(self, stream: str, what: str, value: float | None) -> None:
        if value is not None:
            mine = self.streams.setdefault(stream, {})
            mine[what] = value
            if what == "loss":
                mine.setdefault("first", value)

    def drawn(self) -> Group:
        """For the screen, as it stands."""
        parts: list[Any] = [self._head()]
        if self.streams:
            parts.append(self._losses())
        for head, text in self.notes.items():
            parts.append(Text.assemble((f" {head:<9} ", "dim"), text))
        if self.sample:
            parts += _sampled(self.sample)
        return Group(*parts)

    def _head(self) -> Table:
        grid = Table.grid(padding=(0, 2), expand=True)
        of = "?" if self.steps is None else f"{self.steps:,}"
        cells: list[Any] = [f"step {self.step:,}/{of}"]
        if self.steps:
            cells.append(ProgressBar(self.steps, min(self.step, self.steps)))
        cells.append("" if self.loss is None else f"loss {self.loss:.4f}")
        cells.append("" if not self.rate else f"{self.rate:,.0f} tokens/s")
        cells.append("" if self.left is None else f"left {timedelta(seconds=int(self.left))}")
        for cell in cells:  # the bar takes what the others leave
            bar = isinstance(cell, ProgressBar)
            grid.add_column(no_wrap=not bar, ratio=1 if bar else None)
        grid.add_row(*cells)
        return grid

    def _losses(self) -> Table:
        columns = {"loss": "loss", "first": "at first", "eval": "held out", "reward": "reward"}
        seen = [c for c in columns if any(c in mine for mine in self.streams.values())]
        table = Table.grid(padding=(0, 2))
        for _ in range(len(seen) + 1):
            table.add_column(justify="right")
        table.columns[0].justify = "left"
        table.add_row(" stream", *(columns[c] for c in seen), style="dim")
        for stream, mine in self.streams.items():
            table.add_row(f" {stream}", *(f"{mine[c]:.4f}" if c in mine else "" for c in seen))
        return table


def _streams_of(line: Line) -> list[str]:
    """The streams whose tokens a line counts, and every loss it tells by stream."""
    return [
        name.removesuffix("/tokens")
        for name in line
        if name.endswith("/tokens") and not name.startswith("eval/")
    ]


def _held_out(line: Line) -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        stream = name.removeprefix("eval/").removesuffix("/loss")
        if name == f"eval/{stream}/loss" and "/" not in stream and value is not None:
            yield stream, value


def _sampled(one: Line) -> list[Text]:
    """The last answer that was sampled, with its prompt."""
    where = one.get("stream") or one.get("suite") or ""
    answers, rewards = one.get("completions") or [""], one.get("rewards") or []
    worth = f", reward {rewards[0]:.3g}" if rewards and isinstance(rewards[0], int | float) else ""
    head = Text(f" sample    {where}, step {one.get('step', '?')}{worth}", style="dim")
    asked = plain(str(one.get("prompt", "")))
    answer = plain(f"{one.get('hint') or ''}{answers[0]}")
    return [head, Text(f"   {asked[-SHOWN:]}", style="dim"), Text(f"   {answer[:SHOWN]}")]


def plain(text: str) -> str:
    """A model's text on one line, without what would move the cursor or colour the terminal."""
    shown = "".join(c if c.isprintable() else " " for c in hidden(text))
    return " ".join(shown.split())


def evaluated(line: Line) -> str:
    loss = line.get("eval/loss")
    return "" if loss is None else f"eval loss {loss:.4f}"


def kept(metrics: Line) -> str:
    """What a probe found, in a few words: what was kept, and whether objectives pull apart."""
    parts = []
    for name, value in metrics.items():
        if value is None:
            continue
        place, _, what = name.rpartition("/")
        if what == "loss_increase":
            parts.append(f"{place.removeprefix('retention/')} loss {value:+.3f}")
        elif what == "kl" and not name.startswith("keep/"):
            parts.append(f"{place.split('/')[-1]} KL {value:.3f}")
        elif place.startswith("probe/cosine"):
            parts.append(f"cos({place.split('/')[-1]}, {what}) {value:+.2f}")
    return ", ".join(parts)


def bounds(line: Line) -> str:
    """How far what may be forgotten is from its bounds."""
    parts = []
    for name, value in line.items():
        place, _, what = name.rpartition("/")
        if not name.startswith("keep/") or what != "measured" or value is None:
            continue
        bound, slack = line.get(f"{place}/bound"), line.get(f"{place}/slack")
        told = f"{place.removeprefix('keep/')} {value:.3g}"
        if bound is not None:
            told += f" of at most {bound:.3g}"
        if slack is not None:
            told += f", slack {slack:+.3g}"
        parts.append(told)
    return "; ".join(parts)


def certified(line: Line) -> str:
    """What became of the bounds on records that nothing looked at before."""
    return ", ".join(
        f"{name.split('/')[1]} held out {value:.3g}"
        for name, value in line.items()
        if name.startswith("keep/") and name.endswith("/held_out") and value is not None
    )


def suites(line: Line) -> str:
    """What suites found that the run was asked while it goes."""
    return ", ".join(
        f"{name.removeprefix('suite/').replace('/', ' ')} {value:.4g}"
        for name, value in line.items()
        if name.startswith("suite/") and not name.endswith("/items") and value is not None
    )
