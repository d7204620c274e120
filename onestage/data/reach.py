"""Names of the hub: out of reach is found once, before each library tries five times in turn."""

from __future__ import annotations

import difflib
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 5.0
"""That the hub has to answer."""


def require_within_reach(option: str, name: str, sort: str = "model") -> None:
    """Raise `ValueError` for a name of which nothing is on this disk and that the hub cannot give:
    because it is out of reach, or the name is a mistyped path.

    sort: `model` or `dataset`.
    """
    if _is_there(name) or _is_kept(name, sort):
        return
    first = Path(name).parts[0] if name else ""
    if "/" in name and _is_there(first) and Path(first).is_dir():
        near = difflib.get_close_matches(
            Path(name).name, [p.name for p in Path(first).iterdir()], 1
        )
        hint = f"; did you mean {first}/{near[0]}?" if near else ""
        raise ValueError(f"{option}: there is a folder {first}, but nothing at {name}{hint}")
    why = _out_of_reach()
    if why:
        raise ValueError(
            f"{option}: nothing at {name} on this disk, and the hub cannot be asked ({why}); give a "
            f"path that exists, or a {sort} that was downloaded before"
        )


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a path, or no text of one
        return False


def _is_kept(name: str, sort: str) -> bool:
    """Whether anything of it was downloaded before."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"{sort}s--{name.replace('/', '--')}").is_dir()


@cache
def _out_of_reach() -> str | None:
    """Why nothing can be asked of the hub; asked once."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    place = urlsplit(constants.ENDPOINT)
    if getproxies() or not place.hostname:
        return None  # whether it can be reached is the proxy's to say
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((place.hostname, port), SECONDS).close()
    except OSError as error:
        return f"{place.hostname}: {error.strerror or error}"
    return None
