"""What will be trained on and what is wrong with it, before any weights are loaded.

`examine` gathers plain findings for `onestage check`, which prints them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from onestage.data.annotators import Raters
from onestage.data.counted import Table
from onestage.data.encoded import Encoded
from onestage.data.kinds import FEEDBACK, GRADED, THUMBS, Kind
from onestage.data.packing import pack_records
from onestage.data.reading import read
from onestage.data.record import Refusal
from onestage.data.store import Store
from onestage.data.stream import Stream
from onestage.data.template import Rendered, render
from onestage.data.tokenize import Encoder

SAMPLED = 64
"""Records of each source that are looked at closely (round trip, packing)."""


@dataclass(frozen=True, slots=True)
class StreamFindings:
    """What one source holds."""

    store: Store
    lengths: Mapping[str, float]
    """Tokens of a record: quantiles by name."""
    histogram: tuple[tuple[str, int], ...]
    distinct: np.ndarray[Any, np.dtype[np.uint64]]
    """Digests of the records' paths."""
    duplicates: int
    """Records whose paths all occurred before."""
    contradicted: Mapping[str, int]
    """By kind: answers that are a thumb up here and down there, pairs that another turns round."""
    labels: Mapping[str, float]
    """How label and score records are spread (see `balance`), by `kind/figure`."""
    broken_trips: tuple[str, ...]
    """Responses that do not come back when their tokens are decoded."""
    saving: float
    """Share of tokens that shared prefixes save within records, on the first ones."""


