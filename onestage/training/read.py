"""What a run reads: its streams, encoded, and what it does not allow of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onestage import models
from onestage.config import RecipeError, nearest
from onestage.data.counted import Table
from onestage.data.digests import tokenizer_digest
from onestage.data.kinds import FEEDBACK, Kind
from onestage.data.portions import Arriving, Portions
from onestage.data.store import Store, open_store
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder, Overflow
from onestage.runfolder import Say
from onestage.training.recipe import Train

IDLE = {
    "score_range": "without a score: it maps given scores",
    "ratings": "without a completion of its own: it makes its score",
    "as_messages": "without a prompt",
    "hint": "without a `solution` to take hints from",
}
"""Options of a stream, and what it takes to have a use for them."""


@dataclass(frozen=True)
class Data:
    """The stores of a run, by stream; `held_out` where a stream has evaluation rows."""

    train: dict[str, Store]
    held_out: dict[str, Store]
    retention: dict[str, Store] = field(default_factory=dict)
    """What is only watched, by the probe."""
    folders: dict[str, str] = field(default_factory=dict)
    """Where the stores lie, by stream and what it is for: what a node's other processes are told."""
    arriving: dict[str, Portions] = field(default_factory=dict)
    """Of training streams that are still arriving; in `train` is the first portion."""

    def table(self) -> dict[str, Any]:
        """The data table, as written to `data.json`."""
        train: dict[str, Store | Portions] = {**self.train, **self.arriving}
        parts: dict[str, Mapping[str, Store | Portions]] = {"train": train, "eval": self.held_out}
        if self.retention:
            parts["retention"] = self.retention
        return {
            part: {name: asdict(store.table) for name, store in stores.items()}
            for part, stores in parts.items()
        }

    def contents(self) -> dict[str, str]:
        """What each training stream was encoded from, as far as it has come: a name."""
        whole = {name: store.folder.name for name, store in self.train.items()}
        return whole | {name: portions.content for name, portions in self.arriving.items()}

    def watched(self) -> dict[str, str]:
        """What nobody trains on was encoded from: held-out rows, and text that is to be kept."""
        told = {f"held-out rows of {name}": one for name, one in self.held_out.items()}
        told |= {f"text that is watched ({name})": one for name, one in self.retention.items()}
        return {what: store.folder.name for what, store in told.items()}

    def trained_and_evaluated(self) -> list[Store]:
        return [*self.train.values(), *self.held_out.values()]

    def named(self) -> list[tuple[str, Store]]:
        """Every store, with its stream's name."""
        return [*self.train.items(), *self.held_out.items(), *self.retention.items()]


def make_encoder(train: Train, tokenizer: Any, room: int, taught: Mapping[str, bool]) -> Encoder:
    """How records become token ids. `room`: tokens that an answer to a problem may take; `taught`:
    streams whose answers a teacher reads behind the solution, and whether hints are given there.

    `overflow: error` is judged later (`check_rows`).
    """
    cut = train.overflow == "truncate_prompt"
    overflow: Overflow = "truncate_prompt" if cut else "drop"
    return Encoder(tokenizer, train.max_length, overflow, room, train.dataset_num_proc, taught)


def read_data(
    streams: Sequence[Stream],
    watched: Sequence[Stream],
    encoder: Encoder,
    cache: Path,
    say: Say,
    warn: Say | None = None,
    there: Mapping[str, str] | None = None,
) -> Data:
    """Read, check and encode every stream (or find it encoded). Refuses nothing: see `check_rows`.

    `warn`: told of what was encoded before and is damaged, where it is not `say`; `there`: what another
    process of this run has just found on this machine (`Data.folders`): nothing is read again."""
    digest, found = tokenizer_digest(encoder.tokenizer), Data({}, {}, {})
    wanted = [("", stream, found.train) for stream in streams]
    wanted += [
        (" (held out)", held_out, found.held_out)
        for stream in streams
        if (held_out := stream.held_out)
    ]
    wanted += [(" (retention)", stream, found.retention) for stream in watched]
    for note, stream, stores in wanted:
        # only problems need room for a completion: another length must not encode the rest anew
        fitting = encoder if stream.reward is not None else replace(encoder, room=0)
        known_as = f"{stream.name}{note}"
        folder = (there or {}).get(known_as)
        if stream.portion and stores is found.train:
            found.arriving[stream.name] = _portions(stream, fitting, cache, folder)
            store, known = found.arriving[stream.name].stores[0], False
        else:
            store, known = open_store(stream, fitting, cache, digest, warn or say, folder)
        stores[stream.name] = store
        found.folders[known_as] = str(store.folder)
        how = (
            " (encoded before)"
            if known
            else " (the first of what arrives)"
            if stream.portion
            else ""
        )
        say(f"data {known_as}: {told(store.table)}{how}")
    return found


