"""What a study found, as tables: for the terminal, and as `README.md` in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from onestage.report.cells import Compared
from onestage.report.claims import asked_again, asked_before, seeds_of, undecided_for
from onestage.report.equal import Kept, equal_lines, equal_note, tried
from onestage.report.numbers import setting
from onestage.report.steps import step_lines
from onestage.report.studies import read_study_tables
from onestage.runfolder import read_json
from onestage.stats import Interval
from onestage.studies import described
from onestage.studies.study import Outcome

FEW = 6
"""Methods that fit beside each other on a terminal."""
Lines = Mapping[tuple[str, ...], Mapping[str, Any]]


def tables(folder: Path, outcome: Outcome) -> Iterator[Table]:
    """The headline metrics of every method, then the claims."""
    told = read_json(folder / "study.json")
    axes, shown, lines = _lines(told, outcome)
    several = " (mean ± half of the 95 % interval over seeds)" if len(told["seeds"]) > 1 else ""
    title = f"{told['name']}{several}"
    told_by = _by_metric if len(lines) <= FEW else _by_method
    yield told_by(title, axes, shown, lines, len(told["seeds"]))
    if outcome.claims:
        found = Table(title="Claims", title_justify="left")
        for name in ("claim", "source", "verdict"):
            found.add_column(name)
        for claim in outcome.claims:
            found.add_row(claim["claim"], claim["source"], claim["verdict"])
        yield found


def _by_method(
    title: str, axes: Sequence[str], shown: Sequence[str], lines: Lines, seeds: int
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for name in axes:
        table.add_column(name)
    for name in shown:
        table.add_column(name, justify="right", overflow="fold")
    for place, values in lines.items():
        table.add_row(*place, *(number(values[n], seeds, 2) if n in values else "" for n in shown))
    return table


def _by_metric(
    title: str, axes: Sequence[str], shown: Sequence[str], lines: Lines, seeds: int
) -> Table:
    """A column a method, which is easier to read where there are few."""
    table = Table(title=title, title_justify="left")
    table.add_column("measure", min_width=max(map(len, shown), default=0))
    for place in lines:
        table.add_column(" ".join(place), justify="right")
    for name in shown:
        found = (values.get(name) for values in lines.values())
        table.add_row(name, *("" if one is None else number(one, seeds, 2) for one in found))
    return table


def markdown(
    folder: Path,
    outcome: Outcome,
    again: str = "onestage study study.yaml",
    over: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The same for reading in a repository: best in bold, what tuning chose, notes on methods.

    `again`: the command that does it again; `over`: claims as all who asked them judge them (`asks`).
    """
    told = read_json(folder / "study.json")
    axes, shown, lines = _lines(told, outcome)
    seeds = told["seeds"]
    budget = ", ".join(f"{v:,} {k}" for k, v in (told["budget"] or {}).items()) or "no budget"
    about = told["description"].strip()
    text = [f"# {told['name']}", "", *([about, ""] if about else [])]
    how = described.tried(folder, told)
    text += [f"Seeds {seeds}; {budget} a run; {how}. Mean ± half of the 95 % interval.", ""]
    best = {name: _best(name, told, lines.values()) for name in shown}
    head = ["method", *axes, *shown]
    text += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for place, values in lines.items():
        cells = [_shown(values.get(name), best[name], len(seeds)) for name in shown]
        text.append("| " + " | ".join([*place, *cells]) + " |")
    text += ["", *_choices(folder)]
    text += [f"- {method}: {note}" for method, note in told["notes"].items()]
    text += [f"- {remark}" for remark in told.get("remarks", ())]
    found = read_study_tables(folder)
    apart = [*_over_the_steps(found, axes, len(seeds)), *_at_equal_gain(found, len(seeds))]
    if apart:
        text += [*apart, "", "## Claims"]
    for claim in outcome.claims:
        source = f" ({claim['source']})" if claim["source"] else ""
        why = f" {claim['withdrawn']}." if claim["withdrawn"] else ""
        if study := asked_again(claim):
            why = f" Asked again in {study}."
        more = filter(None, (undecided_for(claim), asked_before(claim), *_absent(claim)))
        why += "".join(f" {one[0].upper()}{one[1:]}." for one in more)
        if of_all := (over or {}).get(claim["claim"]):
            why += f" Of all that asked ({seeds_of(of_all)} count): **{of_all['verdict']}**."
        text += ["", f"**{claim['verdict']}**: {claim['claim']}{source}.{why}"]
    text += ["", f"Again: `{again}`", ""]
    return "\n".join(text).replace("\n\n\n", "\n\n")


