"""The schedule that holds to bounds.

    minimise goal(theta)  subject to  x_j(theta) <= bound_j

A step trains on [goal + sum_j nu_j r_j] / (1 + sum_j nu_j), where goal is what the run's own schedule
weighs, r_j is what a bound is held by, and the multipliers nu_j follow measurements of x_j
(`schedules._multiplier`). The sum is divided, so that the step stays as long as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onestage.config import RecipeError, nearest
from onestage.schedules import OWN, Schedule
from onestage.schedules._around import Around
from onestage.schedules._multiplier import Multiplier
from onestage.training.drawn import Drawing
from onestage.training.keep import Keep

if TYPE_CHECKING:
    from onestage.training.terms import Terms

UNMOVED = ("mgda", "imtl_g", "aligned_mtl")
"""Rules of gradient surgery by which a term's gradient counts as it points, however long it is."""


def replays(keeps: Mapping[str, Keep], terms: Terms) -> dict[str, str]:
    """By bound, the term that it weighs. Raises `RecipeError` where there is none, or no goal beside."""
    found = {}
    for name, keep in keeps.items():
        if keep.means != "replay":
            continue
        own = sorted({term for (s, _), term in terms.term_of.items() if s == keep.stream})
        term = keep.term or own[0]
        if term not in terms.objectives:
            hint = nearest(term, list(terms.objectives))
            raise RecipeError(f"keep {name}: no term {term!r} whose weight could be raised{hint}")
        if keep.term is None and len(own) > 1:
            raise RecipeError(
                f"keep {name}: its stream has several terms, {own}; say which with term"
            )
        found[name] = term
    if found and set(found.values()) >= set(terms.objectives):
        raise RecipeError("keep: all terms are weighed by bounds, and none is left to be the goal")
    return found


def check_replay(replayed: Mapping[str, str], name: str, rule: Schedule) -> None:
    """Raise `RecipeError` under a schedule in which a bound cannot raise a term's weight.

    `name`: of the schedule, as the recipe has it.
    """
    bound = next(iter(replayed), None)
    if bound is None:
        return
    why = ""
    if rule.batch == "mixed":
        why = "draws one batch from all streams, with as many of the term's records as there are"
    elif rule.combines == OWN or rule.combines in UNMOVED:
        how = "" if rule.combines == OWN else f" (rule: {rule.combines})"
        why = f"combines gradients{how} so that a greater weight is no greater pull"
    elif hasattr(rule, "supervised"):
        why = f"gives {rule.supervised} and the others weights of its own"
    if why:
        raise RecipeError(
            f"keep {bound}: by: replay raises a term's weight, and schedule {name} {why}; take "
            "schedule: mix, or by: kl, anchor or step"
        )


class Kept(Around):
    """A schedule of the goals, and beside them what bounds are held by.

    `inner`: of the goals, whose replayed terms weigh 0; `weights`: of all terms, as given.
    """

    def __init__(
        self,
        inner: Schedule,
        weights: Mapping[str, float],
        keeps: Mapping[str, Keep],
        replayed: Mapping[str, str],
    ) -> None:
        super().__init__(inner, weights)
        self.keeps, self.replayed = keeps, replayed
        self.multipliers = {
            name: Multiplier(
                keep.at_most, margin=keep.least_margin, held=keep.multiplier, first=keep.first
            )
            for name, keep in keeps.items()
        }
        self.drawing = Drawing()

    def nu(self, name: str) -> float:
        """The multiplier of a bound."""
        return self.multipliers[name].weight

    def part(self, name: str) -> float:
        """The weight in a step of what a bound is held by."""
        return self.nu(name) / self._whole

    @property
    def _whole(self) -> float:
        added = (n for n, keep in self.keeps.items() if keep.means in ("kl", "replay"))
        return 1.0 + math.fsum(self.nu(name) for name in added)

    def weigh(self, step: int) -> dict[str, float]:
        goals = self.inner.weigh(step)
        found = {term: weight / self._whole for term, weight in goals.items()}
        for name, term in self.replayed.items():
            found[term] += self.part(name)
        return found

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        mine = {term: x for term, x in losses.items() if term not in self.replayed.values()}
        self.inner.observe(step, mine)

    def reweigh(self, weights: Mapping[str, float]) -> None:
        self.inner.reweigh(goals_of(weights, self.replayed))
        self.weights = weights

    def state(self) -> dict[str, Any]:
        steep = {"steep": self.drawing.steep}  # here, so that older checkpoints have the same keys
        multipliers = {name: one.state() | steep for name, one in self.multipliers.items()}
        return {"keep": multipliers, **self.inner.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, one in self.multipliers.items():
            if name in state["keep"]:  # else one that was allowed to be added since
                one.restore(state["keep"][name])
                self.drawing.steep = state["keep"][name].get("steep", self.drawing.steep)
        self.inner.restore(state)


def goals_of(weights: Mapping[str, float], replayed: Mapping[str, str]) -> dict[str, float]:
    """The weights of what a run is for: a term that a bound weighs is none of it."""
    return {term: 0.0 if term in replayed.values() else w for term, w in weights.items()}
