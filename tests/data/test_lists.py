"""Lists of JSON read one element at a time: what Python's own parser makes of all of it at once."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data import lists
from onestage.data.lists import elements
from onestage.data.reading import read
from onestage.data.record import Record

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def parsed(content: bytes, at_once: int = 1, longest: int = 1 << 20) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "START", at_once)
        return list(elements(io.BytesIO(content), dict, longest))


@settings(max_examples=40, deadline=None)
@given(st.lists(ANY, max_size=4), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_elements_are_those_of_the_whole(
    rows: list[Any], indent: int | None, ascii: bool, at_once: int
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii) + "\n "
    assert parsed(text.encode("utf-8", "surrogatepass"), at_once) == rows


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "[1", "[1,", '[{"a": 1}, {"b"', "[1] 2", "[tru]", '["a'),
        *('[{"text": "x"} {"text": "y"}]', '[\n {"a": 1},\n {"b": }\n]', '{"a": 1}', "[1 2]"),
    ],
)
def test_what_is_no_list_is_told_in_the_parsers_words(text: str) -> None:
    if text != '{"a": 1}':
        with pytest.raises(ValueError) as known:
            json.loads(text)
        wanted = str(known.value)
    else:
        wanted = "Expecting value: line 1 column 1 (char 0)"
    for at_once in (1, 3, 1000):
        with pytest.raises(ValueError) as told:
            parsed(text.encode(), at_once)
        assert str(told.value) == wanted


def test_the_search_for_an_end_has_one() -> None:
    with pytest.raises(ValueError, match=r"Unterminated string.*char 5"):
        parsed(b"[[], " + b'"' + b"x" * 10_000, longest=100)


def test_a_long_list_is_read_in_bounded_memory(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{number}", "completion": "so it is " * 40} for number in range(3000)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    del rows
    tracemalloc.start()
    count = sum(isinstance(item, Record) for item in read(str(tmp_path / "rows.json")))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3000
    assert most < (tmp_path / "rows.json").stat().st_size / 2
