"""The reference of a run: who it is, and when its log-probabilities are had.

Those of all records that a run will visit before its first step; of a stream that arrives in portions,
of each portion when it is begun. By then the policy has moved: the model as it was is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from accelerate.utils import release_memory

from onestage.data.encoded import Encoded
from onestage.models.exchange import Ranks
from onestage.models.policy import Policy
from onestage.models.reference import ReferenceCache
from onestage.training.sampled import Reference

if TYPE_CHECKING:
    from onestage.training.run import Run


@dataclass
class Compared:
    """What losses compare with."""

    name: str
    """As the recipe has it: `start`, or another model."""
    fingerprint: str
    cache: ReferenceCache | None = None
    """Its log-probabilities; None where no objective compares with it."""
    policy: Policy | None = None
    """The model, where it is not the one the run starts from, for as long as it will be asked."""
    asked: Reference | None = None
    """The model in any case, for as long as the context lasts; None where no later step asks it."""


def fill(run: Run) -> None:
    """Compute the log-probabilities that the cache does not have yet, and see to those of what arrives.

    Another model that is the reference is dropped here where it has said all it will be asked.
    """
    compared = run.compared
    if compared.cache is not None:
        _fill(run, compared.cache, run.visited(), compared.policy or run.policy)
    if compared.policy is not None and compared.asked is None:
        compared.policy = None
        release_memory()  # a device keeps what was freed unless told
    if compared.cache is not None and compared.asked is not None:
        for portions in run.data.arriving.values():
            arrived = partial(run.feeds.arrived, portions)
            portions.begun = partial(_fill_portion, run, compared.cache, compared.asked, arrived)


def _fill_portion(
    run: Run,
    cache: ReferenceCache,
    asked: Reference,
    arrived: Callable[[range], Iterable[Encoded]],
    numbers: range,
) -> None:
    # Problems have no responses yet: these are read when they are sampled.
    with asked() as reference:
        _fill(run, cache, arrived(numbers), reference)


def _fill(run: Run, cache: ReferenceCache, records: Iterable[Encoded], policy: Policy) -> None:
    """Ranks share the work and tell each other."""
    needing = (record for record in records if "reference" in run.terms.needs_of(record))
    paths = (path for record in needing for path in record.paths)
    with run.accelerator.autocast():
        found, computed = cache.fill(
            policy, paths, run.options.row_budget, Ranks.of(run.accelerator)
        )
    run.accelerator.wait_for_everyone()
    cache.reload()
    name = cache.folder.name
    run.say(f"reference: {found:,} paths found in the cache, {computed:,} computed ({name})")
