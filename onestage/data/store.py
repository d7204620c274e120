"""Encoded records on disk, memory-mapped: a billion records cost a byte or so each in memory.

A store is a folder of flat arrays and `table.json`, written once and then only read. It is named by
the content it was made from (data, tokenizer, template, limits), so runs and sweeps share it, and a
change of any of these makes another.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import numpy as np

from onestage.data.cached import used
from onestage.data.columns import HELD, Numbers, Starts, column, number_type, pieces, spill
from onestage.data.counted import Table
from onestage.data.digests import tokenizer_digest
from onestage.data.encoded import Encoded
from onestage.data.kept import alone, drafted, settle
from onestage.data.kinds import KINDS, Kind
from onestage.data.reading import Reading, content_key, read
from onestage.data.record import Refusal
from onestage.data.shares import join, shares_of, work_on
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.data.trees import TokenPath
from onestage.runfolder import Say, silent
from onestage.runfolder.seal import SEAL, damage

COLUMNS = {
    "kind": "b",  # a record: index in KINDS
    "weight": "d",
    "cut": "q",
    "paths": "q",  # a record: its number of paths
    "name": "q",  # a record: bytes of its id
    "about": "q",  # a record: bytes of what a reward is told
    "length": "q",  # a path: its number of tokens
    "spans": "q",  # a path: its number of spans
    "span": "q",  # a span: start, end, response
    "responses": "q",  # a record: its number of responses
    "score": "d",  # a response
    "counts": "d",  # a response: its weight beside the record's
}
"""The files of a store, each an array of numbers; codes as in the `array` module."""

BYTES = ("tokens", "names", "abouts")
"""The files that hold what is counted in these."""

FORMAT = "12"
"""Part of every store's name: change it when the same records come to give other files."""


class Store:
    """Random access to encoded records by number. Reading allocates one record at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = Table(**json.loads((folder / "table.json").read_text()))
        columns = self._columns = {
            name: column(folder / f"{name}.bin", code) for name, code in COLUMNS.items()
        }
        self._tokens = column(folder / "tokens.bin", np.int32, mapped=0)
        self._names = column(folder / "names.bin", np.uint8, mapped=0)
        self._abouts = column(folder / "abouts.bin", np.uint8, mapped=0)
        self._paths_of = Starts(columns["paths"])
        self._name_of = Starts(columns["name"])
        self._about_of = Starts(columns["about"])
        self._responses_of = Starts(columns["responses"])
        self._tokens_of = Starts(columns["length"])
        self._spans_of = Starts(columns["spans"])

    def __len__(self) -> int:
        return len(self._columns["kind"])

    def __getitem__(self, number: int) -> Encoded:
        columns, paths = self._columns, self._paths_of[number]
        responses = self._responses_of[number]
        scores, counts = columns["score"][responses], columns["counts"][responses]
        return Encoded(
            kind=self.kind(number),
            paths=tuple(self._path(path) for path in range(paths.start, paths.stop)),
            scores=tuple(float(score) for score in scores),
            weight=float(columns["weight"][number]),
            source=self.table.source,
            id=self.name(number),
            cut=int(columns["cut"][number]),
            about=self.about(number),
            weights=() if (counts == 1).all() else tuple(float(count) for count in counts),
        )

    def __iter__(self) -> Iterator[Encoded]:
        return (self[number] for number in range(len(self)))

    def _path(self, path: int) -> TokenPath:
        ids = np.asarray(self._tokens[self._tokens_of[path]])
        spans = self._columns["span"].reshape(-1, 3)[self._spans_of[path]]
        return TokenPath(
            ids,
            tuple((int(start), int(end)) for start, end, _ in spans),
            tuple(int(number) for _, _, number in spans),
        )

    def kind(self, number: int) -> Kind:
        return KINDS[self._columns["kind"][number]]

    def name(self, number: int) -> str:
        return bytes(self._names[self._name_of[number]]).decode()

    def about(self, number: int) -> str:
        """What a reward is told of a problem, without its tokens: see `Encoded.about`."""
        return bytes(self._abouts[self._about_of[number]]).decode()

    def counts(self) -> dict[Kind, int]:
        """How many records there are of each kind that occurs."""
        return {kind: self.table.records[kind] for kind in KINDS if kind in self.table.records}

    def numbers(self, kinds: Sequence[Kind]) -> Numbers:
        """The numbers of the records of some kinds, in order."""
        codes, wanted = self._columns["kind"], [KINDS.index(kind) for kind in kinds]
        found = [np.empty(0, number_type(len(codes)))]
        for begin, end in pieces(len(codes)):
            mine = begin + np.flatnonzero(np.isin(codes[begin:end], wanted))
            found.append(mine.astype(found[0].dtype))
        return np.concatenate(found)

    def lengths(self) -> Numbers:
        """Tokens of each record's paths together."""
        counts, lengths = self._columns["paths"], self._columns["length"]
        found = [np.empty(0, np.int64)]
        for begin, end in pieces(len(counts)):
            mine = lengths[self._paths_of.before(begin) : self._paths_of.before(end)]
            first = np.cumsum(counts[begin:end]) - counts[begin:end]
            found.append(np.add.reduceat(mine, first))
        return np.concatenate(found)

    def scores(self, kind: Kind) -> Iterator[Numbers]:
        """Given scores of all responses of a kind, some records' at a time."""
        kinds, counts = self._columns["kind"], self._columns["responses"]
        for begin, end in pieces(len(kinds)):
            mine = np.repeat(kinds[begin:end] == KINDS.index(kind), counts[begin:end])
            first, last = self._responses_of.before(begin), self._responses_of.before(end)
            yield self._columns["score"][first:last][mine]

    def path_keys(self, number: int) -> Iterator[bytes]:
        """Token bytes of each path of a record."""
        paths = self._paths_of[number]
        for path in range(paths.start, paths.stop):
            yield np.asarray(self._tokens[self._tokens_of[path]]).tobytes()


