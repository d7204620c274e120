"""Token trees: paths that begin alike share the nodes of their beginning.

A tree is stored as a row of nodes in depth-first order with four integers a node: `token`,
`position` (its depth on the path), `parent` (index in the row, -1 at a root) and `exit` (one past
its last descendant). With them, node i may attend to node j iff `j <= i < exit[j]`: j is i itself or
an ancestor of i. That one rule is causal masking, packing without padding, conversations and shared
prompts at once.

Legend: T nodes of a tree or row, K scored entries. A node that two responses share is scored once
and stands in K twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TokenPath:
    """One sequence of token ids and the spans [start, end) of it that are scored.

    `responses` numbers the response each span belongs to, ascending; two spans may belong to one.
    A span never starts at 0: the first token of a sequence has nothing to be predicted from.
    """

    ids: Ids
    spans: tuple[tuple[int, int], ...]
    responses: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.spans) != len(self.responses):
            raise ValueError(f"{len(self.spans)} spans but {len(self.responses)} response numbers")
        for start, end in self.spans:
            if not 1 <= start < end <= len(self.ids):
                raise ValueError(
                    f"a scored span must lie in [1, {len(self.ids)}] and hold a token, "
                    f"got [{start}, {end})"
                )

    @property
    def opening(self) -> int:
        """Tokens before the first scored one; all of them where none is."""
        return self.spans[0][0] if self.spans else len(self.ids)

    @property
    def scored(self) -> int:
        """Scored tokens."""
        return sum(end - start for start, end in self.spans)

    def renumbered(self, first: int) -> TokenPath:
        """The same path with its responses numbered from `first` on instead of 0."""
        return TokenPath(self.ids, self.spans, tuple(number + first for number in self.responses))


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes in depth-first order (T) and the scored entries (K): which node, for which response."""

    token_T: Ints
    position_T: Ints
    parent_T: Ints
    exit_T: Ints
    node_K: Ints
    response_K: Ints

    def __len__(self) -> int:
        return len(self.token_T)


def sort_key(path: TokenPath) -> bytes:
    """Bytes that sort like the token ids, so that neighbours in order share the most."""
    return path.ids.astype(">u4").tobytes()


def shared_length(left: Ids, right: Ids) -> int:
    """How many tokens two sequences have in common from their start."""
    shorter = min(len(left), len(right))
    different = np.flatnonzero(left[:shorter] != right[:shorter])
    return int(different[0]) if len(different) else shorter


def plant(paths: Sequence[TokenPath], keys: Sequence[bytes] | None = None) -> Tree:
    """The tree of some paths (at least one). Paths without a common beginning make several roots.

    Entries come path by path in the order given, so a response's tokens stay together and in order.
    """
    keys = keys if keys is not None else [sort_key(path) for path in paths]
    order = sorted(range(len(paths)), key=keys.__getitem__)
    tokens: list[Ids] = []
    starts: list[tuple[int, int, int]] = []  # (depth where new nodes begin, first new node, count)
    exit_T = np.empty(sum(len(path.ids) for path in paths), dtype=np.int64)
    nodes_of: dict[int, Ints] = {}
    branch = np.empty(0, dtype=np.int64)  # node index at each depth of the current path
    size, previous = 0, None
    for index in order:
        ids = paths[index].ids
        depth = 0 if previous is None else shared_length(previous, ids)
        # Paths come sorted: what the last one had below this depth will get no more nodes.
        exit_T[branch[depth:]] = size
        fresh = np.arange(size, size + len(ids) - depth, dtype=np.int64)
        branch = np.concatenate([branch[:depth], fresh])
        tokens.append(ids[depth:])
        starts.append((depth, int(branch[depth - 1]) if depth else -1, len(fresh)))
        nodes_of[index] = branch
        size, previous = size + len(fresh), ids
    exit_T[branch] = size
    return Tree(
        token_T=np.concatenate(tokens).astype(np.int64),
        position_T=np.concatenate([np.arange(depth, depth + n) for depth, _, n in starts]),
        parent_T=_parents(starts, size),
        exit_T=exit_T[:size],
        **_entries(paths, nodes_of),
    )


def _parents(starts: Sequence[tuple[int, int, int]], size: int) -> Ints:
    parent_T = np.arange(-1, size - 1, dtype=np.int64)
    at = 0
    for _, parent, count in starts:
        if count:
            parent_T[at] = parent
        at += count
    return parent_T


def _entries(paths: Sequence[TokenPath], nodes_of: dict[int, Ints]) -> dict[str, Ints]:
    nodes, responses = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for index, path in enumerate(paths):
        for number, (start, end) in zip(path.responses, path.spans, strict=True):
            nodes.append(nodes_of[index][start:end])
            responses.append(np.full(end - start, number, dtype=np.int64))
    return {"node_K": np.concatenate(nodes), "response_K": np.concatenate(responses)}


def shortened(path: TokenPath, keep: int, cut: int) -> TokenPath:
    """A path without `cut` tokens behind its first `keep`."""
    ids = np.concatenate([path.ids[:keep], path.ids[keep + cut :]])
    return TokenPath(ids, tuple((a - cut, b - cut) for a, b in path.spans), path.responses)


def same_responses(paths: Sequence[TokenPath]) -> bool:
    """Whether the two responses of a pair came out as the same tokens."""
    sides = [
        [(path.ids.tobytes(), path.spans) for path in paths if set(path.responses) == {side}]
        for side in (0, 1)
    ]
    return bool(sides[0]) and sides[0] == sides[1]
