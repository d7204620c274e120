"""The tables of docs/schedules.md and docs/hints.md are what schedules and hints say of themselves."""

from __future__ import annotations

import re

import pytest
from support.tiny import ROOT

from onestage.cli.list import markdown_of


@pytest.mark.parametrize("sort", ["schedules", "hints"])
def test_the_table_is_up_to_date(sort: str) -> None:
    call, text = f"onestage list {sort} --markdown", (ROOT / f"docs/{sort}.md").read_text()
    found = re.search(rf"<!-- begin: {call} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert found
    assert found[1].rstrip("\n") == markdown_of(sort), f"make it anew: {call}"


def test_rows_by_hand() -> None:
    """A rule that holds gradients, one that measures losses, and a hint with its options."""
    rows = {line.split("|")[1].strip(): line for line in markdown_of("schedules").splitlines()}
    assert "| the gradient of each term in memory | `c: 0.4`, `clip: true` |" in rows["`raco`"]
    assert (
        "| forward passes: 0.25 of a batch a term, at most every 10 steps |" in rows["`maxright`"]
    )
    assert "`staged` |" in markdown_of("hints")
    assert "[2505.16984](https://arxiv.org/abs/2505.16984)" in markdown_of("hints")
