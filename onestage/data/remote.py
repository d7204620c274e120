"""Files that lie elsewhere (s3://, gs://, hf://, https://, ...), through fsspec: copied here, then read.

A source is read several times (to check it, to know what it holds, to train), and a copy is read at the
disk's speed. It is kept in the cache under what its store says of this version of the file, so that a
file that has changed is fetched anew; older versions go when a newer one is fetched, unless another
run may still be reading them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from onestage.config.words import first_line
from onestage.data.raw import DataFile
from onestage.data.reach import require_within_reach
from onestage.runfolder import default_cache
from onestage.runfolder.disk import whole_path

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

MARKS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "size")
"""What a web server says of the version of a file."""

PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}


UNREAD = 24 * 3600.0
"""Seconds after which nobody is reading a version that nobody has opened."""


def is_remote(given: str) -> bool:
    """Whether this is an address (`s3://bucket/pairs.jsonl`) and no path of this disk."""
    return ADDRESS.match(given) is not None


def remote_files(
    given: str, choose: Callable[[Sequence[str]], Sequence[str]]
) -> tuple[list[DataFile], list[str]]:
    """(copies of the files at an address, what else is there). `choose`: of names, those that are read.

    Raises ValueError, with the package to install, where this kind of address or this place cannot be
    reached.
    """
    store, root, paths = _listed(given)
    labels = {_label(root, path): path for path in paths}
    chosen = list(choose(list(labels)))
    files = [DataFile(_copy(given, store, labels[label]), label) for label in chosen]
    return files, sorted(set(labels) - set(chosen))


def _listed(given: str) -> tuple[Any, str, list[str]]:
    """The store, the folder that names are relative to, and the files that an address stands for."""
    import fsspec

    scheme = given.partition("://")[0].lower()
    if scheme == "hf":
        require_within_reach("data", "/".join(given.split("/")[3:5]), "dataset")
    try:
        store, path = fsspec.core.url_to_fs(given)
        if any(sign in path for sign in "*?["):
            fixed = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
            return store, fixed, [found for found in store.glob(path) if store.isfile(found)]
        if store.isfile(path):
            return store, path.rpartition("/")[0], [path]
        return store, path, store.find(path)
    except ImportError as error:
        package = PACKAGES.get(scheme)
        install = f": pip install {package}" if package else ""
        raise ValueError(f"{given}: cannot be read here ({first_line(error)}){install}") from error
    except Exception as error:  # each store has errors of its own
        raise ValueError(f"{given}: cannot be reached: {first_line(error)}") from error


def _label(root: str, path: str) -> str:
    return path.removeprefix(root).lstrip("/")


def _copy(given: str, store: Any, path: str) -> Path:
    try:
        versions = default_cache() / "remote" / _digest(f"{store.protocol} {path}")
        place = versions / _digest(_version(store, path)) / path.rpartition("/")[2]
        if place.exists():
            place.parent.touch()
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_path(place) as draft:
            store.get_file(path, str(draft))
        _clear(versions, place.parent)
    except Exception as error:
        raise ValueError(f"{given}: {path} cannot be fetched: {first_line(error)}") from error
    return place


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _clear(versions: Path, newest: Path) -> None:
    """Remove the versions of a file that nobody has read for some time."""
    for version in versions.iterdir():
        with suppress(FileNotFoundError):  # another process clears them, too
            if version != newest and time.time() - version.stat().st_mtime > UNREAD:
                shutil.rmtree(version, ignore_errors=True)


def _version(store: Any, path: str) -> str:
    """What a store says of this version of a file."""
    told = f"{store.protocol} {path} {store.ukey(path)}"
    if "https" not in store.protocol:
        return told
    # fsspec takes web pages for unchanging: what their server says of them does not.
    found = store.info(path)
    return told + "".join(f" {mark} {found[mark]}" for mark in MARKS if mark in found)
