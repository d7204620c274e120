"""docs/formats.md lists every format, and what its rows become is what they become."""

from __future__ import annotations

import re

from support.format_rows import PAGE, page
from support.shapes import SHAPES
from support.tiny import ROOT

from onestage.data.formats import names
from onestage.data.rows import record_of
from onestage.data.stream import Stream

ROWS = re.findall(
    r"^\| `(\w+)` \|.*\| ([^|]*) \|$", (ROOT / "docs" / "formats.md").read_text(), re.MULTILINE
)
TABLE = {name: set(re.findall(r"`(\w+)`", becomes)) for name, becomes in ROWS}


def test_formats_are_listed_with_the_kinds_that_they_become() -> None:
    """Those that the page lists, and all that the tests have rows of."""
    assert set(TABLE) <= set(names())
    found: dict[str, set[str]] = {}
    for shape in SHAPES.values():
        kinds = {record_of(row, Stream("x"), "x").kind for row in shape.becomes}
        found.setdefault(shape.form, set()).update(kinds)
    assert {*TABLE} & {*found}
    for name in {*TABLE} & {*found}:
        assert found[name] <= TABLE[name], name


def test_the_rows_shown_of_each_format_are_those_that_the_tests_convert() -> None:
    assert PAGE.read_text() == page(), "make it anew: python tests/support/format_rows.py"
