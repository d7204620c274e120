"""Tables of studies and runs for papers and spreadsheets, LaTeX and comma-separated: the main one, and
what methods keep at equal gain where a study ran every setting."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from onestage.report.cells import Compared, Setting
from onestage.report.equal import Line, Tried, equal_lines, tried
from onestage.report.numbers import number, setting
from onestage.runfolder import write_text
from onestage.stats import Interval

SPECIAL = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "→": r"$\to$"},
}
PARTS = ("", "_low", "_high", "_n")
"""Columns of a mean: itself, the bounds of its 95 % interval, and the seeds."""
OURS = {".tex": r"\A% \\usepackage\{booktabs\}\n\\begin\{table\}", ".csv": r"\Amethod[,\n]"}
"""How the tables of ours begin, as patterns."""
ARROWS = {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}


def write_tables(
    chapters: Sequence[Compared], latex: Path | None = None, csv: Path | None = None
) -> list[Path]:
    """Write the tables of each chapter to the files that are given, and say which were."""
    made = {latex: (latex_of, equal_latex_of), csv: (csv_of, equal_csv_of)}
    for file, tables in made.items():
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            texts = [text for one in chapters for table in tables if (text := table(one))]
            write_text(file, "\n".join(texts))
    return [file for file in made if file is not None]


def latex_of(found: Compared) -> str:
    """A `table` of LaTeX with `booktabs`: mean and half of the 95 % interval over seeds, the best of a
    column in bold, a dagger where a metric is surely worse than the base."""
    axes, names = axes_of(found), _measured(found)
    heads = ["method", *axes, *names]
    arrows = ["", *([""] * len(axes)), *(ARROWS[found.metrics[name].sign] for name in names)]
    best = {name: found.best(name) for name in names}
    lines = [
        " & ".join(
            [
                *map(escaped, _place(one, axes)),
                *(_value(found, one, name, one in best[name]) for name in names),
            ]
        )
        for one in found.settings()
    ]
    top = " & ".join(escaped(head) + arrow for head, arrow in zip(heads, arrows, strict=True))
    columns = "l" * (1 + len(axes)) + "r" * len(names)
    return _latex(f"{escaped(found.name)}: {_caption(found)}", columns, top, lines)


def _latex(caption: str, columns: str, top: str, lines: Sequence[str]) -> str:
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            top + r" \\",
            r"\midrule",
            *(line + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _caption(found: Compared) -> str:
    counts = sorted({len(found.values(one, n)) for one in found.settings() for n in found.headline})
    counts = [count for count in counts if count]
    worse = "" if found.base is None else rf"; $\dagger$: surely worse than {escaped(found.base)}"
    if not counts or counts == [1]:
        # Of runs the intervals of changes may be known, over a suite's items.
        sure = any(certain for certain in found.certain.values())
        return f"single runs, without intervals{worse if sure else ''}."
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return rf"mean over {seeds} seeds $\pm$ half of the 95\,\% interval (Student's t){worse}."


def _value(found: Compared, one: Setting, name: str, best: bool) -> str:
    mean = found.mean(one, name)
    if mean is None:
        return "--"
    sure = found.settled(one, name) and found.forgotten(one, name)
    return _told(mean, best) + (r"$^\dagger$" if sure else "")


def _told(mean: Interval | None, best: bool = False) -> str:
    if mean is None:
        return "--"
    text = escaped(number(mean.mean))
    text = rf"\textbf{{{text}}}" if best else text
    half = rf" {{\scriptsize $\pm$ {escaped(number(mean.half))}}}" if mean.half is not None else ""
    return text + half


def equal_latex_of(found: Compared) -> str:
    """What methods keep at equal gain; nothing where not every setting was run on all seeds."""
    whole = tried(found)
    if whole is None:
        return ""
    heads = [f"{escaped(whole.gain)}{ARROWS[1]}"]
    for name in whole.kept:
        heads += [escaped(name) + ARROWS[found.metrics[name].sign], rf"hypervolume{ARROWS[1]}"]
    lines = []
    for line in equal_lines(found, whole):
        cells = [text for kept in line.kept for text in (_told(kept.mean), _told(kept.hypervolume))]
        lines.append(" & ".join([*_enough(line), _told(line.gain), *cells]))
    caption = (
        rf"{escaped(found.name)} at equal gain: of each method the setting that keeps most, among those "
        rf"that reach {whole.share:g} of the best {escaped(whole.gain)}; hypervolume of all settings."
    )
    top = " & ".join(["method", "settings", *heads])
    return _latex(caption, "ll" + "r" * len(heads), top, lines)


def _enough(line: Line) -> list[str]:
    return [escaped(line.method), f"{line.enough} of {line.settings}"]


def equal_csv_of(found: Compared) -> str:
    """The same, with the setting that stands for the method and the bounds of each interval."""
    whole = tried(found)
    if whole is None:
        return ""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_equal_heads(whole))
    for line in equal_lines(found, whole):
        told: list[object] = [line.method, line.enough, line.settings, *_numbers(line.gain)]
        for kept in line.kept:
            told += [*_numbers(kept.mean), kept.choice, *_numbers(kept.hypervolume)]
        writer.writerow(told)
    return out.getvalue()


def _equal_heads(whole: Tried) -> list[str]:
    heads = ["method", "enough", "settings", *(whole.gain + part for part in PARTS)]
    for name in whole.kept:
        heads += [*(name + part for part in PARTS), f"{name}_setting"]
        heads += [f"{name}_hypervolume{part}" for part in PARTS]
    return heads


def csv_of(found: Compared) -> str:
    """A line a setting; of each metric the mean, the bounds of its 95 % interval, and the seeds."""
    axes = axes_of(found)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = _measured(found)
    writer.writerow(["method", *axes, *(name + part for name in names for part in PARTS)])
    for one in found.settings():
        line = _place(one, axes)
        for name in names:
            line += _numbers(found.mean(one, name))
        writer.writerow(line)
    return out.getvalue()


def _numbers(mean: Interval | None) -> list[str]:
    """As `PARTS` says."""
    if mean is None:
        return [""] * len(PARTS)
    values = (mean.mean, mean.low, mean.high)
    return [*(f"{value:.6g}" if value == value else "" for value in values), str(mean.n)]


def _measured(found: Compared) -> list[str]:
    """The headline metrics that any setting has."""
    return [n for n in found.headline if any(found.mean(one, n) for one in found.settings())]


def axes_of(found: Compared) -> list[str]:
    """Those that any setting has a value on."""
    return list(dict.fromkeys(name for one in found.settings() for name, _ in one.axes))


def _place(one: Setting, axes: Sequence[str]) -> list[str]:
    values = [one.at(axis) for axis in axes]
    return [one.method, *("" if value is None else setting(value) for value in values)]


def escaped(text: str) -> str:
    """Text for LaTeX."""
    return "".join(SPECIAL.get(mark, mark) for mark in text)