def _absent(claim: Mapping[str, Any]) -> list[str]:
    """Why some of what it speaks of is not there."""
    return list(dict.fromkeys(part["absent"] for part in claim["parts"] if part.get("absent")))


def _lines(told: Mapping[str, Any], outcome: Outcome) -> tuple[list[str], list[str], Any]:
    """Axes that vary, headline metrics there are, and summary lines by place and metric."""
    axes = [axis for axis in told["axes"] if any(line.get(axis) != "" for line in outcome.table)]
    shown = [name for name in told["headline"] if any(x["metric"] == name for x in outcome.table)]
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in outcome.table:
        if line["metric"] in shown:
            place = (line["method"], *(str(line[axis]) for axis in axes))
            lines.setdefault(place, {})[line["metric"]] = line
    return axes, shown, lines


def number(line: Mapping[str, Any], seeds: int, places: int = 3) -> str:
    """A mean, half the width of its interval where there is one, and of how many seeds it is where some
    have no number."""
    mean = f"{line['mean']:.{places}f}" if abs(line["mean"]) < 1000 else f"{line['mean']:,.0f}"
    half = (line["high"] - line["low"]) / 2
    told = mean if math.isnan(half) else f"{mean} ±{half:.{places}f}"
    return f"{told} ({line['n']} of {seeds} seeds)" if line["n"] < seeds else told


def _best(metric: str, told: Mapping[str, Any], lines: Any) -> float:
    better = told["metrics"].get(metric, {}).get("better")
    means = [values[metric]["mean"] for values in lines if metric in values]
    if better is None or not means:
        return math.nan
    return max(means) if better == "higher" else min(means)


def _shown(line: Mapping[str, Any] | None, best: float, seeds: int) -> str:
    if line is None:
        return ""
    return f"**{number(line, seeds)}**" if line["mean"] == best else number(line, seeds)


def _choices(folder: Path) -> Sequence[str]:
    """What tuning chose."""
    file = folder / "tuning.json"
    if not file.is_file():
        return []
    chosen = []
    for name, one in read_json(file).items():
        values = ", ".join(
            f"{variable} {value}" + (" (edge)" if variable in one["edges"] else "")
            for variable, value in (one["best"] or {}).items()
        )
        chosen.append(f"{name}: {values or 'nothing'}")
    return ["Chosen: " + "; ".join(chosen) + ".", ""]


def _over_the_steps(found: Compared, axes: Sequence[str], seeds: int) -> list[str]:
    """What suites found on the way; nothing where none was asked."""
    text = ["", "## Over the steps"] if found.curves else []
    for metric, steps, lines in step_lines(found.curves):
        heads = ["method", *axes, *map(str, steps)]
        text += ["", f"{metric}, as it was last asked by a step:", ""]
        text += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for line in lines:
            values = [_mean(line.by(step), seeds) for step in steps]
            places = [setting(line.of.at(axis)) for axis in axes]
            text.append("| " + " | ".join([line.of.method, *places, *values]) + " |")
    return text


def _at_equal_gain(found: Compared, seeds: int) -> list[str]:
    """What methods keep where they have gained as much; nothing where not every setting was run."""
    whole = tried(found)
    if whole is None:
        return []
    heads = ["method", "settings that reach it", whole.gain]
    for name in whole.kept:
        heads += [f"{name}{found.metrics[name].arrow}", f"hypervolume with {name}"]
    text = ["", "## At equal gain", "", equal_note(whole), ""]
    text += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for line in equal_lines(found, whole):
        kept = [
            cell for one in line.kept for cell in (_kept(one, seeds), _mean(one.hypervolume, seeds))
        ]
        reach = f"{line.enough} of {line.settings}"
        cells = [line.method, reach, _mean(line.gain, seeds), *kept]
        text.append("| " + " | ".join(cells) + " |")
    return text


def _kept(one: Kept, seeds: int) -> str:
    """What is kept, and in which setting."""
    values = json.loads(one.choice or "{}").items()
    place = ", ".join(f"{variable} {setting(value)}" for variable, value in values)
    return _mean(one.mean, seeds) + (f" ({place})" if place else "")


def _mean(found: Interval | None, seeds: int) -> str:
    return number(asdict(found), seeds) if found else ""
