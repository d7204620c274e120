"""Which items are a benchmark's own: what is asked under its name may be anybody's prompts.

Published numbers are of the published questions. Those are known here by three bytes each of a digest of
their letters and digits, so that no text of theirs is carried along: one question in some ten thousand
is taken for one of them by chance.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from onestage.rollout.suites import Item

CODE = 4
"""Characters of a digest in the file."""
QUESTION: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "ifeval": lambda facts: facts["prompt"],
    "gsm8k": lambda facts: facts["question"],
    "mt_bench": lambda facts: facts["turns"][0],
    "alpaca_eval": lambda facts: facts["instruction"],
}
"""By suite, the text of an item that was published."""


def count(suite: str, items: Sequence[Item]) -> int | None:
    """How many items are of the benchmark that a suite is named after; None where that is not known."""
    if suite not in QUESTION:
        return None
    known = _known()[suite]
    return sum(code(QUESTION[suite](item.facts)) in known for item in items)


def code(text: str) -> str:
    """A question's place in the file; case, spaces and punctuation may differ."""
    plain = "".join(one for one in text.casefold() if one.isalnum())
    digest = hashlib.blake2b(plain.encode(), digest_size=3).digest()
    return base64.b64encode(digest).decode()


@cache
def _known() -> dict[str, set[str]]:
    text = resources.files(__package__).joinpath("benchmark_items.json").read_text()
    return {
        name: {codes[at : at + CODE] for at in range(0, len(codes), CODE)}
        for name, codes in json.loads(text).items()
    }
