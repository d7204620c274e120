"""Holding to bounds on what is forgotten: measured while training, acted on, and certified at the end.

What the controller looks at, what is pulled on and what the certificate is about are different records:
a text on which a model was held near its start is not one that shows how much it has forgotten. A
certificate is the change on the held-out records, with the 95 % interval of a ratio over records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.models.divergence import Anchor
from onestage.randomness import generator
from onestage.stats import Interval, weighted
from onestage.training.anchored import Anchored
from onestage.training.evaluate import by_record
from onestage.training.keep import Keep, Kept
from onestage.training.monitor import Guarded
from onestage.training.probes import moved

if TYPE_CHECKING:
    from onestage.training.run import Run

EVERY = 4
"""Without held-out rows, each such record of a text is for the certificate."""
Parts = list[tuple[float, float]]
"""Of each record, a sum over its tokens or units, and their number."""


class Keeper:
    """Of one run; made before its first step, from the model as it starts. Raises `RecipeError` for a
    bound that the start model breaks (unless it shall be relaxed), and for one that cannot be measured.
    """

    def __init__(self, run: Run, schedule: Kept) -> None:
        self.run, self.schedule = run, schedule
        self.watches: dict[str, OnText | OnStream] = {
            name: (OnText if keep.of else OnStream)(run, keep)
            for name, keep in schedule.keeps.items()
        }
        self.anchored = Anchored(run, {name: self._weighed_by(name) for name in self._held()})
        for name, keep in schedule.keeps.items():
            # A weight that stays is only compared with a bound.
            holds = keep.means != "nothing" and keep.multiplier is None
            if keep.at_most < 0 and holds:
                self._give_way(
                    name, f"the start model breaks the bound (0 > {keep.at_most:g})", 0.0
                )

    def due(self) -> bool:
        return any(self.run.due(keep.steps) for keep in self.schedule.keeps.values())

    def hold(self) -> dict[str, float]:
        """Measure the bounds that are due, and let their multipliers follow; what there is to log."""
        found: dict[str, float] = {}
        for name, keep in self.schedule.keeps.items():
            if not self.run.due(keep.steps):
                continue
            now = self.watches[name].watched()
            found[f"keep/{name}/measured"] = now
            # The last measurement of a run is none that a longer one would have taken.
            if keep.means != "nothing" and self.run.step % keep.steps == 0:
                told = self._follow(name, keep, now)
                found |= {f"keep/{name}/{what}": value for what, value in told.items()}
        return found

    def _follow(self, name: str, keep: Keep, now: float) -> dict[str, float]:
        """Let a multiplier follow a measurement; what is told of it."""
        multiplier = self.schedule.multipliers[name]
        multiplier.observe(now)
        if multiplier.lost:
            much = f"{keep.what} is {multiplier.mean}, above {multiplier.bound:g}"
            self._give_way(name, f"no weight of {keep.means} holds the bound ({much})")
        told = {
            "bound": multiplier.bound,
            "slack": multiplier.slack,
            "multiplier": multiplier.weight,
        }
        return told | ({"price": multiplier.weight} if keep.priced else {})

    def _give_way(self, name: str, why: str, level: float | None = None) -> None:
        keep, multiplier = self.schedule.keeps[name], self.schedule.multipliers[name]
        if keep.then == "relax":
            if level is not None:
                multiplier.mean = level
            self.run.say(f"keep {name}: {why}; the bound is relaxed to {multiplier.relax():.4g}")
        elif self.run.step == 0:
            raise RecipeError(f"keep {name}: {why}; raise at_most, or set then: relax")
        else:
            self.run.say(f"keep {name}: {why}; the run stops here")
            self.run.stop = True

    def pull(self) -> float:
        """Add the gradients of what pulls to the start; what that adds to the step's loss.

        Every rank adds the same, after the gradients were added over ranks.
        """
        total = 0.0
        for name in self._means("kl"):
            watch, part = self.watches[name], self.schedule.part(name)
            if part and isinstance(watch, OnText):
                total += part * watch.pull(part)
        if total:
            self.run.masters.gather()
        return total

    def step(self) -> None:
        """The optimiser's step, as long as the bounds allow, and the decay to the start."""
        run, groups = self.run, self.run.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        short = math.prod(1 / (1 + self._worth(name)) for name in self._means("step"))
        for group in groups:
            group["lr"] *= short
        run.optimizer.step()
        nu = {name: self.schedule.nu(name) for name in self._held()}
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
            self.anchored.decay(group["params"], rate, nu)

    def _held(self) -> list[str]:
        """The bounds by which weights are drawn back."""
        return [*self._means("anchor"), *self._means("fisher")]

    def _weighed_by(self, name: str) -> Sequence[Encoded] | None:
        """The records by which a bound weighs the weights that it draws back; None: all alike."""
        watch = self.watches[name]
        return watch.weighed_by if isinstance(watch, OnText) else None

    def certify(self) -> list[dict[str, Any]]:
        """What became of each bound on records that nothing of the run has looked at."""
        return [self._certificate(name) for name in self.schedule.keeps]

    def _certificate(self, name: str) -> dict[str, Any]:
        keep, multiplier = self.schedule.keeps[name], self.schedule.multipliers[name]
        watch = self.watches[name]
        before, after, change = watch.held_out()
        held = "held" if change.high <= keep.at_most else "within the interval"
        return {
            **{"name": name, "what": keep.what, "at_most": keep.at_most, "by": keep.means},
            "verdict": held if change.mean <= keep.at_most else "broken",
            "relaxed_to": multiplier.bound if multiplier.bound != keep.at_most else None,
            **{"records": watch.certified, "before": before, "after": after},
            **{"change": change.mean, "low": change.low, "high": change.high},
            "multiplier": None if keep.means == "nothing" else multiplier.weight,
            "price": multiplier.weight if keep.priced else None,
        }

    def _means(self, by: str) -> list[str]:
        return [name for name, keep in self.schedule.keeps.items() if keep.means == by]

    def _worth(self, name: str) -> float:
        return self.schedule.multipliers[name].worth


