"""A step's records to forest rows: trees of what shares a beginning, packed to a budget of tokens.

A record's paths stay in one row, so an objective always sees a whole pair or group. Cost is counted
in tokens: a row is filled up to `tokens_per_row`, and no token stands for padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onestage.data.deal import arrange
from onestage.data.encoded import Encoded
from onestage.data.record import Refusal
from onestage.data.trees import Ints, TokenPath, Tree, plant, shared_length, sort_key

WORTH_SHARING = 8
"""Records are joined in one tree when at least this many tokens of their beginnings agree."""
PIECES = 2
"""Where ranks are many, records are joined to trees of this part of a rank's work at the most."""


@dataclass(frozen=True, slots=True)
class Row:
    """Some trees side by side: one forward pass of the model. Arrays as in `Tree`."""

    tree: Tree
    records: tuple[int, ...]
    """Which of the packed records lie in this row, ascending."""
    bounds: tuple[int, ...]
    """Where each tree of the row begins, and the row's length at the end."""
    paths: tuple[TokenPath, ...]
    """The same content as plain sequences, for models that cannot share prefixes. Their spans in
    this order are the responses in ascending order, which is the order of the tree's entries."""
    pieces: tuple[Piece, ...] = ()
    """Of a row that is longer than was allowed: its paths in rows that are not."""

    def __len__(self) -> int:
        return len(self.tree)

    @property
    def parts(self) -> tuple[tuple[int, int, bool], ...]:
        """Each tree: first node, one past the last, and whether it is a chain (no branches)."""
        spans = zip(self.bounds, self.bounds[1:], strict=False)
        return tuple((a, b, bool((self.tree.exit_T[a:b] == b).all())) for a, b in spans)


_PATH = TokenPath(np.zeros(2, np.int32), ((1, 2),), (0,))
EMPTY = Row(tree=plant([_PATH]), records=(), bounds=(0, 2), paths=(_PATH,))
"""A row of no record, for a rank that has nothing to do while others have: two tokens, so that the model
can be run on it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some paths of a long row as a row of their own, and which of the row's entries theirs are."""

    row: Row
    entry_K: Ints


@dataclass(frozen=True, slots=True)
class _Cluster:
    records: list[int]
    tree: Tree


def pack(
    records: Sequence[Sequence[TokenPath]],
    tokens_per_row: int,
    *,
    share: bool = True,
    ranks: int = 1,
    longest: int | None = None,
) -> list[Row]:
    """Rows of at most `tokens_per_row` nodes that hold every path of every record once.

    A record that is longer than the budget on its own makes a row of its own, longer than the
    budget. `share=False` puts each path in a tree of its own (what packing costs without sharing).
    `ranks`: that the rows are for, as `deal.arrange` has them; where a rank has none the row is `EMPTY`.
    `longest`: rows of more nodes, which a record of many paths makes, come in `pieces`, too.
    The result depends on the records and their order alone.
    """
    clusters = _clusters(records, tokens_per_row, ranks) if share else _alone(records)
    rows = arrange([len(cluster.tree) for cluster in clusters], tokens_per_row, ranks)
    made = [_row([clusters[n] for n in row], records) if row else EMPTY for row in rows]
    if longest is None:
        return made
    return [
        replace(row, pieces=_pieces(row, longest)) if len(row) > longest else row for row in made
    ]


def _pieces(row: Row, longest: int) -> tuple[Piece, ...]:
    """The paths of a row in rows of at most `longest` nodes, if there are several such; a path stays
    whole. Neighbours are those that share the longest beginning, which each piece computes anew."""
    keys = [sort_key(path) for path in row.paths]
    groups: list[list[int]] = []
    size, last = 0, -1
    for number in sorted(range(len(row.paths)), key=keys.__getitem__):
        ids = row.paths[number].ids
        more = len(ids) - (shared_length(row.paths[last].ids, ids) if groups else 0)
        if groups and size + more <= longest:
            groups[-1].append(number)
            size += more
        else:
            groups.append([number])
            size = len(ids)
        last = number
    if len(groups) == 1:
        return ()
    ends = np.cumsum([0, *(path.scored for path in row.paths)])
    return tuple(_piece(row, sorted(group), ends) for group in groups)


def _piece(row: Row, group: Sequence[int], ends: Ints) -> Piece:
    paths = tuple(row.paths[number] for number in group)
    tree = _side_by_side([plant(paths)])
    entry_K = np.concatenate([np.arange(ends[n], ends[n + 1]) for n in group])
    return Piece(Row(tree=tree, records=(), bounds=(0, len(tree)), paths=paths), entry_K)