def write(
    items: Iterable[Encoded | Refusal], source: str, folder: Path, reading: Reading | None = None
) -> Store:
    """Write a store and open it. The folder appears whole or not at all. `reading`: what the items are
    made of, where it is a stream's."""
    with drafted(folder) as draft:
        table = _write_into(draft, items, source)
        _close(draft, table, reading)
    return Store(folder)


def _write_into(draft: Path, items: Iterable[Encoded | Refusal], source: str) -> Table:
    table = Table(source)
    columns = {name: array(code) for name, code in COLUMNS.items()}
    with ExitStack() as opened:
        files: dict[str, BinaryIO] = {
            name: opened.enter_context((draft / f"{name}.bin").open("wb"))
            for name in (*COLUMNS, *BYTES)
        }
        for item in items:
            table.add(item)
            if isinstance(item, Encoded):
                _append(item, columns, files)
                if len(columns["kind"]) == HELD:
                    spill(columns, files)
        spill(columns, files)
    return table


def _close(draft: Path, table: Table, reading: Reading | None) -> None:
    if reading:
        table.close(reading)
    (draft / "table.json").write_text(json.dumps(asdict(table), indent=1))


def _append(
    item: Encoded, columns: Mapping[str, array[Any]], files: Mapping[str, BinaryIO]
) -> None:
    name, about = item.id.encode(), item.about.encode()
    files["names"].write(name)
    files["abouts"].write(about)
    columns["about"].append(len(about))
    columns["kind"].append(KINDS.index(item.kind))
    columns["weight"].append(item.weight)
    columns["cut"].append(item.cut)
    columns["paths"].append(len(item.paths))
    columns["name"].append(len(name))
    columns["responses"].append(len(item.scores))
    columns["score"].extend(item.scores)
    columns["counts"].extend(item.weights or (1.0,) * len(item.scores))
    for path in item.paths:
        files["tokens"].write(path.ids.tobytes())
        columns["length"].append(len(path.ids))
        columns["spans"].append(len(path.spans))
        for (start, end), number in zip(path.spans, path.responses, strict=True):
            columns["span"].extend((start, end, number))


def open_store(
    stream: Stream,
    encoder: Encoder,
    cache: Path,
    digest: str | None = None,
    say: Say = silent,
    there: str | None = None,
) -> tuple[Store, bool]:
    """The store of a stream and whether it was there already.

    `digest` is the tokenizer's, where it is known (`tokenizer_digest`). A store that is damaged is
    encoded anew, and `say` told. `there` names the folder where another process of this run has found or
    made it a moment ago: then nothing is read or compared. Rows that only pass by (they are streamed)
    have no name before they are read: they are encoded anew."""
    content = None if there else content_key(stream)
    if there:
        store, known = Store(Path(there)), True
    elif content is None:
        store, known = _passing(stream, encoder, cache), False
    else:
        # All that decides the ids is in the name, so a store that is there is the right one.
        digest = digest or tokenizer_digest(encoder.tokenizer)
        limits = (str(encoder.max_length), encoder.overflow, str(encoder.room))
        taught = [f"taught {encoder.taught[n]}" for n in (stream.name,) if n in encoder.taught]
        name = "/".join((stream.name, FORMAT, content, digest, *limits, *taught))
        folder = cache / "tokens" / hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        store, known = _kept(stream, encoder, folder, say)
    store.table.beside(stream)
    return store, known


def _kept(stream: Stream, encoder: Encoder, folder: Path, say: Say) -> tuple[Store, bool]:
    """The store in a folder, made where it is not there, and whether it was."""
    if os.path.lexists(folder) and damage(folder) is None:
        used(folder)
        return Store(folder), True
    with alone(folder, say):
        # Asked again: another process may have written it meanwhile.
        wrong = damage(folder) if os.path.lexists(folder) else "absent"
        if wrong is None:
            return Store(folder), True
        if wrong != "absent":
            say(f"data {stream.name}: what was encoded before is damaged ({wrong}); encoded anew")
        return _encoded(stream, encoder, folder), False


def _passing(stream: Stream, encoder: Encoder, cache: Path) -> Store:
    """A store named by what is in it: so a run that goes on, or another node, knows the rows again."""
    return _named_by_content(_encoded(stream, encoder, _unnamed(cache)))


def write_by_content(
    items: Iterable[Encoded | Refusal], source: str, cache: Path, reading: Reading
) -> Store:
    """As `write`, into a folder of the cache that is named by what is in it."""
    return _named_by_content(write(items, source, _unnamed(cache), reading))


def _unnamed(cache: Path) -> Path:
    return cache / "tokens" / f"stream-{token_hex(8)}"


def _named_by_content(store: Store) -> Store:
    made = store.folder
    name = hashlib.blake2b((made / SEAL).read_bytes(), digest_size=16).hexdigest()
    settle(made, made.with_name(name))
    used(made.with_name(name))
    return Store(made.with_name(name))


def _encoded(stream: Stream, encoder: Encoder, folder: Path) -> Store:
    shares = shares_of(stream, encoder.processes)
    if not shares:
        reading = read(stream)
        return write(encoder.encode_all(reading), stream.name, folder, reading)
    alone = replace(encoder, processes=1)

    def fill(part: Path, reading: Reading) -> Table:
        return _write_into(part, alone.encode_all(reading), stream.name)

    with drafted(folder) as draft:
        made = work_on(stream, shares, encoder.processes, draft, fill)
        table, reading = join(stream, made, draft, [f"{name}.bin" for name in (*COLUMNS, *BYTES)])
        _close(draft, table, reading)
    return Store(folder)