class OnText:
    """KL or loss on a text: records to watch, to pull on, and for the certificate."""

    def __init__(self, run: Run, keep: Keep) -> None:
        self.run, self.keep = run, keep
        own = list(run.data.retention[f"keep/{keep.name}"])
        store = run.data.retention.get(f"keep/{keep.name}/held_out")
        held_out = list(store) if store else own[EVERY - 1 :: EVERY]
        own = own if store else [r for n, r in enumerate(own, 1) if n % EVERY]
        watched, rest = split(own, keep.watch_tokens)
        self._require(watched, "watched (watch_tokens)")
        self._require(held_out, "certified (of.eval_path, or every fourth record)")
        budget = run.options.row_budget
        self.watch = Anchor(run.policy, run.devices.deal(run.devices.pack(watched, budget).rows))
        if keep.what == "kl" and not self.watch.exact:
            raise RecipeError(
                f"keep {keep.name}: the KL of a model whose head is no linear map cannot be measured "
                f"({run.policy.fit.reason}); take what: text"
            )
        self.at_start = moved(run, self.watch).loss
        apart = [pack_records([record], budget).rows[0] for record in held_out]
        self.later = Anchor(run.policy, apart)
        self.certified, self.before = len(apart), self._losses()
        self.pulled = self._anchor_to_pull(rest) if keep.means == "kl" else None
        self.weighed_by = self._pool(rest) if keep.means == "fisher" else None

    def _require(self, records: Sequence[Encoded], what: str) -> None:
        if not records:
            raise RecipeError(
                f"keep {self.keep.name}: too few records: none is left to be {what}; give more rows"
            )

    def _anchor_to_pull(self, rest: Sequence[Encoded]) -> Anchor:
        pool = self._pool(rest)
        longest = max(path_tokens(record) for record in pool)
        rows = pack_records(pool, max(longest, self.keep.step_tokens)).rows
        return Anchor(self.run.policy, rows)

    def _pool(self, rest: Sequence[Encoded]) -> list[Encoded]:
        """The records that are pulled on, or that weights are weighed by."""
        most, pulls = self.keep.pool_tokens, self.keep.means == "kl"
        pool, left = split(rest, most)
        self._require(pool, "pulled on" if pulls else "read for the Fisher information")
        if left:
            does = "pulls on" if pulls else "weighs weights by"
            self.run.say(
                f"keep {self.keep.name}: {does} the first {len(pool):,} of {len(rest):,} records "
                f"(pool_tokens: {most:,})"
            )
        return pool

    def watched(self) -> float:
        """x: on what the controller looks at; the same on every process."""
        now = moved(self.run, self.watch)
        return now.kl if self.keep.what == "kl" else now.loss - self.at_start

    def pull(self, weight: float) -> float:
        """Add weight times the gradient of the KL on the row of this step; returns that KL."""
        assert self.pulled is not None
        run, size = self.run, len(self.pulled.rows)
        turn, place = divmod(run.step, size)
        order = generator(f"{run.options.seed}/keep/{self.keep.name}/{turn}").permutation(size)
        with run.accelerator.autocast():
            return self.pulled.pull(run.policy, int(order[place]), weight)

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


def keeper_of(run: Run) -> Keeper | None:
    """What holds to the bounds of a run, where it has some."""
    schedule = run.schedule
    inner = schedule.inner if isinstance(schedule, Guarded) else schedule
    return Keeper(run, inner) if isinstance(inner, Kept) else None


def certify(run: Run) -> None:
    """Say and write what became of a run's bounds, of the model that was saved."""
    if run.keeper is None:
        return
    with run.average.in_place() if run.average and run.average.mean else nullcontext():
        found = run.keeper.certify()
    for line in map(told, found):
        run.say(line)
    if run.folder:
        run.folder.certify(found)
    run.log({"step": run.step, **{k: v for one in found for k, v in logged(one).items()}})


def told(one: Mapping[str, Any]) -> str:
    """A certificate in a line."""
    bound = one["at_most"]
    line = (
        f"keep {one['name']}: {one['what']} {one['change']:.4g} ({one['low']:.4g} to "
        f"{one['high']:.4g}) on {one['records']:,} held-out records, at most {bound:g}: "
        f"{one['verdict']}"
    )
    if one["relaxed_to"] is not None:
        line += f"; relaxed to {one['relaxed_to']:.4g}"
    if one["price"] and bound > 0:
        line += f"; a bound {bound / 10:.2g} higher would be worth {one['price'] * bound / 10:.2g}"
    return line


def logged(one: Mapping[str, Any]) -> dict[str, float]:
    """A certificate in a line of metrics."""
    where = f"keep/{one['name']}/held_out"
    return {where: one["change"], f"{where}_low": one["low"], f"{where}_high": one["high"]}


def split(records: Sequence[Encoded], tokens: int) -> tuple[list[Encoded], list[Encoded]]:
    """The first records, up to a number of scored tokens and at least one, and the others."""
    left, size = tokens, 0
    for record in records:
        left -= record.scored
        if left < 0 and size:
            break
        size += 1
    return list(records[:size]), list(records[size:])


def path_tokens(record: Encoded) -> int:
    """Of its longest path."""
    return max(len(path.ids) for path in record.paths)