def _portions(stream: Stream, encoder: Encoder, cache: Path, folder: str | None) -> Portions:
    """A stream's first portion; another process of this machine, which has made the one in `folder`,
    makes those behind it."""
    more = Arriving(stream, encoder, cache)
    first = Store(Path(folder)) if folder else more()
    assert first is not None  # a source without rows is refused by its reader
    first.table.beside(stream)
    return Portions(first, more)


def told(table: Table) -> str:
    """What was read of a stream and what was not, in a line."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in table.records.items())
    return f"{kinds or 'no records'}; {table.tokens:,} tokens{_left_out(table)}"


def _left_out(table: Table) -> str:
    counts = {
        "refused": table.refused,
        "ties": table.ties,
        "unlabelled": table.unlabelled,
        "prompts cut": table.cut,
    }
    return "".join(f"; {count:,} {what}" for what, count in counts.items() if count)


def check_rows(data: Data, train: Train, config: Any = None) -> None:
    """Refuse rows that are not allowed, or longer than a model of that `config` can be, naming file, row
    and what to do. Raises `RecipeError`."""
    refused = [] if config is None else beyond(data, config)
    if refused and models.positions_of(config)[1]:
        raise RecipeError(refused[0])
    for name, store in data.named():
        check_table(name, store.table, train)
        if not len(store):
            shown, unlabelled = "\n  ".join(store.table.reasons[:5]), store.table.unlabelled
            left = f" ({unlabelled} unlabelled)" if unlabelled else ""
            raise RecipeError(f"data {name}: no record is left to train on{left}\n  {shown}")


def beyond(data: Data, config: Any) -> list[str]:
    """What is said of streams with records that are longer than the model of a config was made for."""
    limit, _ = models.positions_of(config)
    longest = [(name, store.table.longest) for name, store in data.named()]
    return [
        f"data {name}: its longest record has {most:,} tokens, and the model was made for {limit:,} "
        f"(max_position_embeddings): train.max_length: {limit} keeps to them"
        for name, most in longest
        if limit is not None and most > limit
    ]


def check_table(name: str, table: Table, train: Train) -> None:
    """The same of some rows of a stream, of which none needs to be left."""
    shown = "\n  ".join(table.reasons[:5])
    if table.overlong and train.overflow == "error":
        raise RecipeError(
            f"data {name}: {table.overlong} records are longer than train.max_length; raise it, "
            f"or set train.overflow to drop or truncate_prompt\n  {shown}"
        )
    if table.refused > table.overlong and train.bad_rows == "error":
        raise RecipeError(
            f"data {name}: {table.refused - table.overlong} rows cannot be used; mend them, or "
            f"set train.bad_rows to skip to leave them out\n  {shown}"
        )


def check_options(data: Data, streams: Sequence[Stream]) -> None:
    """Refuse options of a stream that none of its records has a use for. Raises `RecipeError`. Of one
    that still arrives nobody knows: the rows that have a use for them may come later."""
    for stream in streams:
        for what in idle(stream, data.train[stream.name]) if not stream.portion else ():
            raise RecipeError(f"data {stream.name}: {what}")


def idle(stream: Stream, store: Store) -> list[str]:
    """Options that no record of a store has a use for, a line each."""
    kinds = ", ".join(store.table.records)
    seen = [*store.table.unused, *store.table.records]
    found = [
        f"columns: {{{ours}: {theirs}}}: no row has a column {theirs!r}{nearest(theirs, seen)}"
        for ours, theirs in store.table.absent.items()
    ]
    for option, is_used in _uses(store).items():
        default = Stream.model_fields[option].default
        if len(store) and getattr(stream, option) != default and not is_used:
            found.append(
                f"{option} changes nothing for {kinds} records {IDLE[option]}; take it out"
            )
    return found


def _uses(store: Store) -> dict[str, bool]:
    """Which options of a stream some record of it has a use for."""
    kinds = [FEEDBACK[kind] for kind in store.counts()]
    scored = [name for name in store.counts() if FEEDBACK[name].scale != "thumb"]
    return {
        "score_range": any(has_scores(store, name) for name in scored),
        "ratings": any("score" in kind.reads for kind in kinds),
        "as_messages": any(kind.layout != "windows" for kind in kinds),
        "hint": any(len(record.paths) > 1 for record in store)
        if store.table.has_problems
        else False,
    }


def has_scores(store: Store, kind: Kind) -> bool:
    """Whether some record of a kind has scores that are given."""
    return kind in store.counts() and any(not np.isnan(s).all() for s in store.scores(kind))


def check_problems(data: Data, streams: Sequence[Stream]) -> None:
    """Refuse problems without a reward, and a reward without problems. Raises `RecipeError`."""
    rewards = {stream.name: stream.reward for stream in streams}
    for name, store in data.named():
        asked = store.table.has_problems
        if asked and rewards.get(name) is None:
            raise RecipeError(
                f"data {name}: holds problems to solve (check records); say what judges the answers "
                "with reward, or train on worked ones with kind: demonstration"
            )
        if not asked and rewards.get(name) is not None:
            raise RecipeError(f"data {name}: has a reward but no problem to solve (check records)")
