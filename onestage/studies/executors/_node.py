"""A cell on a node of a cluster, which shares no disk with the study: what it needs and leaves travels
as bytes.

What onestage made itself (a generated base and its rows, small) is sent, so that all cells of a seed
stand on the same ground wherever they are done. What the user named by a path must be there on every
node.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import onestage
from onestage.config import first_line
from onestage.runfolder import code_digest, default_cache, read_json, write_json
from onestage.runfolder.disk import whole_folder
from onestage.studies.cells import Cell
from onestage.studies.run_cell import prepare, run_cell
from onestage.studies.worlds import Ground

HEAVY = ("*.safetensors", "*.bin", "*.pt", "*.npz", "checkpoints")
"""What of a cell's folder stays on its node: weights, and the states of optimisers."""
PARTS = ("base", "data")
"""The folders of a ground."""


@dataclass(frozen=True)
class Errand:
    """What a node is told beside a cell."""

    home: Path
    """Where the study was started: what relative paths are seen from."""
    code: str
    """A digest of the study's own onestage."""
    threads: int
    cells: Path | None = None
    """The folder of all cells, where nodes share a disk."""
    cache: Path | None = None
    """Likewise; None: each node has its own."""


def make_ground(
    errand: Errand, world: Mapping[str, Any], seed: int
) -> tuple[Ground, dict[str, bytes]]:
    """A ground, and those of its folders that are in this node's own cache, packed."""
    with _here(errand) as place:
        ground = prepare(world, seed, place)
        if errand.cache is not None:
            return ground, {}
        folders = {part: getattr(ground, part) for part in PARTS}
        mine = {part: path for part, path in folders.items() if path.is_relative_to(place)}
        return ground, {part: packed(path) for part, path in mine.items()}


def do_cell(
    errand: Errand, cell: Cell, ground: Ground, parts: Mapping[str, bytes], keep_models: bool
) -> tuple[str, bytes]:
    """The state that a cell ends in, and its folder, packed; nothing, where it is on a shared disk."""
    with _here(errand) as place:
        unpacked: dict[str, Any] = {part: _unpacked(parts[part], place) for part in parts}
        there = replace(ground, **unpacked)
        if errand.cells is not None:
            folder = errand.cells / cell.name
            if not errand.cells.is_dir():
                raise ValueError(f"there is no {errand.cells}: it is not shared")
            return _done(cell, there, folder, place, keep_models), b""
        with tempfile.TemporaryDirectory(prefix="onestage-cell-") as scratch:
            folder = Path(scratch) / cell.name
            state = _done(cell, there, folder, place, keep_models)
            return state, packed(folder, HEAVY)


def _done(cell: Cell, ground: Ground, folder: Path, place: Path, keep_models: bool) -> str:
    """Do a cell, and sign what became of it with this node's name."""
    state = run_cell(cell, ground, folder, place, keep_models)
    told = read_json(folder / "status.json")
    error = f"on node {socket.gethostname()}: {told['error']}" if told["error"] else ""
    write_json(folder / "status.json", {**told, "error": error, "node": socket.gethostname()})
    return state


@contextmanager
def _here(errand: Errand) -> Iterator[Path]:
    """This node as a place for a cell: its cache. What goes wrong names the node."""
    import torch

    try:
        if code_digest() != errand.code:
            raise ValueError(
                f"its onestage is another one than the study's ({onestage.__file__}); install the same"
            )
        torch.set_num_threads(errand.threads)
        with suppress(OSError):  # paths may all be absolute, or Ray's own working_dir may have them
            os.chdir(errand.home)
        yield errand.cache or default_cache().absolute()
    except Exception as error:
        raise RuntimeError(f"on node {socket.gethostname()}: {first_line(error)}") from None


def packed(folder: Path, without: tuple[str, ...] = ()) -> bytes:
    """A folder as the bytes of an archive, but for what has some names."""

    def kept(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(item.name)
        return None if any(name.match(pattern) for pattern in without) else item

    filled = io.BytesIO()
    with tarfile.open(fileobj=filled, mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=".", filter=kept)
    return filled.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Make a folder of an archive, whole or not at all; an older one is replaced."""
    with whole_folder(folder) as draft:
        extract(content, draft)


def extract(content: bytes, folder: Path) -> None:
    """Fill a folder from an archive."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def _unpacked(content: bytes, place: Path) -> Path:
    """Where a part of a ground is in this node's cache, once for all its cells."""
    folder = place / "grounds" / blake2b(content, digest_size=8).hexdigest()
    if not folder.is_dir():
        with whole_folder(folder, _unless_there) as draft:
            extract(content, draft)
    return folder


def _unless_there(draft: Path, folder: Path) -> None:
    """Take the place of nothing: another cell of this node may have been quicker, with the same."""
    try:
        os.rename(draft, folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(draft)
