"""A bound on what a suite finds: answers to watched items, and to as many others for the certificate.

    x = headline(start) - headline(now), paired by item      (the other way round where less is better)

Watched items decide what is trained, so how many there are, and how long an answer may be, is settled
once, before the first step, by the clock (`keep.share` of the run's time) or by the user (`keep.items`),
and is the same from then on, after a resume, too. What the start model's answers were worth is kept in
the run folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from onestage.config import RecipeError
from onestage.rollout import suites
from onestage.rollout.evaluation import make_suites
from onestage.rollout.suites import Item, Scores, Subject, Suite
from onestage.runfolder import KEPT_ITEMS, read_json
from onestage.stats import Estimate, Interval
from onestage.training.asked import FEWEST, Asked, drawn
from onestage.training.asker import Asker
from onestage.training.certificate import too_few, widened
from onestage.training.keep import Keep
from onestage.training.pace import Pace
from onestage.training.pulled import Pulled, weighed_by
from onestage.training.rehearsal import seconds_of_a_step

if TYPE_CHECKING:
    from onestage.training.run import Run

CERTIFICATE = 2
"""Measurements that it costs: as many items as are watched, before and after."""
AGAIN = 2
"""Measurements more, at most, of one after which weights are drawn back: what is planned has room for
them, and for no more."""


def suite_of(keep: Keep) -> Suite:
    """Raises `RecipeError` for a suite that cannot be had."""
    try:
        (suite,) = make_suites([keep.what]).values()
        suite.check()
    except ValueError as error:
        raise RecipeError(f"keep.what: {error}; or keep kl, text or loss") from error
    return suite


def items_of(keep: Keep, suite: Suite, templated: bool) -> tuple[list[Item], list[Item]]:
    """Those that may be watched, and those for the certificate, in an order drawn once; `RecipeError`
    where there are too few."""
    try:
        items = drawn(f"keep {keep.name}", suites.chosen(suite, templated))
    except ValueError as error:
        raise RecipeError(f"keep {keep.name}: {error}") from error
    needed = 2 * (keep.items or FEWEST)
    if len(items) < needed:
        raise RecipeError(
            f"keep {keep.name}: the suite has {len(items)} items, and {needed} are needed: half of them "
            "are watched and half are for the certificate; give more" + _or_fewer(keep)
        )
    return items[::2], items[1::2]


def _or_fewer(keep: Keep) -> str:
    return ", or set keep.items lower" if keep.items and keep.items > FEWEST else ""


def check(keeps: Sequence[Keep], tokenizer: Any, task: str) -> None:
    """Raise `RecipeError` for suites that cannot be kept, before any weights are loaded."""
    for keep in keeps:
        if keep.on_suite and task == "reward":
            raise RecipeError(
                f"keep {keep.name}: a reward model (model.task) writes nothing; keep what: loss"
            )
        if keep.on_suite:
            items_of(keep, suite_of(keep), tokenizer.chat_template is not None)


def notes(
    keeps: Sequence[Keep], steps: int, averaged: bool, tokenizer: Any, seconds: float
) -> Iterator[str]:
    """What measuring will cost, in a line for each. averaged: whether an average of the weights is kept;
    seconds: that the run takes otherwise."""
    for keep in keeps:
        if not keep.on_suite:
            continue
        suite, often = suite_of(keep), measurements(keep, steps, averaged, keeps)
        watched, _ = items_of(keep, suite, tokenizer.chat_template is not None)
        longest = getattr(suite, "max_completion_length", None)
        upto = f" of up to {longest:,} tokens" if longest else ""
        if keep.items:
            answers, most = keep.items * (often + CERTIFICATE), "up to " if keep.draws else ""
            yield (
                f"keep {keep.name}: {keep.items} items at {most}{often} times, and as many for the "
                f"certificate, before and after: {answers:,} answers{upto}, whatever they take"
            )
        else:
            allowed = Pace(keep.share, steps, guess=seconds / steps).allowed
            part = f"{keep.share:.1%} of the run's time (about {allowed:,.0f} s)"
            yield (
                f"keep {keep.name}: up to {len(watched)} items at {often} times, and as many for the "
                f"certificate, in {part}; answers{upto}"
            )


def doubts(keeps: Sequence[Keep], tokenizer: Any) -> Iterator[str]:
    """Bounds that no certificate of theirs can show to be held, and that nothing relaxes, in a line for
    each."""
    for keep in keeps:
        if keep.draws and keep.then == "relax":
            yield (
                f"keep {keep.name}: then: relax does nothing where weights are drawn back, which always "
                "holds the bound; take beyond: wait with it"
            )
        if keep.on_suite:
            suite = suite_of(keep)
            _, later = items_of(keep, suite, tokenizer.chat_template is not None)
            if short := too_few(keep.items or len(later), keep.at_most, suite.span):
                yield f"keep {keep.name}: {short} (the suite has {len(later):,} for the certificate)"


def measurements(keep: Keep, steps: int, averaged: bool, keeps: Iterable[Keep]) -> int:
    """How often the watched items are asked at most: at the start, every so many steps, and at the end,
    there also of an average that is kept; where weights are drawn back, each time `AGAIN` times more.
    Where the last step is one of those, once more, if another of the bounds has its turn at the end only
    and draws them back there."""
    once = math.ceil(steps / keep.steps) + (averaged and keep.draws)
    later = any(one.draws and steps % one.steps for one in keeps) and not steps % keep.steps
    return 1 + once * (1 + AGAIN * keep.draws) + later


class OnSuite:
    """The headline of a suite; made before the first step, from the model as it starts. keeps: all
    bounds of the run.

    Raises `RecipeError` where too few items fit the share of the time, and for a fall that there cannot
    be.
    """

    def __init__(
        self,
        run: Run,
        keep: Keep,
        keeps: Iterable[Keep],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.keep, self.clock = run, keep, clock
        self.often = measurements(keep, run.steps, run.average is not None, keeps)
        self.again = AGAIN
        """How often it may be measured anew while weights are drawn back."""
        self.began, self.spent = clock(), 0.0
        """When this process began with it, and the seconds that its answers have taken since."""
        suite, subject = suite_of(keep), Subject.of(run.policy, run.loaded.tokenizer)
        self.asker, self.span = Asker(run, subject, clock), suite.span
        watched, later = items_of(keep, suite, subject.templated)
        self.digest = suites.digest(suite, [*watched, *later])
        self.watch, self.later = (Asked(keep.name, suite, items) for items in (watched, later))
        text = list(run.data.retention.get(f"keep/{keep.name}", ()))
        self.pulled = Pulled(run, keep, text) if keep.means == "kl" else None
        self.weighed_by = weighed_by(run, keep, text) if keep.means == "fisher" else None
        known = self._known()
        if known is None:
            self._begin()
        else:
            self._recall(known)
        self.certified = len(self.later.start)

    def watched(self) -> Interval:
        """x on what the controller looks at; the same on every process. NaN where nothing could be
        judged."""
        with self._timed():
            now = self.asker.ask(self.watch, len(self.watch.items), math.inf)
        return _interval(self._fall(self.watch, now))

    def held_out(self) -> tuple[float, float, Interval]:
        """Before, after, and the fall, on the certificate's items."""
        one = self.later
        with self._timed():
            now = self.asker.ask(one, len(one.items), math.inf)
        both = [i for i in one.start if i in now]
        self.certified, fall = len(both), self._fall(one, now)
        found = [self._headline(one, {i: s[i] for i in both}) for s in (one.start, now)]
        self.run.say(self._told())
        return found[0].value, found[1].value, widened(_interval(fall), self.span)

    def _begin(self) -> None:
        """Ask the start model, and settle what is asked from now on."""
        keep, watch, later = self.keep, self.watch, self.later
        with self._timed():
            if keep.items:
                watch.items = watch.items[: keep.items]
                watch.start = self.asker.ask(watch, keep.items, math.inf)
            else:
                self._settle()
            # What could not be judged of the start model can be compared with nothing.
            watch.items = [item for item in watch.items if item.id in watch.start]
            later.items, later.most = later.items[: len(watch.items)], watch.most
            later.start = self.asker.ask(later, len(later.items), math.inf)
        later.items = [item for item in later.items if item.id in later.start]
        self._require()
        if self.run.folder:
            self.run.folder.kept_items(keep.name, self._contents())
        self.run.say(self._plan())
        if short := too_few(len(later.items), keep.at_most, self.span):
            self.run.say(f"keep {keep.name}: {short}")

    def _settle(self) -> None:
        """As many items as the share of the time has room for, of answers as long as it has."""
        run, watch, often = self.run, self.watch, self.often
        pace = Pace(self.keep.share, run.steps)
        guess = seconds_of_a_step(run, lambda most: self.asker.more_than(watch, most), self.clock)
        pace.guess = self.asker.agreed(guess)
        room = pace.allowed / (often + CERTIFICATE)
        first = self.asker.rehearse(watch, room)
        watch.start = self.asker.ask(watch, len(watch.items), room + first.took, first)
        if len(watch.start) < FEWEST:
            raise RecipeError(
                f"keep {self.keep.name}: {self.keep.share:.1%} of the run's time has room for "
                f"{len(watch.start)} of its items at each of {often} measurements ({room:.1f} s), and "
                f"{FEWEST} are the least: raise keep.share or keep.steps, or set keep.items (of "
                f"{watch.each:.2g} s each)"
            )

    def _require(self) -> None:
        """Raise `RecipeError` where nothing can be measured, or nothing lost."""
        keep, start = self.keep, self._headline(self.watch, self.watch.start)
        if not (self.watch.start and self.later.start):
            raise RecipeError(
                f"keep {keep.name}: not one answer of the start model could be judged"
            )
        falls = not self.watch.suite.lower_is_better(self.watch.suite.headline)
        if keep.controlled and falls and 0 <= start.value < keep.at_most:
            raise RecipeError(
                f"keep {keep.name}: at_most: {keep.at_most:g} is more than the start model has to lose "
                f"(its {self.watch.suite.headline} is {start.value:.3g}); of a share, 0.02 is 2 points "
                "of 100"
            )

    def _headline(self, one: Asked, scores: Mapping[str, Scores]) -> Estimate:
        if not scores:
            return Estimate(math.nan)
        return one.suite.summarise(scores)[one.suite.headline]

    def _fall(self, one: Asked, now: Mapping[str, Scores]) -> Estimate:
        """x, of the items that were judged both times."""
        both = [i for i in one.start if i in now]
        before, after = (
            self._headline(one, {i: scores[i] for i in both}) for scores in (one.start, now)
        )
        return after - before if one.suite.lower_is_better(one.suite.headline) else before - after

    def _plan(self) -> str:
        keep, watch, often = self.keep, self.watch, self.often
        start, most = self._headline(watch, watch.start), "up to " if keep.draws else ""
        whole = watch.each * len(watch.items) * (often + CERTIFICATE)
        ended = f"; answers are ended after {watch.most} tokens" if watch.most else ""
        again = "" if keep.items else f"; keep.items: {len(watch.items)} asks as many again"
        return (
            f"keep {keep.name}: {len(watch.items)} items are watched ({watch.suite.headline} "
            f"{start.value:.3g} \u00b1 {start.half:.2g}) and {len(self.later.items)} others are for the "
            f"certificate: {most}{often} measurements, about {whole:.0f} s in all{ended}{again}"
        )

    def _told(self) -> str:
        whole = self.clock() - self.began
        allowed = "" if self.keep.items else f", allowed {self.keep.share:.1%}"
        return (
            f"keep {self.keep.name}: its answers took {self.spent:.1f} s of {whole:.1f} s "
            f"({self.spent / whole:.1%}{allowed})"
        )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = self.clock()
        yield
        self.spent += self.clock() - began

    def _contents(self) -> dict[str, Any]:
        """What a run that goes on must know."""
        told = {
            part: {i: suites.told(s) for i, s in one.start.items()}
            for part, one in (("watched", self.watch), ("certified", self.later))
        }
        how = {"digest": self.digest, "items": self.keep.items, "most": self.watch.most}
        return {**how, "each": self.watch.each, **told}

    def _known(self) -> Mapping[str, Any] | None:
        """What the run that goes on has asked its start model, if it was this."""
        file = self.run.out / KEPT_ITEMS
        kept = read_json(file).get(self.keep.name) if self.run.resuming and file.is_file() else None
        same = kept and (kept["digest"], kept["items"]) == (self.digest, self.keep.items)
        return kept if same else None

    def _recall(self, known: Mapping[str, Any]) -> None:
        for part, one in (("watched", self.watch), ("certified", self.later)):
            one.start = {i: suites.scores_in(scores) for i, scores in known[part].items()}
            one.items = [item for item in one.items if item.id in one.start]
            one.most, one.each = known["most"], known["each"]


def _interval(fall: Estimate) -> Interval:
    half, sd = fall.half, fall.stderr * math.sqrt(fall.n)
    return Interval(fall.value, fall.value - half, fall.value + half, fall.n, sd)
