"""Tables of pages say what plug-ins say of themselves: each line that is there, not that all are.

So a new plug-in is one file and its test; `make tables` writes its line, and the site has it anyway.
"""

from __future__ import annotations

import pytest
from support.tiny import ROOT

from onestage.cli._told import MARKED, filled, parts_of
from onestage.objectives import PLUGINS, make

PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if MARKED.search(page.read_text()))


def wrong_lines(page: str) -> list[str]:
    """Lines of tables that no plug-in says, or that stand in another order."""
    wrong = []
    for _, sort, part, table, _ in MARKED.findall(page):
        known = parts_of(sort)[part].splitlines()
        there = [known.index(line) if line in known else -1 for line in table.splitlines()]
        lines = zip(table.splitlines(), there, sorted(there), strict=True)
        wrong += [line for line, at, should in lines if at < 0 or at != should]
        wrong += [] if table.splitlines()[:2] == known[:2] else [f"{sort}: the head"]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_line_is_its_plugins(page: object) -> None:
    assert not wrong_lines(page.read_text()), "make tables"  # type: ignore[attr-defined]


def test_the_pages_have_every_sort_that_is_trained_with() -> None:
    told = {sort for page in PAGES for _, sort, *_ in MARKED.findall(page.read_text())}
    assert {"objectives", "schedules", "hints", "rewards", "suites"} <= told


def test_a_line_may_be_missing_and_none_may_be_wrong() -> None:
    """A new plug-in has no line yet; a changed or a removed one has a wrong one."""
    call = "<!-- begin: onestage list hints --markdown -->\n"
    whole = filled(f"Hints.\n\n{call}<!-- end -->\nMore.")
    assert whole == filled(whole) == f"Hints.\n\n{call}{parts_of('hints')['']}\n<!-- end -->\nMore."
    assert not wrong_lines(whole)
    line = next(one for one in whole.splitlines() if one.startswith("| `cosine`"))
    assert not wrong_lines(whole.replace(f"{line}\n", ""))
    assert wrong_lines(whole.replace("`low: 0.05`", "`low: 0.06`"))
    assert wrong_lines(whole.replace("`cosine`", "`cosinus`"))
    assert filled(whole.replace(f"{line}\n", "")) == whole


def test_rows_by_hand() -> None:
    """What DPO is and costs: the reference's pass is made once. A rule that holds gradients, one that
    measures losses, and a hint with its options."""
    objectives, schedules = parts_of("objectives"), parts_of("schedules")[""]
    assert (
        "| `dpo` | pair | pair | logp, reference | 1 + reference once | "
        "`beta: 0.1`, `label_smoothing: 0.0` | [2305.18290](https://arxiv.org/abs/2305.18290) |"
    ) in objectives[""].splitlines()
    assert "| `rloo` | S(A), A = R_i - mean of the others" in objectives["sampled"]
    assert "| `uft` = `una` |" in objectives["data"]
    assert "| `bradley_terry` |" in objectives["rewards"]
    assert "| the gradient of each term in memory | `c: 0.4`, `clip: true` |" in schedules
    assert "| forward passes: 0.25 of a batch a term, at most every 10 steps |" in schedules
    assert "[2505.16984](https://arxiv.org/abs/2505.16984)" in parts_of("hints")[""]


OURS = sorted({*PLUGINS.built_in()} - {*PLUGINS.aliases})


@pytest.mark.parametrize("name", OURS)
def test_a_paper_is_named_in_the_docstring_too(name: str) -> None:
    made = make(name)
    assert made.paper in (__import__(type(made).__module__, fromlist=["x"]).__doc__ or "")
