"""Rows, and files of them read again, for the tests of readers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onestage.data.reading import read
from onestage.data.record import Record, Refusal
from onestage.data.stream import Stream

PLAIN = Stream("plain")
USER = {"role": "user", "content": "2+2?"}
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}
WHY = {"role": "user", "content": "Why?"}
DEMO = {"prompt": "2+2?", "completion": "4"}
PAIR = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}
GROUP = {"prompt": "2+2?", "completions": ["4", "5"], "scores": [1.0, 0.0]}


def lines_of(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_all(path: Path | str, **options) -> list[Record | Refusal]:
    return list(read(path, name="plain", **options))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def put(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return put
