"""What a bound on losses is about, and its records: those that are watched, and the certificate's.

They are different records: a text on which a model was held near its start is not one that shows how
much it has forgotten. A certificate is the change on the held-out records, with the 95 % interval of a
ratio over records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onestage.config import RecipeError
from onestage.data.packing import pack_records
from onestage.models.divergence import Anchor
from onestage.stats import Interval, weighted
from onestage.training.evaluate import by_record
from onestage.training.keep import Keep
from onestage.training.probes import moved
from onestage.training.pulled import Pulled, require, require_exact, split, weighed_by

if TYPE_CHECKING:
    from onestage.training.run import Run

EVERY = 4
"""Without held-out rows, each such record of a text is for the certificate."""


class OnText:
    """KL or loss on a text: records to watch, to pull on, and for the certificate."""

    def __init__(self, run: Run, keep: Keep) -> None:
        self.run, self.keep = run, keep
        own = list(run.data.retention[f"keep/{keep.name}"])
        store = run.data.retention.get(f"keep/{keep.name}/held_out")
        held_out = list(store) if store else own[EVERY - 1 :: EVERY]
        own = own if store else [r for n, r in enumerate(own, 1) if n % EVERY]
        watched, rest = split(own, keep.watch_tokens)
        require(keep, watched, "watched (watch_tokens)")
        require(keep, held_out, "certified (of.eval_path, or every fourth record)")
        budget = run.options.row_budget
        self.watch = Anchor(run.policy, run.devices.deal(run.devices.pack(watched, budget).rows))
        if keep.what == "kl":
            require_exact(run, keep, self.watch, "what: text")
        self.at_start = moved(run, self.watch).loss
        apart = [pack_records([record], budget).rows[0] for record in held_out]
        self.later = Anchor(run.policy, apart)
        self.certified, self.before = len(apart), self._losses()
        self.pulled = Pulled(run, keep, rest) if keep.means == "kl" else None
        self.weighed_by = weighed_by(run, keep, rest) if keep.means == "fisher" else None

    def watched(self) -> float:
        """x: on what the controller looks at; the same on every process."""
        now = moved(self.run, self.watch)
        return now.kl if self.keep.what == "kl" else now.loss - self.at_start

    def held_out(self) -> tuple[float, float, Interval]:
        """Before, after, and the change, on the certificate's records."""
        now = self._losses()
        if self.keep.what == "kl":
            change = weighted([(kl, n) for _, kl, n in now])
            return 0.0, change.mean, change
        pairs = zip(self.before, now, strict=True)
        return _changed([((a[0], a[2]), (b[0], b[2])) for a, b in pairs])

    def _losses(self) -> list[tuple[float, float, float]]:
        """Of each record: loss and KL summed over its scored tokens, and their number."""
        found = []
        for number in range(len(self.later.rows)):
            with self.run.accelerator.autocast():
                one = self.later.measure(self.run.policy, [number])
            n = float(one.positions)
            found.append((one.loss * n, one.kl * n, n))
        return found


class OnStream:
    """The loss of a stream's held-out records under its own objective: half watched, half certified."""

    certified: int
    pulled = weighed_by = None

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
        self.at_start, self.before = self._loss(), by_record(run, self.later)

    def _loss(self) -> float:
        return weighted(by_record(self.run, self.watch)).mean

    def watched(self) -> float:
        return self._loss() - self.at_start

    def held_out(self) -> tuple[float, float, Interval]:
        now = by_record(self.run, self.later)
        return _changed(list(zip(self.before, now, strict=True)))


def _changed(
    pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]],
) -> tuple[float, float, Interval]:
    """Means before and after, and the mean change over all units, by record."""
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    change = weighted([(b[0] - a[0], a[1]) for a, b in pairs])
    return weighted(before).mean, weighted(after).mean, change