@dataclass
class Findings:
    """Everything that was found."""

    streams: dict[str, StreamFindings] = field(default_factory=dict)
    held_out: dict[str, StreamFindings] = field(default_factory=dict)
    overlap: dict[str, int] = field(default_factory=dict)
    """Held-out records of a stream whose prompt occurs in a training stream."""
    examples: dict[str, Encoded] = field(default_factory=dict)
    """The first record of each kind."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rows:
    """What can be known of a data file without a tokenizer."""

    kinds: dict[str, list[int]]
    """Characters of each record, by kind."""
    refused: list[Refusal]
    table: Table
    """What was left out, and what stood beside the records."""
    raters: Raters
    """Who rated what, where the rows say it (`annotator`)."""


def examine(
    train: Mapping[str, Store],
    held_out: Mapping[str, Store],
    streams: Mapping[str, Stream],
    encoder: Encoder,
) -> Findings:
    """Look at encoded streams. `streams` (by name) are read again for the round trip."""
    found = Findings()
    prompts = []
    for name, store in train.items():
        found.streams[name] = _stream(store, streams.get(name), encoder)
        prompts.append(_prompts(store))
        for kind in store.counts():
            found.examples.setdefault(kind, store[int(store.numbers([kind])[0])])
    asked = np.unique(np.concatenate(prompts)) if held_out else np.empty(0, np.uint64)
    for name, store in held_out.items():
        found.held_out[name] = _stream(store, None, encoder)
        found.overlap[name] = int(np.isin(_prompts(store), asked).sum())
    found.warnings += list(_warnings(found))
    for stream in found.streams.values():
        warnings, notes = beside(stream.store.table)
        found.warnings += warnings
        found.notes += notes
    return found


def _in_several(streams: Mapping[str, StreamFindings]) -> int:
    """Records that stand word for word in more than one stream."""
    every = [stream.distinct for stream in streams.values()]
    if len(every) < 2:
        return 0
    _, times = np.unique(np.concatenate(every), return_counts=True)
    return int((times > 1).sum())


def _prompts(store: Store) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """What `_prompt` says of each record: 8 bytes each, where a set of numbers takes ten times that."""
    return np.fromiter((_prompt(record) for record in store), np.uint64, len(store))


def _prompt(record: Encoded) -> int:
    """A digest of a record's tokens before its first response; of a text's own tokens."""
    path = record.paths[0]
    prompted = FEEDBACK[record.kind].layout != "windows"
    end = path.opening if prompted else len(path.ids)
    return _digest(path.ids[:end].tobytes())


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _stream(store: Store, stream: Stream | None, encoder: Encoder) -> StreamFindings:
    lengths, every = store.lengths(), range(len(store))
    keys = (_digest(b"/".join(store.path_keys(number))) for number in every)
    distinct = np.unique(np.fromiter(keys, np.uint64, len(every)))
    first = list(islice(store, SAMPLED))
    spread = {
        f"{kind}/{figure}": value
        for kind in store.counts()
        if FEEDBACK[kind].scale != "none"
        for figure, value in balance(np.concatenate(list(store.scores(kind)))).items()
    }
    nodes = sum(len(row) for row in pack_records(first, encoder.max_length).rows) if first else 0
    tokens = sum(record.tokens for record in first)
    return StreamFindings(
        store=store,
        lengths=_quantiles(lengths),
        histogram=_histogram(lengths),
        distinct=distinct,
        duplicates=len(store) - len(distinct),
        contradicted=_contradicted(store),
        labels=spread,
        broken_trips=tuple(_broken_trips(stream, encoder)) if stream else (),
        saving=1 - nodes / tokens if tokens else 0.0,
    )


def balance(scores: np.ndarray[Any, Any]) -> dict[str, float]:
    """How given scores are spread: count, mean, least, greatest, share above 1/2."""
    known = scores[~np.isnan(scores)]
    if not len(known):
        return {"count": 0}
    return {
        "count": len(known),
        "mean": float(known.mean()),
        "min": float(known.min()),
        "max": float(known.max()),
        "above_half": float((known > 0.5).mean()),
    }


def _quantiles(lengths: np.ndarray[Any, Any]) -> dict[str, float]:
    if not len(lengths):
        return {}
    names = {"min": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: float(np.quantile(lengths, at)) for name, at in names.items()}


def _histogram(lengths: np.ndarray[Any, Any]) -> tuple[tuple[str, int], ...]:
    """Records by tokens, in powers of two."""
    if not len(lengths):
        return ()
    exponent = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    return tuple(
        (f"<= {2 ** int(power):,}", int((exponent == power).sum()))
        for power in range(exponent.min(), exponent.max() + 1)
    )


def _broken_trips(stream: Stream, encoder: Encoder) -> Iterator[str]:
    """Responses of the first records that decoding their scored tokens does not give back."""
    for record in islice(read(stream), SAMPLED):
        if isinstance(record, Refusal) or FEEDBACK[record.kind].layout == "windows":
            continue
        encoded = encoder.encode(record)
        if isinstance(encoded, Refusal):
            continue
        texts = render(record, encoder.tokenizer)
        for wanted, ids in _responses(encoded, texts):
            got = encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            # Some tokenizers take the white space at the ends of a text into a marker beside it.
            if wanted.strip() != got.strip():
                yield f"{record.id}: wrote {wanted[:60]!r}, the tokens say {got[:60]!r}"


def _responses(encoded: Encoded, texts: Sequence[Rendered]) -> Iterator[tuple[str, Any]]:
    """The text of each response and the ids that are scored of it, span after span."""
    if FEEDBACK[encoded.kind].asked:
        for text, path in zip(texts[1:], encoded.paths[1:], strict=True):
            yield text.text, path.ids[path.opening :]
        return
    for text, path in zip(texts, encoded.paths, strict=True):
        for (first, last), (start, end) in zip(text.spans, path.spans, strict=True):
            yield text.text[first:last], path.ids[start:end]


def count_rows(stream: Stream) -> Rows:
    """Kinds and refused rows of one data file, counted in characters."""
    kinds: dict[str, list[int]] = {}
    refused: list[Refusal] = []
    reading, table, raters = read(stream), Table(stream.name), Raters()
    for item in reading:
        if not isinstance(item, Refusal):
            size = len(str(item.prompt)) + sum(len(str(part)) for part in item.completions)
            kinds.setdefault(item.kind, []).append(size)
            if item.annotator is not None and raters.takes(item):
                raters.add(item, item.annotator)
            continue
        table.add(item)
        if not (item.tie or item.unlabelled):
            refused.append(item)
    table.close(reading)
    table.beside(stream)
    return Rows(kinds, refused, table, raters)


def beside(table: Table) -> tuple[list[str], list[str]]:
    """What stood beside the records of a stream and is not used: (warnings, notes)."""
    warnings, notes, name = [], [], table.source
    if table.unlabelled:
        warnings.append(
            f"{name}: {table.unlabelled} responses have null feedback and are left out (first: "
            f"{table.unlabelled_rows[0]}); unlabelled: demonstration would imitate them"
        )
    for theirs, ours in table.unused.items():
        if ours:
            meant = f"did you mean columns: {{{ours}: {theirs}}}?"
            warnings.append(f"{name}: column {theirs!r} is not used; {meant}")
    unused = ", ".join(repr(theirs) for theirs, ours in table.unused.items() if not ours)
    if unused:
        notes.append(f"{name}: columns that are not used: {unused}")
    if table.skipped:
        files = ", ".join(table.skipped_files)
        more = ", ..." if table.skipped > len(table.skipped_files) else ""
        notes.append(f"{name}: {table.skipped} files that hold no rows are skipped: {files}{more}")
    return warnings, notes


def _contradicted(store: Store) -> dict[str, int]:
    """How many answers, or pairs, two records judge in opposite ways."""
    found = {}
    for kind in store.counts():
        if kind in THUMBS:
            key_N = _keys(store, kind)[:, 0]
            up_N = np.concatenate(list(store.scores(kind))) > 1 / 2
            found[kind] = len(np.intersect1d(key_N[up_N], key_N[~up_N]))
        elif FEEDBACK[kind].paired:
            found[kind] = len(np.intersect1d(*_keys(store, kind).T)) // 2
    return {kind: count for kind, count in found.items() if count}


def _keys(store: Store, kind: Kind) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """(N, 2) digests of the tokens of each record of a kind: of its paths in order, and from behind."""
    each = (list(store.path_keys(int(number))) for number in store.numbers([kind]))
    both = (_digest(b"/".join(way)) for one in each for way in (one, one[::-1]))
    return np.fromiter(both, np.uint64).reshape(-1, 2)


def _warnings(found: Findings) -> Iterator[str]:
    for name, stream in found.streams.items():
        table = stream.store.table
        if table.refused:
            yield f"{name}: {table.refused} rows are refused; first: {table.reasons[0]}"
        if table.ties:
            yield f"{name}: {table.ties} pairs prefer neither side and are left out"
        if table.cut:
            yield f"{name}: {table.cut} prompts are shortened to fit max_length"
        for note, count in table.notes.items():
            yield f"{name}: {count} records: {note}"
        if stream.duplicates:
            yield f"{name}: {stream.duplicates} records are repeated word for word"
        for kind, count in stream.contradicted.items():
            both = "answers that are up and down" if kind in THUMBS else "pairs both ways round"
            yield f"{name}: {count} {both}: records that pull against each other"
        for trip in stream.broken_trips[:3]:
            yield f"{name}: round trip: {trip}"
        for kind in THUMBS:
            if stream.labels.get(f"{kind}/mean") in (0.0, 1.0):
                yield f"{name}: all {kind}s are the same"
        for kind in GRADED:
            if stream.labels.get(f"{kind}/above_half", 1.0) < 0.2:
                yield (
                    f"{name}: only {stream.labels[f'{kind}/above_half']:.0%} of {kind} scores lie "
                    "above 1/2; uft reads lower ones as `push down` (see score_range and offset)"
                )
    if several := _in_several(found.streams):
        yield f"{', '.join(found.streams)}: {several} records stand in more than one of them"
    for name, count in found.overlap.items():
        if count:
            yield f"{name}: {count} held-out records have a prompt that is also trained on"
