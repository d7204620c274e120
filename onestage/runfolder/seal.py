"""A folder that says what it holds, so that whoever opens it later knows damage from the whole thing.

`files.json` has the size and digest of every file beside it. Checkpoints and caches are sealed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SEAL = "files.json"


def seal(folder: Path) -> None:
    """Write down what is in a folder; the last thing before it takes its place."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    facts = {file.relative_to(folder).as_posix(): _facts(file) for file in files}
    (folder / SEAL).write_text(json.dumps(facts, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that was sealed, in words; None where every byte is as it was."""
    try:
        sealed = json.loads((folder / SEAL).read_bytes())
        for name, facts in sealed.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != facts["bytes"]:
                return f"{name} has {file.stat().st_size} bytes where {facts['bytes']} were written"
            if _facts(file) != facts:
                return f"the content of {name} has changed"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{SEAL} or what it lists cannot be read: {error}"
    return None


def _facts(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16))
    return {"bytes": file.stat().st_size, "digest": digest.hexdigest()}
