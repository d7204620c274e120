"""`onestage evaluate`: the benchmarks that people know, and one's own, with the base beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onestage.cli._flags import Dtype
from onestage.cli._terminal import app, complaints, console, loading, quiet_libraries, say

if TYPE_CHECKING:
    from onestage.report.verdict import Change, Thresholds
    from onestage.rollout.evaluation import Evaluated, Evaluation
    from onestage.stats import Estimate


@app.command()
def evaluate(
    models: Annotated[list[str], typer.Argument(help="Model or adapter folders, or hub ids.")],
    suite: Annotated[
        list[str],
        typer.Option(
            help="A suite (`onestage list suites`), lm-eval task, or {name: ..., options}; repeatable."
        ),
    ],
    base: Annotated[
        str, typer.Option(help="What they are compared with; auto: an adapter's own; none.")
    ] = "auto",
    data: Annotated[
        Path | None, typer.Option(help="A folder of suites' files.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where answers and evaluation.json go. [default: beside the first model]",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="The first so many items of each suite or task.")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            help="Through the chat template, or raw text. [default: as the suite has it]",
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="{model: ..., base_url: ..., ...} of suites that are judged.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="What samples: a rollout engine, or {name: ..., options}.")
    ] = "transformers",
    dtype: Dtype = "auto",
    details: Annotated[bool, typer.Option(help="Every number of every task in the table.")] = False,
    wanted: Annotated[
        float,
        typer.Option(help="Of the verdict: mean gain of a model to keep, points or per cent."),
    ] = 0.0,
    allowed: Annotated[
        float, typer.Option(help="Of the verdict: by how much a measure may fall.")
    ] = 1.0,
    by: Annotated[
        str, typer.Option(help="Of the verdict: the suite that decides. [default: the mean of all]")
    ] = "",
) -> None:
    """Benchmarks of models, beside their base. (For worlds of studies: `onestage eval`.)

    The same command again goes on where it was interrupted.
    """
    with loading():
        from onestage.config.plain_yaml import parsed
        from onestage.report.verdict import Thresholds
        from onestage.rollout.evaluation import evaluate as run

    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype {dtype!r}: allowed are auto, float32, bfloat16, float16")
    limits = Thresholds(wanted, allowed, by)  # which is refused now, and not at the end
    quiet_libraries()
    place = out if out is not None else _beside(models[0])
    try:
        found = run(
            models,
            [parsed(one, "--suite") for one in suite],
            place,
            base={"none": None}.get(base, base),
            data=data,
            limit=limit,
            chat=chat,
            judge=None if judge is None else parsed(judge, "--judge"),
            engine=parsed(engine, "--engine"),
            dtype=dtype,  # type: ignore[arg-type]
            say=say,
        )
    except KeyboardInterrupt:
        complaints.print(
            f"interrupted; the answers so far are in {place}: the same command goes on"
        )
        raise typer.Exit(130) from None
    console.print(_table(found, details))
    for line in _remarks(found):
        say(line)
    for line in _verdict(found, limits):
        say(line)
    say(f"{place / 'evaluation.json'}")


def _verdict(found: Evaluation, limits: Thresholds) -> list[str]:
    """Which of the models to keep, or their base."""
    from onestage.report.verdict import Candidate, judge

    compared = [one for one in found.models if found.base_of(one) is not None]
    candidates = [Candidate(_short(one.model.name), _changes(found, one)) for one in compared]
    bases = dict.fromkeys(str(one.model.base) for one in compared)
    base = _short(next(iter(bases))) if len(bases) == 1 else "their bases"
    verdict = judge(candidates, base, limits)
    return verdict.lines if verdict else []


def _changes(found: Evaluation, one: Evaluated) -> list[Change]:
    """Of the headline of each suite."""
    from onestage.report.verdict import Change

    changes = []
    for label, measured in one.found.items():
        name = measured.suite.headline
        mine, theirs = found.on_the_same(one, label)
        if name not in mine or name not in theirs:
            continue
        apart, lower = mine[name] - theirs[name], measured.suite.lower_is_better(name)
        before, after = theirs[name].value, mine[name].value
        low, high = apart.value - apart.half, apart.value + apart.half
        share = not lower and 0 <= before <= 1 and 0 <= after <= 1
        better = "lower" if lower else "higher"
        changes.append(Change(label, before, after, low, high, better, share))
    return changes


def _beside(model: str) -> Path:
    """Of `runs/first/model`, `runs/first/evaluation`; of a model elsewhere, a folder here."""
    folder = Path(model)
    if folder.is_dir() and (folder.resolve().parent / "manifest.json").is_file():
        return folder.resolve().parent / "evaluation"
    return Path("evaluation")


def _table(found: Evaluation, details: bool) -> Table:
    table = Table(title="value ± standard error; change on the base ± half of its interval at 95 %")
    table.title_justify = "left"
    table.add_column("suite")
    for one in found.models:
        table.add_column(escape(_short(one.model.name)), justify="right")
        if found.base_of(one) is not None:
            table.add_column("change", justify="right")
    for label in found.suites:
        for name in _metrics(found, label, details):
            headline = name == found.suites[label].headline
            title = f"[bold]{escape(label)}[/]: {escape(name)}" if headline else f"  {escape(name)}"
            cells = [cell for one in found.models for cell in _cells(found, one, label, name)]
            table.add_row(title, *cells)
    return table


def _metrics(found: Evaluation, label: str, details: bool) -> list[str]:
    every = [one.found[label].metrics for one in found.models if label in one.found]
    names = dict.fromkeys(name for metrics in every for name in metrics)
    return [name for name in names if details or "/" not in name]


def _cells(found: Evaluation, one: Evaluated, label: str, name: str) -> list[str]:
    measured = one.found.get(label)
    number = measured.metrics.get(name) if measured else None
    cells = ["" if number is None else _number(number, number.stderr)]
    if found.base_of(one) is not None:
        apart = found.difference(one, label).get(name)
        cells.append(
            "" if apart is None or measured is None else _change(apart, measured.suite, name)
        )
    return cells


def _change(apart: Estimate, suite: Any, name: str) -> str:
    gain = -apart.value if suite.lower_is_better(name) else apart.value
    clear = abs(apart.value) > apart.half  # false where the interval is not known
    style = ("green" if gain > 0 else "red") if clear else "dim"
    return f"[{style}]{_number(apart, apart.half, sign='+')}[/]"


def _number(one: Estimate, spread: float, sign: str = "") -> str:
    digits = 3 if abs(one.value) < 10 else 1
    told = f"{one.value:{sign}.{digits}f}"
    return told if spread != spread else f"{told} ± {spread:.{digits}f}"


def _short(name: str) -> str:
    parts = Path(name).parts
    return "/".join(parts[-2:])


def _remarks(found: Evaluation) -> list[str]:
    """What was not scored, or cut, and what judging cost."""
    lines = []
    for one in found.models:
        for label, measured in one.found.items():
            what = f"{one.model.name}, {label}"
            if measured.failures:
                first = next(iter(measured.failures.values()))
                lines.append(
                    f"{what}: {len(measured.failures):,} of {len(measured.items):,} answers are not "
                    f"scored ({first.sort}: {first.reason}); the same command again tries them once more"
                )
            lines += [f"{what}: {line}" for line in measured.remarks()]
    for label, spent in found.costs().items():
        told = ", ".join(f"{name} {value:,.6g}" for name, value in spent.items())
        lines.append(f"{label}: judging used {told}")
    return lines
