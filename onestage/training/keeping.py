"""Holding to bounds on what is forgotten: measured while training, acted on, certified at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor

from onestage.config import RecipeError
from onestage.stats import Interval, another
from onestage.training import certificate
from onestage.training.anchored import Anchored
from onestage.training.drawn import NEAR, Line, Measured, prices
from onestage.training.evaluate import term_losses
from onestage.training.keep import Keep
from onestage.training.kept import Kept
from onestage.training.kept_suite import OnSuite
from onestage.training.monitor import Guarded
from onestage.training.retained import OnStream, OnText, goal_records

if TYPE_CHECKING:
    from onestage.training.run import Run


class Keeper:
    """Of one run; made before its first step, from the model as it starts. Raises `RecipeError` for a
    bound that the start model breaks (unless it shall be relaxed), and for one that cannot be measured.
    """

    def __init__(self, run: Run, schedule: Kept) -> None:
        self.run, self.schedule = run, schedule
        keeps = schedule.keeps.values()
        self.watches = {name: _watch(run, one, keeps) for name, one in schedule.keeps.items()}
        self.measured: dict[str, Interval] = {}
        """Of each bound, what was measured last."""
        self.prices: dict[str, float] = {}
        """Of bounds that weights are drawn back to, at the end."""
        drawn = any(keep.draws for keep in schedule.keeps.values())
        texts = {name: self.watches[name].weighed_by for name in self._held()}
        line = Line(trained(run)) if drawn or texts else None  # one copy of the start for both
        self.line = line if drawn else None
        self.anchored = Anchored(run, line.start_of() if line and texts else {}, texts)
        for name, keep in schedule.keeps.items():
            # A weight that stays is only compared with a bound.
            if keep.at_most < 0 and keep.controlled:
                self._give_way(
                    name, f"the start model breaks the bound (0 > {keep.at_most:g})", 0.0
                )

    def hold(self) -> dict[str, float]:
        """Hold the bounds that are due; what there is to log."""
        return self._hold([name for name in self.schedule.keeps if self._due(name)])

    def finish(self) -> dict[str, float]:
        """At the end, hold the bounds that were not due, and the average; what there is to log. A run
        that is made longer does none of this here, and goes on from before it."""
        left = [name for name in self.schedule.keeps if not self._due(name)]
        found = self._hold(left)
        drawn = any(found.get(f"keep/{name}/drawn_to", 1.0) < 1 for name in left)
        for name in self.schedule.keeps if drawn else ():
            if name not in left:
                found[f"keep/{name}/measured"] = self._measure(name).mean
        self._settle()
        return found | self._priced()

    def _priced(self) -> dict[str, float]:
        """What the bounds that weights are drawn back to are worth, to log. A suite's fall is too coarse
        for that."""
        run, line, average = self.run, self.line, self.run.average
        drawn = [n for n, keep in self.schedule.keeps.items() if keep.draws and not keep.on_suite]
        share = self.schedule.inner.share
        records = goal_records(run, [name for name, part in share.items() if part])
        if line is None or not drawn or not records:
            return {}
        averaged = average if average and average.mean else None

        def measure() -> Measured:
            run.masters.round()
            with averaged.in_place() if averaged else nullcontext():
                losses = term_losses(run, records)
                goal = math.fsum(share[name] * loss for name, loss in losses.items())
                return goal, {name: self.watches[name].watched().mean for name in drawn}

        self.prices = prices(line, averaged.mean if averaged else line.weights, measure)
        run.masters.round()
        return {f"keep/{name}/price": price for name, price in self.prices.items()}

    def _due(self, name: str) -> bool:
        return self.run.step % self.schedule.keeps[name].steps == 0

    def _hold(self, due: Sequence[str]) -> dict[str, float]:
        """Measure bounds, let their multipliers follow, and draw the weights back where one is beyond
        what it aims at. Those that draw nothing back are measured last: of the model that is left."""
        drawing = [name for name in due if self.schedule.keeps[name].draws]
        found = self._follow_all(drawing)
        left = self._draw(drawing, self.line.draw) if self.line else 1.0
        for name in drawing if left < 1 else ():
            now, multiplier = self.measured[name].mean, self.schedule.multipliers[name]
            multiplier.drew(now)
            if self._over(name) > 1 + NEAR:
                self.run.say(
                    f"keep {name}: {now:.4g} at step {self.run.step}, beyond its aim; it was drawn back "
                    f"{self.watches[name].again} times, and no more were planned for"
                )
            place = f"keep/{name}"
            found |= {f"{place}/before_drawing": found[f"{place}/measured"]}
            found |= {f"{place}/measured": now, f"{place}/drawn_to": left}
            if f"{place}/slack" in found:
                found[f"{place}/slack"] = multiplier.slack
        return found | self._follow_all(name for name in due if name not in drawing)

    def _follow_all(self, names: Iterable[str]) -> dict[str, float]:
        return {
            f"keep/{name}/{what}": x for name in names for what, x in self._follow(name).items()
        }

    def end(self) -> None:
        """Of a run that goes on only to end, do what one does that comes to its end."""
        if self.run.done and (found := self.finish()):
            self.run.log({"step": self.run.step, **found})

    def _settle(self) -> None:
        """At the end, where an average is what is kept: draw that back, too."""
        average, line = self.run.average, self.line
        if average is None or not average.mean or line is None:
            return
        names = [name for name, keep in self.schedule.keeps.items() if keep.draws]
        self._measure_all(names, average.in_place)
        left = self._draw(names, lambda part: line.draw(part, average.mean), average.in_place)
        if left < 1:
            self.run.say(
                f"keep: the average of the weights was drawn back to {left:.3g} of its way"
            )

    def _follow(self, name: str) -> dict[str, float]:
        """Measure, and let the multiplier follow; what is told of it."""
        keep, multiplier = self.schedule.keeps[name], self.schedule.multipliers[name]
        now = self._measure(name)
        told = {"measured": now.mean}
        # The last measurement of a run is none that a longer one would have taken.
        if keep.means == "nothing" or self.run.step % keep.steps:
            return told
        multiplier.observe(now.mean, self._room(name))
        if multiplier.lost:
            much = f"{keep.measure} is {multiplier.mean}, above {multiplier.bound:g}"
            self._give_way(name, f"no weight of {keep.means} holds the bound ({much})")
        told |= {"bound": multiplier.bound, "slack": multiplier.slack}
        told |= {"multiplier": multiplier.weight, "aim": multiplier.aim}
        return told | ({"price": multiplier.weight} if keep.priced else {})

    def _measure(self, name: str) -> Interval:
        self.measured[name] = self.watches[name].watched()
        return self.measured[name]

    def _room(self, name: str) -> float | None:
        """How far below its bound a measure must stand for the certificate to keep it, too: as far as
        another sample may be above this one, and no further than leaves half of the bound."""
        room = another(self.measured[name], self.watches[name].certified)
        allows = self.schedule.keeps[name].allows and not math.isnan(room)
        return min(room, self.schedule.multipliers[name].scale / 2) if allows else None

    def _draw(
        self,
        names: Sequence[str],
        draw: Callable[[float], None],
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> float:
        """Draw weights back until these bounds, which were measured, hold; which part of their way is
        left. One that has no more time to be measured anew is left where it was found last."""
        drawings = 0

        def again() -> float:
            nonlocal drawings
            drawings += 1
            self.run.masters.round()
            timely = [name for name in names if drawings <= self.watches[name].again]
            self._measure_all(timely, within)
            return self._worst(timely)

        return self.schedule.drawing.until(self._worst(names), draw, again)

    def _measure_all(
        self, names: Iterable[str], within: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        with within():
            for name in names:
                self._measure(name)

    def _worst(self, names: Sequence[str]) -> float:
        """The most that one of these is measured to be; one that is no number hides no other."""
        found = [over for over in map(self._over, names) if not math.isnan(over)]
        return max(found, default=0.0)

    def _over(self, name: str) -> float:
        """How large a measure is, as a part of what it may be. A room that is what samples differ by
        grows and falls with the measure, so that the two together are what falls along the line; a
        margin that was given stays where it is."""
        multiplier, room, now = (
            self.schedule.multipliers[name],
            self._room(name),
            self.measured[name],
        )
        if room is not None:
            return (now.mean + room) / multiplier.bound
        return now.mean / (multiplier.bound - multiplier.margin * multiplier.scale)

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
            pulled, part = self.watches[name].pulled, self.schedule.part(name)
            if part and pulled:
                total += part * pulled.pull(part)
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

    def certify(self) -> list[dict[str, Any]]:
        """What became of each bound on records that nothing of the run has looked at."""
        return [self._certificate(name) for name in self.schedule.keeps]

    def _certificate(self, name: str) -> dict[str, Any]:
        keep, multiplier = self.schedule.keeps[name], self.schedule.multipliers[name]
        watch = self.watches[name]
        before, after, change = watch.held_out()
        verdict = certificate.verdict(change, keep.at_most)
        undecided = verdict == certificate.UNDECIDED
        return {
            **{"name": name, "what": keep.measure, "at_most": keep.at_most, "by": keep.means},
            "verdict": verdict,
            "needed": certificate.needed(change, keep.at_most, watch.span) if undecided else None,
            "relaxed_to": multiplier.bound if multiplier.bound != keep.at_most else None,
            **{"records": watch.certified, "before": before, "after": after},
            **{"change": change.mean, "low": change.low, "high": change.high},
            "multiplier": None if keep.means == "nothing" else multiplier.weight,
            "price": multiplier.weight if keep.priced else self.prices.get(name),
        }

    def _means(self, by: str) -> list[str]:
        return [name for name, keep in self.schedule.keeps.items() if keep.means == by]

    def _worth(self, name: str) -> float:
        return self.schedule.multipliers[name].worth


def _watch(run: Run, keep: Keep, keeps: Iterable[Keep]) -> OnSuite | OnText | OnStream:
    if keep.on_suite:
        return OnSuite(run, keep, keeps)
    return OnText(run, keep) if keep.of else OnStream(run, keep)


def trained(run: Run) -> dict[str, Tensor]:
    """What the optimiser steps of the model's own weights, by name; a value head forgets nothing."""
    found = {n: p for n, p in run.policy.named_parameters() if p.requires_grad}
    stepped = dict(zip(found, run.masters.of(found.values()), strict=True))
    return {name: p for name, p in stepped.items() if not name.startswith("value_head.")}


def keeper_of(run: Run) -> Keeper | None:
    """What holds to the bounds of a run, where it has some."""
    schedule = run.schedule
    inner = schedule.inner if isinstance(schedule, Guarded) else schedule
    return Keeper(run, inner) if isinstance(inner, Kept) else None
