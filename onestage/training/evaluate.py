"""Evaluation losses on held-out rows: of every term, stream and kind, with the training objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onestage.data.encoded import Encoded
from onestage.training.forward import row_terms
from onestage.training.metrics import Tally

if TYPE_CHECKING:
    from onestage.training.run import Run

CHUNK = 256
"""Records packed at once."""


def evaluate(run: Run, records: Sequence[Encoded], share: Mapping[str, float]) -> dict[str, float]:
    """Means over all records: `eval/loss` with the terms weighed by `share` (NaN where no held-out row
    has a loss that is weighed), and by stream and kind.

    Processes share the work; every one returns the same numbers. Training state is untouched.
    """
    tally, terms = Tally(), Tally()
    answering: dict[str, float] = {}
    if run.answers:
        records, answering = run.answers.evaluate(records)
    with run.policy.evaluating():
        for start in range(0, len(records), CHUNK):
            part = records[start : start + CHUNK]
            batch = run.devices.pack(part, run.options.row_budget)
            groups = [f"eval/{record.source}/{record.kind}" for record in part]
            for row in run.devices.deal(batch.rows):
                _, losses = row_terms(run, row, batch)
                tally.add(losses.values(), groups)
                for name, loss in losses.items():
                    terms.add([loss], [name] * len(part))
    tally, terms = _gathered(run, tally), _gathered(run, terms)
    means = _losses(terms)
    # Terms without held-out rows are left out, and the others weigh more for it.
    weight = sum(share[name] for name in means)
    overall = sum(share[name] * value for name, value in means.items())
    overall = overall / weight if weight else math.nan
    by_stream = Tally()
    for (group, what), value in tally.sums.items():
        if what == "loss":
            by_stream.merge({(group.rsplit("/", 1)[0], what): value})
    by_term = {f"eval/terms/{name}": value for name, value in means.items()}
    told = {"eval/loss": overall, **by_term, **by_stream.means(), **tally.means()}
    return told | answering


def measure(run: Run, names: Sequence[str]) -> dict[str, float]:
    """Losses of some terms, as the schedule wants them measured; NaN where there is nothing to do."""
    records = run.feeds.to_measure(names, next_batch=run.schedule.measure == "next_batch")
    found = term_losses(run, records)
    return {name: found.get(name, math.nan) for name in names}


def term_losses(run: Run, records: Sequence[Encoded]) -> dict[str, float]:
    """Mean loss of each term on some records; the same on every process."""
    terms = Tally()
    with run.policy.evaluating():
        batch = run.devices.pack(records, run.options.row_budget)
        for row in run.devices.deal(batch.rows):
            _, losses = row_terms(run, row, batch)
            for name, loss in losses.items():
                terms.add([loss], [name] * len(records))
    return _losses(_gathered(run, terms))


def by_record(
    run: Run, records: Sequence[Encoded], term: str | None = None
) -> list[tuple[float, float]]:
    """The loss of each record summed over its units, and their number; the same on every process.

    term: its loss alone; default: of all terms.
    """
    tally = Tally()
    with run.policy.evaluating():
        for start in range(0, len(records), CHUNK):
            part = records[start : start + CHUNK]
            batch = run.devices.pack(part, run.options.row_budget)
            groups = [str(start + place) for place in range(len(part))]
            for row in run.devices.deal(batch.rows):
                _, losses = row_terms(run, row, batch)
                tally.add([x for name, x in losses.items() if term in (None, name)], groups)
    sums = _gathered(run, tally).sums
    return [sums.get((str(n), "loss"), (0.0, 0.0)) for n in range(len(records))]


def _losses(terms: Tally) -> dict[str, float]:
    return {
        name: total / count for (name, what), (total, count) in terms.sums.items() if what == "loss"
    }


def _gathered(run: Run, tally: Tally) -> Tally:
    """What all ranks have added."""
    whole = Tally()
    for sums in run.devices.gather([tally.sums]):
        whole.merge(sums)
    return whole
