"""Krippendorff's alpha (Krippendorff, Content Analysis, 2004): agreement beyond what chance would give.

    alpha = 1 - D_o / D_e

D_o is the mean squared difference between ratings of the same thing, each pair of ratings of a thing
with m ratings counting 1 / (m - 1); D_e that between any two ratings. 1 is agreement, 0 what chance
gives, below 0 is worse. Not everybody need have rated everything. Of ratings that are 0 or 1 it is the
nominal alpha as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def krippendorff_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Alpha of things, each given by its ratings; None where nothing was rated twice, or all ratings are
    the same and chance can tell nothing."""
    count = observed = total = squares = 0.0
    for ratings in units:
        if len(ratings) < 2:
            continue
        count += len(ratings)
        total += sum(ratings)
        squares += sum(value * value for value in ratings)
        observed += _differences(ratings) / (len(ratings) - 1)
    expected = (count * squares - total * total) / (count - 1) if count else 0.0
    return None if expected <= 1e-12 * max(1.0, squares) else 1 - observed / expected


def _differences(ratings: Sequence[float]) -> float:
    """Half the sum of squared differences of all ordered pairs; from the middle, to lose no digits."""
    middle = sum(ratings) / len(ratings)
    return len(ratings) * sum((value - middle) ** 2 for value in ratings)
