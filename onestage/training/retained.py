"""What a bound on losses is about, and its records: those that are watched, and the certificate's.

They are different records: a text on which a model was held near its start is not one that shows how
much it has forgotten. A certificate is the change on the held-out records, with the 95 % interval of a
ratio over records.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.models.divergence import Anchor
from onestage.stats import Interval, weighted
from onestage.training.drawn import TRIES
from onestage.training.evaluate import by_record
from onestage.training.keep import Keep
from onestage.training.pulled import Pulled, require, require_exact, split, weighed_by

if TYPE_CHECKING:
    from onestage.training.run import Run

EVERY = 4
"""Without held-out rows, each such record of a text is for the certificate."""
GOAL_TOKENS = 4096
"""Scored tokens of each goal, by which a price is measured."""
Sums = tuple[float, float, int]
"""Of a record: loss and KL summed over its scored tokens, and their number."""


class Sampled:
    """Records of a text, and what the start model says of them. Ranks share the work."""

    def __init__(self, run: Run, records: Sequence[Encoded]) -> None:
        self.run, self.records = run, records
        rows = run.devices.pack(list(records), run.options.row_budget).rows
        with run.accelerator.autocast():  # as it is measured later
            self.anchor = Anchor(run.policy, run.devices.deal(rows))
        self.before = self.sums()

    def sums(self) -> list[Sums]:
        """By record; the same on every process."""
        mine: list[tuple[int, Sums]] = []
        for number, row in enumerate(self.anchor.rows):
            with self.run.accelerator.autocast():
                loss_K, kl_K = self.anchor.each(self.run.policy, number)
            sizes = [self.records[record].scored for record in row.records]
            cut = zip(loss_K.double().split(sizes), kl_K.double().split(sizes), strict=True)
            for record, (loss, kl) in zip(row.records, cut, strict=True):
                mine.append((record, (loss.sum().item(), kl.sum().item(), len(loss))))
        return [sums for _, sums in sorted(self.run.devices.gather(mine))]

    def change(self, what: str) -> tuple[float, float, Interval]:
        """Means a token before and now, and the change: of the KL, or of the loss."""
        now = self.sums()
        if what == "kl":
            change = weighted([(kl, n) for _, kl, n in now])
            return 0.0, change.mean, change
        pairs = zip(self.before, now, strict=True)
        return changed([((a[0], a[2]), (b[0], b[2])) for a, b in pairs])


class OnText:
    """KL or loss on a text: records to watch, to pull on, and for the certificate."""

    span, again = None, TRIES

    def __init__(self, run: Run, keep: Keep) -> None:
        self.run, self.keep = run, keep
        own = list(run.data.retention[f"keep/{keep.name}"])
        store = run.data.retention.get(f"keep/{keep.name}/held_out")
        held_out = list(store) if store else own[EVERY - 1 :: EVERY]
        own = own if store else [r for n, r in enumerate(own, 1) if n % EVERY]
        watched, rest = split(own, keep.watch_tokens)
        require(keep, watched, "watched (watch_tokens)")
        require(keep, held_out, "certified (of.eval_path, or every fourth record)")
        self.watch, self.later = Sampled(run, watched), Sampled(run, held_out)
        if keep.what == "kl":
            require_exact(run, keep, self.watch.anchor, "what: text")
        self.certified = len(held_out)
        self.pulled = Pulled(run, keep, rest) if keep.means == "kl" else None
        self.weighed_by = weighed_by(run, keep, rest) if keep.means == "fisher" else None

    def watched(self) -> Interval:
        """x on what the controller looks at; the same on every process."""
        return self.watch.change(self.keep.what)[2]

    def held_out(self) -> tuple[float, float, Interval]:
        """Before, after, and the change, on the certificate's records."""
        return self.later.change(self.keep.what)


class OnStream:
    """The loss of a stream's held-out records under its own objective: half watched, half certified."""

    certified: int
    pulled = weighed_by = span = None
    again = TRIES

    def __init__(self, run: Run, keep: Keep) -> None:
        self.run, self.keep = run, keep
        records = list(run.data.held_out[keep.name])
        if len(records) < 2 or any(record.is_problem for record in records):
            raise RecipeError(
                f"keep {keep.name}: needs two held-out records at least, and none that the policy "
                f"answers itself; there are {len(records)}"
            )
        self.watch, self.later = records[::2], records[1::2]
        self.certified = len(self.later)
        self.at_start, self.before = by_record(run, self.watch), by_record(run, self.later)

    def watched(self) -> Interval:
        now = by_record(self.run, self.watch)
        return changed(list(zip(self.at_start, now, strict=True)))[2]

    def held_out(self) -> tuple[float, float, Interval]:
        now = by_record(self.run, self.later)
        return changed(list(zip(self.before, now, strict=True)))


def goal_records(run: Run, goals: Sequence[str]) -> list[Encoded]:
    """Records by which the goals' loss is measured: held-out ones of each term, some thousand tokens of
    them, or of those that are trained on; none that the policy answers itself."""
    held_out = list(chain.from_iterable(run.data.held_out.values()))
    found: list[Encoded] = []
    for name in goals:
        for records in (held_out, run.first_records()):
            mine = [r for r in records if not r.is_problem and run.terms.name_of(r) == name]
            if mine:
                found += split(mine, GOAL_TOKENS)[0]
                break
    return found


def changed(
    pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]],
) -> tuple[float, float, Interval]:
    """Means before and after, and the mean change over all units, by record."""
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    change = weighted([(b[0] - a[0], a[1]) for a, b in pairs])
    return weighted(before).mean, weighted(after).mean, change
