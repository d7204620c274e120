"""Whether two tokenizers are the same: what is encoded with one is found again by its digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SETTINGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens")
"""What a tokenizer may be told after it was loaded."""

PLACES = frozenset(
    ("name_or_path", "is_local", "local_files_only", "tokenizer_object", "_commit_hash")
)
"""What a tokenizer keeps of where it was loaded from."""


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of everything about a tokenizer that decides texts and ids, and of nothing else: where it
    was loaded from, and what padding or cutting it did last, are no part of it."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    options = {
        name: value
        for name, value in getattr(tokenizer, "init_kwargs", {}).items()
        if name not in PLACES and not name.endswith("_file")
    }
    content = [
        type(tokenizer).__name__,
        {name: part for name, part in backend.items() if name not in ("truncation", "padding")},
        tokenizer.chat_template,
        tokenizer.special_tokens_map,
        sorted(map(str, tokenizer.all_special_tokens)),
        {name: getattr(tokenizer, name, None) for name in SETTINGS},
        options,
    ]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
