"""The table of docs/objectives.md is what the objectives say of themselves."""

from __future__ import annotations

import re

import pytest
from support.tiny import ROOT

from onestage.cli.list import markdown_of
from onestage.objectives import PLUGINS, make

PAGE = ROOT / "docs" / "objectives.md"
CALL = "onestage list objectives --markdown"


def published() -> str:
    found = re.search(rf"<!-- begin: {CALL} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1].rstrip("\n")


def test_the_table_is_up_to_date() -> None:
    assert published() == markdown_of("objectives"), f"make it anew: {CALL}"


def test_a_row_by_hand() -> None:
    """What DPO is, and what it costs: the reference's pass is made once."""
    row = next(line for line in published().splitlines() if line.startswith("| `dpo` |"))
    assert row == (
        "| `dpo` | pair | pair | logp, reference | 1 + reference once | "
        "`beta: 0.1`, `label_smoothing: 0.0` | "
        "[2305.18290](https://arxiv.org/abs/2305.18290) |"
    )


@pytest.mark.parametrize("name", sorted(set(PLUGINS.built_in()) - {"sft"}))
def test_each_has_a_paper_that_its_docstring_names(name: str) -> None:
    """Likelihood is nobody's; all others were published."""
    made = make(name)
    assert made.paper
    assert made.paper in (__import__(type(made).__module__, fromlist=["x"]).__doc__ or "")


@pytest.mark.parametrize("name", sorted(PLUGINS.built_in()))
def test_each_has_its_line_of_equations(name: str) -> None:
    """A row of the hand-written tables says what the generated one cannot: the loss."""
    text = PAGE.read_text().replace(published(), "")
    assert re.search(rf"^\| (?:`\w+`[ =,]*)*`{name}`", text, re.MULTILINE)