def _clusters(
    records: Sequence[Sequence[TokenPath]], tokens_per_row: int, ranks: int
) -> list[_Cluster]:
    keys = [[sort_key(path) for path in paths] for paths in records]
    first = [
        paths[min(range(len(paths)), key=keys[r].__getitem__)] for r, paths in enumerate(records)
    ]
    alone = [_Cluster([r], plant(paths, keys[r])) for r, paths in enumerate(records)]
    members: list[list[int]] = []
    size, last = 0, -1
    budget = tokens_per_row
    if (
        ranks > 1
    ):  # a tree that is more than a rank's part of the step would leave the others waiting
        budget = min(budget, sum(len(one.tree) for one in alone) // (PIECES * ranks))
    # In the order of their tokens, neighbours are those that share the longest beginning.
    for record in sorted(range(len(records)), key=lambda r: sort_key(first[r])):
        shared = shared_length(first[last].ids, first[record].ids) if members else 0
        if shared >= WORTH_SHARING and size + len(alone[record].tree) - shared <= budget:
            members[-1].append(record)
            size += len(alone[record].tree) - shared
        else:
            members.append([record])
            size = len(alone[record].tree)
        last = record
    return [
        alone[group[0]] if len(group) == 1 else _cluster(group, records, keys) for group in members
    ]


def _cluster(
    group: list[int], records: Sequence[Sequence[TokenPath]], keys: Sequence[Sequence[bytes]]
) -> _Cluster:
    paths = [path for record in group for path in records[record]]
    return _Cluster(group, plant(paths, [key for record in group for key in keys[record]]))


def _alone(records: Sequence[Sequence[TokenPath]]) -> list[_Cluster]:
    return [
        _Cluster([r], _side_by_side([plant([path]) for path in paths]))
        for r, paths in enumerate(records)
    ]


def _row(clusters: Sequence[_Cluster], records: Sequence[Sequence[TokenPath]]) -> Row:
    members = tuple(sorted(record for cluster in clusters for record in cluster.records))
    sizes = np.cumsum([0] + [len(cluster.tree) for cluster in clusters])
    return Row(
        tree=_side_by_side([cluster.tree for cluster in clusters]),
        records=members,
        bounds=tuple(int(size) for size in sizes),
        paths=tuple(path for record in members for path in records[record]),
    )


def _side_by_side(trees: Sequence[Tree]) -> Tree:
    offsets = np.cumsum([0] + [len(tree) for tree in trees[:-1]])

    def joined(name: str, shift: bool) -> Ints:
        parts = [
            getattr(tree, name) + (offset if shift else 0)
            for tree, offset in zip(trees, offsets, strict=True)
        ]
        return np.concatenate(parts)

    roots_T = np.concatenate([tree.parent_T < 0 for tree in trees])
    response_K = joined("response_K", False)
    # The order of `Row.paths`, in which a row's numbers are cut apart by record.
    by_response = np.argsort(response_K, kind="stable")
    return Tree(
        token_T=joined("token_T", False),
        position_T=joined("position_T", False),
        parent_T=np.where(roots_T, -1, joined("parent_T", True)),
        exit_T=joined("exit_T", True),
        node_K=joined("node_K", True)[by_response],
        response_K=response_K[by_response],
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Records and the rows they were packed into; responses are numbered through the batch.

    `first[r]` is the number of record r's first response.
    """

    records: tuple[Encoded, ...]
    rows: tuple[Row, ...]
    first: tuple[int, ...]
    refused: tuple[Refusal, ...] = ()
    """What stood among the records and is in no row."""

    @property
    def nodes(self) -> int:
        """Tokens that are run, those that several records share once."""
        return sum(len(row) for row in self.rows if row.records)

    @property
    def repeated(self) -> int:
        """Tokens that are run once more because they lie in pieces of a row: each piece is looked at
        twice, and has the beginning that it shares with others for itself."""
        return sum(
            2 * sum(len(piece.row) for piece in row.pieces) - len(row)
            for row in self.rows
            if row.pieces
        )


def pack_records(
    encoded: Iterable[Encoded | Refusal],
    tokens_per_row: int = 2048,
    *,
    share: bool = True,
    ranks: int = 1,
    longest: int | None = None,
) -> Batch:
    """Records in forest rows: `pack_records(encode(read(data), tokenizer))`.

    Rows have at most `tokens_per_row` tokens, but for a record that is longer on its own (see `pack`,
    and for `ranks` and `longest`).
    Refusals among the records are kept in the batch's `refused`. Problems have no response: what the
    policy answered to them is packed, not they.
    """
    items = list(encoded)
    records = [item for item in items if isinstance(item, Encoded)]
    counts = [len(record.scores) for record in records]
    first = tuple(int(n) for n in np.cumsum([0, *counts])[:-1])
    paths = [
        [path.renumbered(start) for path in record.paths]
        for record, start in zip(records, first, strict=True)
    ]
    refused = tuple(item for item in items if isinstance(item, Refusal))
    rows = pack(paths, tokens_per_row, share=share, ranks=ranks, longest=longest)
    return Batch(tuple(records), tuple(rows), first, refused)


def by_path(row: Row, batch: Batch, value_K: np.ndarray) -> dict[int, tuple[np.ndarray, ...]]:
    """A value of each scored token of a row as the paths of its records have them, by record number."""
    found, at = {}, 0
    for number in row.records:
        parts = []
        for path in batch.records[number].paths:
            parts.append(value_K[at : at + path.scored])
            at += path.scored
        found[number] = tuple(parts)
    return found
