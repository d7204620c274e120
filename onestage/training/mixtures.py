"""What a batch holds: the streams of a run in one mixture, or the records of each term in its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onestage.config import RecipeError
from onestage.data.kinds import ASKED, Kind
from onestage.data.mixture import MixedStream, Mixture, Reuse, shares
from onestage.data.stream import Stream
from onestage.training.read import Data
from onestage.training.recipe import Train
from onestage.training.terms import Terms


@dataclass(frozen=True)
class Mixing:
    """The streams of a run and what they hold, to be mixed as its sections say."""

    streams: Sequence[Stream]
    data: Data
    train: Train
    reuse: Reuse
    """How often sampled answers are used."""

    @property
    def steps(self) -> int:
        """Of a run whose terms draw batches of their own."""
        if self.train.max_steps is None:
            raise RecipeError(
                "train.num_train_epochs counts passes over a mixture; with a schedule whose terms draw "
                "batches of their own, give train.max_steps"
            )
        return self.train.max_steps

    def together(self, terms: Terms) -> tuple[Mixture, int]:
        """One mixture over all streams, and the number of steps."""
        options = self.train
        sizes = {name: len(store) for name, store in self.data.train.items()}
        share = self._shares(sizes, options.batch_size)
        parts = [
            MixedStream(
                name,
                self.data.train[name],
                share[name],
                reuse=self._reuse(name),
                beside=self._beside(terms, name),
                portions=self.data.arriving.get(name),
            )
            for name in sizes
            if share[name] > 0
        ]
        if options.max_steps is not None:
            return Mixture(parts, options.seed), options.max_steps
        epochs = options.num_train_epochs or 1.0
        # Only parts by size end together; with others, some stream goes round more often.
        even = all(stream.weight is None and stream.per_step is None for stream in self.streams)
        limit = {name: round(size * epochs) for name, size in sizes.items()} if even else {}
        mixture = Mixture(parts, options.seed, limit)
        total = sum(sizes.values())
        return mixture, _steps(mixture, math.ceil(total * epochs / options.batch_size), total)

    def own(self, terms: Terms, term: str) -> Mixture:
        """The records of one term: whole streams, or those of a stream that the term is given."""
        kinds = {
            name: [kind for kind in store.counts() if terms.term_of[name, kind] == term]
            for name, store in self.data.train.items()
        }
        sizes = {
            name: sum(self.data.train[name].counts()[kind] for kind in mine)
            for name, mine in kinds.items()
            if mine
        }
        streams = [stream for stream in self.streams if stream.name in sizes]
        if all(stream.weight == 0 for stream in streams):
            return Mixture([], self.train.seed)
        counts = [stream.per_step for stream in streams]
        given = [count for count in counts if count is not None]
        size = sum(given) if len(given) == len(counts) else self.train.batch_size
        share = self._shares(sizes, size)
        whole = {name: size == len(self.data.train[name]) for name, size in sizes.items()}
        parts = [
            MixedStream(
                name,
                self.data.train[name],
                share[name],
                None if whole[name] else self.data.train[name].numbers(kinds[name]),
                self._reuse(name),
                self._beside(terms, name),
                # Of a part only what is looked at is drawn from here (`arriving.check`).
                self.data.arriving.get(name) if whole[name] else None,
            )
            for name in sizes
            if share[name] > 0
        ]
        return Mixture(parts, self.train.seed)

    def _reuse(self, name: str) -> Reuse | None:
        return self.reuse if self.data.train[name].table.has_problems else None

    def _beside(self, terms: Terms, name: str) -> frozenset[Kind]:
        """Kinds of a stream's records that are drawn with strangers; `RecipeError` where answers are
        sampled, since no two of them are laid behind each other's prompts."""
        store = self.data.train[name]
        kinds = frozenset(
            kind
            for kind in store.counts()
            if "stranger" in terms.objectives[terms.term_of[name, kind]].needs
        )
        if kinds & set(ASKED):
            raise RecipeError(
                f"data.{name}: answers are sampled, and this objective compares with the answers of "
                "other records; take baseline: running (or zero)"
            )
        return kinds

    def _shares(self, sizes: Mapping[str, int], batch_size: int) -> dict[str, float]:
        streams = [stream for stream in self.streams if stream.name in sizes]
        return shares(
            sizes,
            {stream.name: stream.weight for stream in streams},
            {stream.name: stream.per_step for stream in streams},
            batch_size,
        )


def _steps(mixture: Mixture, steps: int, total: int) -> int:
    """Of so many steps those that have records: a part of an epoch may come to whole records, and
    1.1 x 100 to more than 110 by its last bit. `RecipeError` where no step has any."""
    while steps and not any(mixture.take(steps - 1).values()):
        steps -= 1
    if not steps:
        raise RecipeError(
            f"train.num_train_epochs is less than one of the {total:,} records; give more, or max_steps"
        )
    return steps


def share_of_terms(mixture: Mixture, terms: Terms) -> dict[str, float]:
    """Which part of a step's records each term has, on average."""
    found = dict.fromkeys(terms.objectives, 0.0)
    for part in mixture.streams:
        for kind, count in part.store.counts().items():
            term = terms.term_of[part.name, kind]
            found[term] += part.share * count / len(part.store)
    total = sum(found.values())
    return {term: records / total for term, records in found.items()}


def in_batch(
    weights: Mapping[str, float], drawn: Mapping[str, float], here: Mapping[str, int]
) -> dict[str, float]:
    """The terms' weights in one mixed batch, so that over the steps they are `weights` on average.

    A term's mean loss stands for the records that it has in this batch (`here`), which are more or fewer
    than its part on average (`drawn`), or none. A fixed weight would forget the term wherever it has
    none: at a share of 5 % in batches of 8, three times in five. With weights that are the shares, each
    record weighs the same, and the loss is the mean over all of them.
    """
    total = sum(here.values())
    if not total:  # a batch of problems whose answers leave nothing to train on
        return dict(weights)
    return {
        term: weight / drawn[term] * (here[term] / total) if here.get(term) else 0.0
        for term, weight in weights.items()
    }
