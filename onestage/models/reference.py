"""The reference: log-probabilities of the model a run starts from, or of another one.

They are constants, so they are computed once for the records a run will visit and kept on disk under a
fingerprint of the weights; a second run on the same model and records finds them. An entry is one path
(its token ids and scored spans), so runs that share some data share the entries. A file of another
model is refused; one that is damaged (each holds a digest of its content) is dropped by a run, which
computes its entries anew. Ranks tell each other what they compute, and each node keeps a cache of its
own: no disk need be shared.

Responses that are sampled cannot be scored beforehand: `InitialWeights` change places with the trained
ones for as long as the reference is asked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.distributed.tensor import DTensor

from onestage.data.cached import used
from onestage.data.kept import drop, settled
from onestage.data.packing import pack
from onestage.data.trees import TokenPath
from onestage.models.exchange import ALONE, Ranks
from onestage.models.policy import Policy
from onestage.models.sharding import in_step
from onestage.runfolder import Say

Floats = np.ndarray[Any, np.dtype[np.float32]]
FORMAT = "2"
SUFFIX = f".{FORMAT}.safetensors"
"""Of the files of a cache. Those of another format, which lie in the same folder, are left alone."""
BLOCK = 8192
"""Paths whose missing entries are computed together: what a run that is cut off loses at most."""


class ReferenceMismatchError(ValueError):
    """A cache that does not belong to this model, or is damaged."""


class _DamagedError(ValueError):
    """A file that is not as it was written."""


def path_key(path: TokenPath) -> int:
    """64 bits of a path's token ids and spans."""
    digest = hashlib.blake2b(path.ids.tobytes(), digest_size=8)
    digest.update(np.asarray(path.spans, np.int64).tobytes())
    return int.from_bytes(digest.digest(), "little")


class ReferenceCache:
    """Log-probabilities of scored tokens by path, for the model of one fingerprint.

    In memory there is an index of a few bytes a path; the values stay in their files. What is damaged is
    taken away, and `say` told; without it, `ReferenceMismatchError`.
    """

    def __init__(self, folder: Path, fingerprint: str, say: Say | None = None) -> None:
        self.folder = folder / fingerprint
        self.fingerprint = fingerprint
        self.say = say
        self._files: set[str] = set()
        self._opened: list[Any] = []
        """The values of each file, still on disk; its place here is its number in the index."""
        self._keys: np.ndarray[Any, np.dtype[np.uint64]] = np.empty(0, np.uint64)
        self._places: np.ndarray[Any, np.dtype[np.int64]] = np.empty((0, 3), np.int64)
        """File number, first value and number of values of each key."""
        self.reload()

    def __len__(self) -> int:
        return len(self._keys)

    def reload(self) -> None:
        """Take in the files that were added since the last time, also by other processes."""
        used(self.folder)
        keys, places = [self._keys], [self._places]
        for file in self._listed():
            if file.name in self._files:
                continue
            try:
                found, lengths, values = self._read(file)
            except _DamagedError as error:
                if os.path.lexists(file):  # another run may have taken it away
                    self._drop(file, str(error))
                continue
            number = np.full_like(lengths, len(self._opened))
            keys.append(found)
            places.append(np.stack([number, np.cumsum(lengths) - lengths, lengths], axis=1))
            self._files.add(file.name)
            self._opened.append(values)
        # Two processes may have written one path; whose entry is used makes no difference.
        self._keys, first = np.unique(np.concatenate(keys), return_index=True)
        self._places = np.concatenate(places)[first]

    def _listed(self) -> list[Path]:
        try:
            if self.folder.exists() and not os.access(self.folder, os.R_OK | os.X_OK):
                raise PermissionError("no permission to look into it")
            names = [name for name in os.listdir(self.folder) if name.endswith(SUFFIX)]
        except FileNotFoundError:
            return []
        except OSError as error:
            self._drop(self.folder, f"no folder that can be read: {error}")
            return []
        return [self.folder / name for name in sorted(names)]

    def _drop(self, place: Path, why: str) -> None:
        """Take away what is damaged: its entries are then missing, and computed anew."""
        told = f"{place}: the reference cache is damaged ({why})"
        if self.say is None:
            raise ReferenceMismatchError(f"{told}; delete it to compute it anew")
        try:
            drop(place)
        except OSError as error:
            raise ReferenceMismatchError(f"{told} and cannot be removed: {error}") from error
        self.say(f"{told}; computed anew")

    def _read(self, file: Path) -> tuple[Any, Any, Any]:
        """Keys, lengths and (still on disk) values of a file; refused where not this model's."""
        try:
            opened = safe_open(file, framework="numpy")
            metadata = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in ("keys", "lengths", "values")}
            values = opened.get_slice("values")
        except Exception as error:  # whatever a damaged header makes of the library
            raise _DamagedError(str(error)) from error
        model = str(metadata.get("fingerprint"))
        if metadata.get("digest") != _digest(model, arrays):
            raise _DamagedError("its content has changed")
        if model != self.fingerprint:
            raise ReferenceMismatchError(
                f"{file}: reference log-probabilities of model {model}, "
                f"but this run starts from {self.fingerprint}"
            )
        return arrays["keys"], arrays["lengths"], values

    def split(self, paths: Iterable[TokenPath]) -> tuple[int, dict[int, TokenPath]]:
        """Of the distinct paths: how many have an entry, and those that have none, by key."""
        asked = by_key(paths)
        missing = self._missing(asked)
        return len(asked) - len(missing), missing

    def _missing(self, asked: Mapping[int, TokenPath]) -> dict[int, TokenPath]:
        return {key: path for key, path in asked.items() if self._find(key) is None}

    def _find(self, key: int) -> int | None:
        place = int(np.searchsorted(self._keys, np.uint64(key)))
        known = place < len(self._keys) and int(self._keys[place]) == key
        return place if known else None

    def __getitem__(self, path: TokenPath) -> Floats:
        """Log-probabilities of the path's scored tokens, span after span."""
        place = self._find(path_key(path))
        length = path.scored
        if place is None:
            raise KeyError("no reference log-probabilities for this path")
        file, start, stored = (int(value) for value in self._places[place])
        if stored != length:
            raise ReferenceMismatchError(
                f"the reference has {stored} tokens where the path scores {length}"
            )
        values: Floats = self._opened[file][start : start + length]
        return values

    def add(self, entries: dict[int, Floats]) -> None:
        """Write some entries as one file, whole or not at all; `reload` takes them in."""
        if not entries:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lengths = np.asarray([len(value) for value in entries.values()], np.int64)
        arrays = {
            "keys": np.asarray(list(entries), np.uint64),
            "lengths": lengths,
            "values": np.concatenate(list(entries.values())),
        }
        # Named by its keys: processes that compute the same entries write the same file.
        content = hashlib.blake2b(arrays["keys"].tobytes(), digest_size=8).hexdigest()
        told = {"fingerprint": self.fingerprint, "digest": _digest(self.fingerprint, arrays)}
        with settled(self.folder / f"{content}{SUFFIX}") as draft:
            save_file(arrays, draft, told)

    def fill(
        self,
        policy: Policy,
        paths: Iterable[TokenPath],
        tokens_per_row: int,
        ranks: Ranks = ALONE,
    ) -> tuple[int, int]:
        """Compute what the policy says of the paths that have no entry; `reload` takes them in.

        Of several ranks, each is given all the paths and computes a part; all are told everything, and
        the first of each node writes what its own cache lacks. Returns how many paths were known to any
        rank, and how many were missing.
        """
        found = computed = 0
        rest = iter(paths)
        while block := list(islice(rest, BLOCK)):
            asked = by_key(block)
            lacking = self._missing(asked)
            here = np.asarray([key not in lacking for key in asked], np.uint8)
            entries, held = self._shared(policy, asked, here, tokens_per_row, ranks)
            found, computed = found + held, computed + len(asked) - held
            if ranks.first_of_node:
                self.add({key: entries[key] for key in lacking})
        return found, computed

    def _shared(
        self,
        policy: Policy,
        asked: Mapping[int, TokenPath],
        here: np.ndarray[Any, np.dtype[np.uint8]],
        tokens_per_row: int,
        ranks: Ranks,
    ) -> tuple[dict[int, Floats], int]:
        """Entries of paths that some rank lacks, on all of them, and how many paths some rank has.

        here: which of the paths this one has. What one has it sends; the rest is computed, by key:
        caches of nodes may hold different paths.
        """
        has = np.stack([one for (one,) in ranks.gather([here])])
        known, everywhere = has.max(0).astype(bool), has.min(0).astype(bool)
        sends = known & ~everywhere & (has.argmax(0) == ranks.rank)
        mine = {
            key: path
            for (key, path), there in zip(asked.items(), known, strict=True)
            if not there and key % ranks.ranks == ranks.rank
        }
        values = compute(policy, mine, tokens_per_row)
        values |= {key: self[path] for key, path in compress(asked.items(), sends)}
        keys = np.asarray(list(values), np.uint64)
        return {
            key: part
            for keys, *parts in ranks.gather([keys, *values.values()])
            for key, part in zip(keys.tolist(), parts, strict=True)
        }, int(known.sum())


