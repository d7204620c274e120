"""From a source of rows to a store of token ids, made once for each content."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from onestage.records.reading import Source, content_key, read
from onestage.streams.encoding import Encoder
from onestage.streams.store import Store, write

FORMAT = "2"


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of everything about a tokenizer that decides ids."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(str(tokenizer.chat_template).encode())
    digest.update(json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def open_store(source: Source, encoder: Encoder, cache: Path, digest: str) -> tuple[Store, bool]:
    """The store of a source and whether it was there already.

    `digest` is the tokenizer's (`tokenizer_digest`). A source whose content has no name (a stream)
    is encoded anew into a temporary folder of the cache.
    """
    content = content_key(source)
    if content is None:
        (cache / "tokens").mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="stream-", dir=cache / "tokens")) / "store"
    else:
        limits = (str(encoder.max_length), encoder.overflow, str(encoder.room))
        name = "/".join((FORMAT, content, digest, *limits))
        key = hashlib.blake2b(
            f"{source.columns.source}/{name}".encode(), digest_size=16
        ).hexdigest()
        folder = cache / "tokens" / key
        if folder.exists():
            return Store(folder), True
    return write(encoder.encode_all(read(source)), source.columns.source, folder), False
