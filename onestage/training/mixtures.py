"""What a batch holds: the streams of a run in one mixture, or the records of each term in its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from onestage.config import RecipeError
from onestage.data.mixture import MixedStream, Mixture, Reuse, shares
from onestage.training.read import Data
from onestage.training.recipe import Recipe
from onestage.training.terms import Terms


def steps_of(recipe: Recipe) -> int:
    if recipe.train.max_steps is None:
        raise RecipeError(
            "train.num_train_epochs counts passes over a mixture; with a schedule whose terms draw "
            "batches of their own, give train.max_steps"
        )
    return recipe.train.max_steps


def together_mixture(recipe: Recipe, data: Data) -> tuple[Mixture, int]:
    """One mixture over all streams, and the number of steps."""
    options = recipe.train
    sizes = {name: len(store) for name, store in data.train.items()}
    part = _parts(recipe, sizes, options.batch_size)
    streams = [
        MixedStream(name, data.train[name], part[name], reuse=_reuse(recipe, data, name))
        for name in sizes
        if part[name] > 0
    ]
    if options.max_steps is not None:
        return Mixture(streams, options.seed), options.max_steps
    wanted = sum(sizes.values()) * (options.num_train_epochs or 1.0)
    even = all(stream.weight is None and stream.per_step is None for stream in recipe.data)
    limit = (
        {n: round(s * (options.num_train_epochs or 1.0)) for n, s in sizes.items()} if even else {}
    )
    return Mixture(streams, options.seed, limit), max(1, math.ceil(wanted / options.batch_size))


def own_mixture(recipe: Recipe, data: Data, terms: Terms, term: str) -> Mixture:
    """The records of one term: whole streams, or those of a stream that the term is given."""
    numbers = {}
    for name, store in data.train.items():
        mine = [n for kind, n in store.kinds().items() if terms.term_of[name, kind] == term]
        if mine:
            numbers[name] = np.sort(np.concatenate(mine))
    if not numbers:
        return Mixture([], recipe.train.seed)
    sizes = {name: len(found) for name, found in numbers.items()}
    counted = [stream.per_step for stream in recipe.data if stream.name in sizes]
    counts = [count for count in counted if count is not None]
    if all(stream.weight == 0 for stream in recipe.data if stream.name in sizes):
        return Mixture([], recipe.train.seed)
    size = sum(counts) if len(counts) == len(counted) else recipe.train.batch_size
    part = _parts(recipe, sizes, size)
    streams = [
        MixedStream(
            name,
            data.train[name],
            part[name],
            None if size == len(data.train[name]) else numbers[name],
            _reuse(recipe, data, name),
        )
        for name, size in sizes.items()
        if part[name] > 0
    ]
    return Mixture(streams, recipe.train.seed)


def _reuse(recipe: Recipe, data: Data, name: str) -> Reuse | None:
    return recipe.rollout.reuse if data.train[name].table.has_problems else None


def _parts(recipe: Recipe, sizes: Mapping[str, int], batch_size: int) -> dict[str, float]:
    streams = [stream for stream in recipe.data if stream.name in sizes]
    return shares(
        sizes,
        {stream.name: stream.weight for stream in streams},
        {stream.name: stream.per_step for stream in streams},
        batch_size,
    )


def share_of_terms(mixture: Mixture, terms: Terms) -> dict[str, float]:
    """Records of each term in a step, on average."""
    found = dict.fromkeys(terms.objectives, 0.0)
    for stream in mixture.streams:
        for kind, numbers in stream.store.kinds().items():
            term = terms.term_of[stream.name, kind]
            found[term] += stream.share * len(numbers) / len(stream.store)
    return found