def _digest(fingerprint: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Of all that a file says."""
    found = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def by_key(paths: Iterable[TokenPath]) -> dict[int, TokenPath]:
    """Paths by the number that they are kept under; one that stands twice once, the first."""
    found: dict[int, TokenPath] = {}
    for path in paths:
        found.setdefault(path_key(path), path)
    return found


def compute(
    policy: Policy, paths: Mapping[int, TokenPath], tokens_per_row: int
) -> dict[int, Floats]:
    """Log-probabilities of some paths' scored tokens under the policy as it stands, by key."""
    keys = list(paths)
    groups = [
        [TokenPath(path.ids, path.spans, (number,) * len(path.spans))]
        for number, path in enumerate(paths.values())
    ]
    found: dict[int, Floats] = {}
    with policy.evaluating():
        for row in in_step(policy, pack(groups, tokens_per_row)):
            logp_K = policy(row).float().cpu().numpy()
            cuts = np.flatnonzero(np.diff(row.tree.response_K)) + 1
            if not row.records:
                continue
            for number, part in zip(row.records, np.split(logp_K, cuts), strict=True):
                found[keys[number]] = part
    return found


class InitialWeights:
    """The policy as it was before the first step, for who must ask it while it trains.

    A copy of the trained weights is kept (with low-rank adapters that is little). Must be made before
    the first step, also of a run that is resumed.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.trained = [p for p in policy.model.parameters() if p.requires_grad]
        self.initial = [p.detach().clone() for p in self.trained]

    @contextmanager
    def in_place(self) -> Iterator[Policy]:
        """The policy with its first weights; the trained ones are back afterwards, bit for bit."""
        self._swap()
        try:
            yield self.policy
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for number, parameter in enumerate(self.trained):
            # The tensors change places and nothing is computed, so both come back bit for bit.
            if isinstance(parameter, DTensor):  # torch gathers from this memory and no other
                now = parameter.detach().clone()
                parameter.copy_(self.initial[number])
                self.initial[number] = now
            else:
                parameter.data, self.initial[number] = self.initial[number], parameter.data
