"""docs/questions.md answers every thread that was collected."""

from __future__ import annotations

import re

import pytest
from support.tiny import ROOT, SHARED

COLLECTED = {"field_2026_11.md": ("## 4.", "## 5."), "peers.md": ("## 2. ", "## 3. ")}


@pytest.mark.parametrize("name", COLLECTED)
def test_every_thread_is_answered(name: str) -> None:
    file = SHARED / "reference" / name
    if not file.is_file():
        pytest.skip("the collection is not here")
    text, answered = file.read_text(), (ROOT / "docs" / "questions.md").read_text()
    start, end = COLLECTED[name]
    rows = text[text.index(start) : text.index(end)].splitlines()
    threads = [row.split("|")[1] for row in rows if row.startswith("|")]
    numbers = {number for thread in threads for number in re.findall(r"#(\d+)", thread)}
    assert len(numbers) > 40
    missing = {n for n in numbers if not re.search(rf"#{n}\b", answered)}
    assert not missing
