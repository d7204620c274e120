"""Scores of several raters made one where raters differ: in level, in range, and in care.

    s_ar = c + b_r + g_r (q_a - c) + e,   e ~ N(0, v_r),   q_a ~ N(m, t)

the congeneric model of classical test theory (Joreskog 1971): q_a is what the answer is worth, b_r the
rater's bias at the mean score c, g_r his scale, v_r the variance of his noise. Fitted by expectation
and maximisation to the answers that several have rated; biases and scales are drawn to 0 and 1 as far
as a rater has said little, and their means over all ratings are 0 and 1, so that the raters together
keep their level. A rater who shares fewer than `FEWEST` answers with others stays as he is.

An answer's score is then the generalised least-squares value of q_a, so that a careful rater weighs
more than a careless one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onestage.data.annotators import Rated, Raters

FEWEST = 5
"""Shared answers below which nothing is said of a rater."""
BIAS, SCALE = 0.3, 0.3
"""Standard deviations of biases and scales that are expected, on scores in [0, 1]."""
OWN = 4.0
"""Ratings that the noise of all counts for in the noise of one."""
QUIET, STEEP = 1e-4, 0.2
"""Least variance of noise, and least scale: of who says the same of all little can be learnt."""
ROUNDS, CLOSE = 500, 1e-7

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Habits:
    """Of one rater: what he adds at the mean score, how far he spreads what is good and bad, and the
    standard deviation of his noise; all on scores in [0, 1]."""

    bias: float
    scale: float
    noise: float


@dataclass(frozen=True)
class Calibration:
    """The raters' habits, and what an answer is worth."""

    habits: dict[str, Habits]
    """Of those who share enough answers with others."""
    centre: float
    """The mean score, c."""
    noise: float
    """Standard deviation of the noise of all, which stands for who is not in `habits`."""

    def score(self, rated: Rated) -> float | None:
        """In [0, 1]; labels and pairs are decided by most votes, as ever."""
        worth = self.worth(rated)
        return None if worth is None else min(1.0, max(0.0, worth))

    def worth(self, rated: Rated) -> float | None:
        """The score before it is brought into [0, 1]."""
        votes = rated.votes()
        if not rated.graded or not votes:
            return rated.verdict()
        usual = Habits(0.0, 1.0, self.noise)
        weighted = weights = 0.0
        for name, vote in votes.items():
            one = self.habits.get(name, usual)
            weighted += one.scale / one.noise**2 * (vote - self.centre - one.bias)
            weights += one.scale**2 / one.noise**2
        return self.centre + weighted / weights


def calibrate(raters: Raters) -> Calibration:
    """Fit the raters' habits to the scores of answers that several have rated."""
    shared = [votes for one in raters if one.graded and len(votes := one.votes()) > 1]
    names = sorted({name for votes in shared for name in votes})
    number = {name: n for n, name in enumerate(names)}
    said = [(a, number[name], s) for a, votes in enumerate(shared) for name, s in votes.items()]
    if not said:
        return Calibration({}, 0.5, 1.0)
    answer, rater, score = (np.array(column) for column in zip(*said, strict=True))
    fit = _Fit(answer, rater, score.astype(np.float64))
    fit.settle()
    habits = {
        name: Habits(
            float(fit.bias[n]), max(STEEP, float(fit.scale[n])), float(fit.noise[n]) ** 0.5
        )
        for name, n in number.items()
        if fit.known[n]
    }
    return Calibration(habits, fit.centre, fit.usual**0.5)


class _Fit:
    """Expectation and maximisation. Legend: N ratings, A answers, R raters."""

    def __init__(self, answer_N: Any, rater_N: Any, score_N: Floats) -> None:
        self.answer, self.rater = answer_N, rater_N
        self.centre = float(score_N.mean())
        self.above = score_N - self.centre
        self.count = np.bincount(rater_N).astype(np.float64)
        self.known = self.count >= FEWEST
        each = np.bincount(answer_N)
        mean_A = np.bincount(answer_N, self.above) / each
        within = float(((self.above - mean_A[answer_N]) ** 2).sum() / (len(score_N) - len(each)))
        self.usual = max(QUIET, within)
        self.middle, self.spread = 0.0, max(QUIET, float(mean_A.var()))
        self.bias = np.zeros(len(self.count))
        self.scale = np.ones(len(self.count))
        self.noise = np.full(len(self.count), self.usual)

    def settle(self) -> None:
        """Rounds until no habit moves any more."""
        for _ in range(ROUNDS):
            before = np.concatenate([self.bias, self.scale])
            self._habits(*self._worth())
            if np.abs(np.concatenate([self.bias, self.scale]) - before).max() < CLOSE:
                return

    def _worth(self) -> tuple[Floats, Floats]:
        """What each rating's answer is worth above the centre (N), and the variance of that (N)."""
        steep, noise = self.scale[self.rater], self.noise[self.rater]
        precision = 1 / self.spread + np.bincount(self.answer, steep**2 / noise)
        pull = np.bincount(self.answer, steep * (self.above - self.bias[self.rater]) / noise)
        worth = (self.middle / self.spread + pull) / precision
        self.middle = float(worth.mean())
        self.spread = max(QUIET, float(((worth - self.middle) ** 2 + 1 / precision).mean()))
        return worth[self.answer], (1 / precision)[self.answer]

    def _habits(self, worth_N: Floats, unsure_N: Floats) -> None:
        """Ridge regression of each rater's scores on worth, which is itself known with a variance."""
        by = self.rater
        n, tie_b, tie_g = self.count, self.noise / BIAS**2, self.noise / SCALE**2
        x, y = np.bincount(by, worth_N), np.bincount(by, self.above)
        xx = np.bincount(by, worth_N**2 + unsure_N) + tie_g
        xy = np.bincount(by, worth_N * self.above) + tie_g
        determinant = (n + tie_b) * xx - x**2
        self.bias = np.where(self.known, (xx * y - x * xy) / determinant, 0.0)
        self.scale = np.where(self.known, ((n + tie_b) * xy - x * y) / determinant, 1.0)
        self._together()
        off = self.above - self.bias[by] - self.scale[by] * worth_N
        left = np.bincount(by, off**2 + self.scale[by] ** 2 * unsure_N)
        noise = (OWN * self.usual + left) / (OWN + n)
        self.noise = np.where(self.known, np.maximum(QUIET, noise), self.usual)

    def _together(self) -> None:
        """All raters together have no bias and a scale of 1: else worth has no level of its own."""
        if self.known.any():
            weight = np.where(self.known, self.count, 0.0)
            self.bias -= np.where(self.known, np.average(self.bias, weights=weight), 0.0)
            self.scale /= np.where(self.known, np.average(self.scale, weights=weight), 1.0)
