"""The result tables: methods by metrics, the best in bold, the forgotten in red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onestage.report.cells import SMALL, Compared, Metric, Setting
from onestage.report.figures import Look
from onestage.report.markup import Html, el, fold, join, table
from onestage.report.numbers import UNKNOWN, mean_of, number
from onestage.report.reading import mapping
from onestage.report.verdict import FEW as SEEDS
from onestage.stats import Interval

MEAN = "mean"
MEANS = {"mean", "overall", "average"}
LEFT = "left"
"""The group of shares that are left of what there was after a stage."""
FEW = 24
"""Rows of a table that are shown unasked."""


def result_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """The main table, then all metrics in a fold."""
    rows = found.settings()
    if not any(cell.results for cell in found.tested):
        return None
    main = results_table(found, looks, found.headline, rows)
    parts: list[Html | None] = [explanation(found, rows)]
    if len(rows) > FEW:
        parts.append(fold(f"all {len(rows)} settings", main))
    else:
        parts.append(main)
    known = [name for name in found.metrics if any(name in cell.results for cell in found.tested)]
    every = [name for name in known if not found.metrics[name].own]
    if set(every) - set(found.headline):
        table_of_all = results_table(found, looks, every, rows)
        parts.append(fold(f"all {len(every)} metrics", table_of_all))
    own = [name for name in known if found.metrics[name].own]
    if own and found.is_study:
        measured = results_table(found, looks, own, rows)
        parts.append(fold(f"what the runs measured themselves ({len(own)})", measured))
    parts += [_chains(found, looks), _together(found, looks)]
    parts.append(fold("what the metrics mean", _meanings(found.metrics)))
    return join(parts)


def results_table(
    found: Compared, looks: Mapping[str, Look], names: Sequence[str], rows: Sequence[Setting]
) -> Html:
    """Mean and half-width of the 95 % interval over seeds, a row for each setting."""
    names = [name for name in names if any(found.mean(one, name) for one in rows)]
    averaged = averaged_metrics(found, names)
    head: list[object] = ["method", *(_heading(found.metrics[name]) for name in names)]
    if averaged:
        head.append(el("span", MEAN, " ↑", title=f"of {', '.join(averaged)}"))
    means = {one: overall(found, one, averaged) for one in rows} if averaged else {}
    top = max((mean.mean for mean in means.values() if mean), default=None)
    best = {name: found.best(name) for name in names}
    # Where all are of few seeds the note says it; grey would be the colour of the table.
    mixed = found.is_study and any(found.settled(one, name) for one in rows for name in names)
    body = []
    for one in rows:
        line: list[object] = [_named(one, looks)]
        for name in names:
            mean, worse = found.mean(one, name), found.forgotten(one, name)
            change = found.change(one, name)
            few = not found.settled(one, name) and (mixed or worse)
            line.append(value_cell(mean, change, one in best[name], worse, few))
        if averaged:
            mean = means[one]
            # A single row is not the best of anything.
            first = mean is not None and mean.mean == top and len(means) > 1
            few = mixed and mean is not None and mean.n < SEEDS
            line.append(value_cell(mean, None, first, False, few))
        body.append(line)
    return table(head, body, class_="results")


def _named(one: Setting, looks: Mapping[str, Look]) -> Html:
    place = el("small", one.place, class_="under") if one.axes else None
    return el("span", looks[one.method].chip, el("span", one.method, place), class_="method")


def averaged_metrics(found: Compared, names: Sequence[str]) -> list[str]:
    """What the column `mean` is a mean of: shares that are better when higher. None of fewer than two,
    nor where the table has such a column already."""
    if MEANS & set(names):
        return []
    metrics = [name for name in names if found.share(name)]
    return metrics if len(metrics) > 1 else []


def overall(found: Compared, one: Setting, metrics: Sequence[str]) -> Interval | None:
    """Mean over metrics, seed by seed; only seeds that have them all."""
    values = [found.values(one, name) for name in metrics]
    seeds = [seed for seed in values[0] if all(seed in value for value in values)]
    return mean_of([sum(value[seed] for value in values) / len(values) for seed in seeds])


def value_cell(
    mean: Interval | None, change: Interval | None, best: bool, worse: bool, few: bool
) -> Html:
    """few: of fewer seeds than say anything for sure; such numbers are grey, and never red."""
    if mean is None:
        return el("td", UNKNOWN, class_="none")
    told = [f"{mean.n} seed{'s' if mean.n > 1 else ''}"]
    if change is not None:
        told.append(f"against the base {_signed(change)}")
    half = el("small", " ± ", number(mean.half)) if mean.half is not None else None
    text: object = el("b", number(mean.mean)) if best else number(mean.mean)
    if worse:
        told.append("forgotten")
    if few:
        told.append("too few to be sure of")
    name = " ".join(["best"] * best + ["forgotten"] * worse + ["few"] * few)
    return el("td", text, half, class_=name or None, title="; ".join(told))


def _signed(change: Interval) -> str:
    text = ("+" if change.mean >= 0 else "") + number(change.mean)
    return text if change.half is None else f"{text} ± {number(change.half)}"


def _heading(metric: Metric) -> Html:
    return el("span", metric.label, metric.arrow, title=metric.says or None)


def explanation(found: Compared, rows: Sequence[Setting]) -> Html:
    """How to read the table."""
    counts = sorted({len(found.values(one, n)) for one in rows for n in found.headline} - {0})
    if not counts:
        says: list[object] = ["None of the headline metrics was measured. "]
    elif counts == [1]:
        says = ["One seed each, so there are no intervals. "]
    else:
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        says = [f"Mean over {seeds} seeds ± half the width of its 95 % interval (Student's t). "]
    says += [el("b", "Bold"), ": the best of a column. ", _judged_on(found)]
    if counts and counts[0] < SEEDS <= counts[-1]:
        says += [el("span", "Grey", class_="few"), f": fewer than {SEEDS} seeds, sure of nothing. "]
    elif found.is_study and counts and counts[-1] < SEEDS:
        says.append(f"Fewer than {SEEDS} seeds are sure of nothing. ")
    if found.base is None:
        return el("p", *says, class_="note")
    says += [el("span", "Red", class_="forgotten"), f": forgotten, surely worse than {found.base}"]
    items = "" if found.is_study else " or over a suite's items,"
    says.append(f" (the interval of the change, over {SEEDS} seeds or more,{items} excludes zero)")
    if counts and counts[0] < SEEDS:
        says += [". ", el("span", "▼ ", class_="forgotten few"), "the same of fewer seeds"]
    if 1 in counts:
        says.append(f" (of one: worse by more than {SMALL:g}, or {SMALL:.0%} if above 1)")
    return el("p", *says, ".", class_="note")


def _judged_on(found: Compared) -> str:
    """On what the numbers were measured, and on what the settings were chosen."""
    if not found.is_study:
        return "Measured on held-out rows; which of them is best is chosen by the numbers shown. "
    seeds = mapping(found.about.get("tune")).get("seeds")
    chosen = "All numbers are of the test split"
    if isinstance(seeds, list) and seeds:
        told = ", ".join(map(str, seeds))
        chosen += (
            f"; settings were chosen on the validation split of seed{'s' * (len(seeds) > 1)} {told}"
        )
    return f"{chosen}. "


def _chains(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """What chains end with, as shares of what they had after a stage of their own."""
    names = [name for name, metric in found.metrics.items() if metric.group == LEFT]
    rows = [one for one in found.settings() if any(found.mean(one, name) for name in names)]
    if not rows:
        return None
    says = (
        "1: the later stages left it as it was. Methods without such a stage are not in the table."
    )
    table_of = results_table(found, looks, names, rows)
    return join([el("h3", "Chains against themselves"), el("p", says, class_="note"), table_of])


def _together(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """Numbers of several cells together, such as the hypervolume over an axis."""
    names = list(dict.fromkeys(name for cell in found.whole for name in cell.results))
    if not names:
        return None
    apart = replace(found, cells=found.whole, base=None)
    rows = [one for one in apart.settings() if one.method in looks]
    says = [f"{name}: {found.metrics[name].says}" for name in names if found.metrics[name].says]
    body = results_table(apart, looks, names, rows)
    title = el("h3", "Of all settings of a method together")
    return join([title, el("p", "; ".join(says), class_="note") if says else None, body])


def _meanings(metrics: Mapping[str, Metric]) -> Html:
    rows = [
        (m.label, m.says or UNKNOWN, m.better or "neither", m.group or UNKNOWN)
        for m in metrics.values()
    ]
    return table(("metric", "what it is", "better", "group"), rows)
