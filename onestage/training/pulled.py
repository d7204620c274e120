"""Text on which a bound of `keep` pulls a model back to its start, or by which it weighs weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.models.divergence import Anchor
from onestage.randomness import generator
from onestage.training.keep import Keep

if TYPE_CHECKING:
    from onestage.training.run import Run


class Pulled:
    """The records that steps pull on in turn, with what the start model says of them; a row a step.

    Made before the first step. Raises `RecipeError` where there are none, and for a model whose KL
    cannot be measured.
    """

    def __init__(self, run: Run, keep: Keep, records: Sequence[Encoded]) -> None:
        self.run, self.keep = run, keep
        pool = pool_of(run, keep, records, "pulled on", "pulls on")
        longest = max(_path_tokens(record) for record in pool)
        rows = pack_records(pool, max(longest, keep.step_tokens)).rows
        with run.accelerator.autocast():  # as it is measured later
            self.anchor = Anchor(run.policy, rows)
        require_exact(run, keep, self.anchor, "anchor, replay or step")

    def pull(self, weight: float) -> float:
        """Add weight times the gradient of the KL on the row of this step; returns that KL."""
        run, size = self.run, len(self.anchor.rows)
        turn, place = divmod(run.step, size)
        order = generator(f"{run.options.seed}/keep/{self.keep.name}/{turn}").permutation(size)
        with run.accelerator.autocast():
            return self.anchor.pull(run.policy, int(order[place]), weight)


def weighed_by(run: Run, keep: Keep, records: Sequence[Encoded]) -> list[Encoded]:
    """The records by which weights are weighed. Raises `RecipeError` where there are none."""
    return pool_of(run, keep, records, "read for the Fisher information", "weighs weights by")


def pool_of(
    run: Run, keep: Keep, records: Sequence[Encoded], done: str, does: str
) -> list[Encoded]:
    """The first of some records, up to `pool_tokens`; in words: what is done to them, what does it."""
    pool, left = split(records, keep.pool_tokens)
    require(keep, pool, done)
    if left:
        run.say(
            f"keep {keep.name}: {does} the first {len(pool):,} of {len(records):,} records "
            f"(pool_tokens: {keep.pool_tokens:,})"
        )
    return pool


def require(keep: Keep, records: Sequence[Encoded], done: str) -> None:
    """Raise `RecipeError` where nothing is left for what is to be done."""
    if not records:
        raise RecipeError(
            f"keep {keep.name}: too few records: none is left to be {done}; give more rows"
        )


def require_exact(run: Run, keep: Keep, anchor: Anchor, instead: str) -> None:
    """Raise `RecipeError` where a KL cannot be measured."""
    if not anchor.exact:
        raise RecipeError(
            f"keep {keep.name}: the KL of a model whose head is no linear map cannot be measured "
            f"({run.policy.fit.reason}); take {instead}"
        )


def split(records: Sequence[Encoded], tokens: int) -> tuple[list[Encoded], list[Encoded]]:
    """The first records, up to a number of scored tokens and at least one, and the others."""
    left, size = tokens, 0
    for record in records:
        left -= record.scored
        if left < 0 and size:
            break
        size += 1
    return list(records[:size]), list(records[size:])


def _path_tokens(record: Encoded) -> int:
    """Of its longest path."""
    return max(len(path.ids) for path in record.paths)
