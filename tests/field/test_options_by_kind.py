"""Every option of a stream, and of how rows are encoded, with every kind: it acts, or is refused.

What an option does to a kind stands in `TABLE`; a pair that is not there does not pass unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.tiny import make_tokenizer, write_rows

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.data.kinds import FEEDBACK, KINDS
from onestage.data.reading import read
from onestage.data.record import Record, Refusal
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.training.build import Draft
from onestage.training.read import Data, check_options, check_problems, read_data
from onestage.training.recipe import parse_recipe
from onestage.training.terms import feedback_of

LONG = "one two three four five six seven eight nine ten " * 5
ROWS: dict[str, list[dict[str, Any]]] = {
    "demonstration": [{"prompt": LONG, "completion": " hello there"}],
    "score": [{"prompt": LONG, "completion": " hello", "score": 0.5}],
    "label": [{"prompt": LONG, "completion": " hello", "label": True}],
    "pair": [{"prompt": LONG, "chosen": " hello", "rejected": " no"}],
    "group": [{"prompt": LONG, "completions": [" yes", " no"], "scores": [0.5, 0.25]}],
    "text": [{"text": LONG}],
    "check": [{"prompt": LONG, "solution": ["Good morning.", " It is 4."], "answer": "4"}],
}
TOKENIZER = make_tokenizer()


def stores(rows: list[dict[str, Any]], folder: Path, how: Any = None, **options: Any) -> Data:
    """As a run reads them; RecipeError or ValueError where an option is refused."""
    stream = Stream(rows, name="rows", **options)
    how = {"max_length": 200, **(how or {})}
    data = read_data([stream], [], Encoder(TOKENIZER, **how), folder, lambda line: None)
    check_options(data, [stream])
    return data


def content(data: Data) -> list[Any]:
    """All that training sees of the records, and what was left out."""
    store = data.train["rows"]
    return [(store.table.refused, store.table.cut), *(_seen(record) for record in store)]


def _seen(record: Encoded) -> Any:
    paths = [(path.ids.tolist(), path.spans) for path in record.paths]
    scores = [None if math.isnan(score) else score for score in record.scores]
    return record.kind, paths, scores, record.weight, record.id, record.cut, record.about


def rows_of(kind: str) -> list[dict[str, Any]]:
    return [dict(row) for row in ROWS[kind]] * 2


def renamed(kind: str) -> list[dict[str, Any]]:
    """The first column of each row under another name."""
    return [{"other" if n == 0 else k: v for n, (k, v) in enumerate(row.items())}
            for row in rows_of(kind)]  # fmt: skip


CHANGED: dict[str, Callable[[str], tuple[list[dict[str, Any]], dict[str, Any]]]] = {
    # option: (rows, what the stream and "how" the encoder are told), for a kind
    "limit": lambda kind: (rows_of(kind), {"limit": 1}),
    "columns": lambda kind: (renamed(kind), {"columns": {next(iter(ROWS[kind][0])): "other"}}),
    "as_messages": lambda kind: (rows_of(kind), {"as_messages": True}),
    "score_range": lambda kind: (rows_of(kind), {"score_range": (-1, 1)}),
    "ratings": lambda kind: (
        [{**row, "good": 0.25} for row in rows_of(kind)],
        {"ratings": {"good": 1.0}},
    ),
    "kind": lambda kind: (rows_of(kind), {"kind": kind}),
    "max_length": lambda kind: (rows_of(kind), {"how": {"max_length": 40}}),
    "overflow": lambda kind: (
        rows_of(kind),
        {"how": {"max_length": 40, "overflow": "truncate_prompt"}},
    ),
    "room": lambda kind: (rows_of(kind), {"reward": "match", "how": {"room": 190}}),
    "row weight": lambda kind: ([{**row, "weight": 3.0} for row in rows_of(kind)], {}),
    "row id": lambda kind: ([{**row, "id": f"mine{n}"} for n, row in enumerate(rows_of(kind))], {}),
    "row tools": lambda kind: ([{**row, "tools": [{"name": "add"}]} for row in rows_of(kind)], {}),
    "row chat_template_kwargs": lambda kind: (
        [{**row, "chat_template_kwargs": {"think": False}} for row in rows_of(kind)],
        {},
    ),
    "unlabelled": lambda kind: (
        [
            dict.fromkeys(FEEDBACK[kind].reads[:1]) | {"prompt": LONG, "completion": " yes"},
            *rows_of(kind),
        ],
        {"unlabelled": "demonstration"},
    ),
}
"""`columns` and `kind` must change nothing: the same rows under other names, the same kind said."""

SAME = {"columns", "kind"}
EVERY = frozenset(KINDS)
ANSWERED = EVERY - {"check"}
TABLE: dict[str, dict[str, frozenset[str] | set[str]]] = {
    "limit": {"changes": EVERY},
    "columns": {"changes": EVERY},
    "as_messages": {"changes": EVERY - {"text"}, "refused": {"text"}},
    "score_range": {"changes": {"score", "group"}, "refused": EVERY - {"score", "group"}},
    "ratings": {
        # a label says another thing, so a row with both must say its kind
        "changes": {"demonstration", "score"},
        "bad rows": {"label"},
        "refused": {"pair", "group", "text", "check"},
    },
    "kind": {"changes": EVERY},
    "max_length": {"changes": EVERY},
    "overflow": {"changes": EVERY - {"text"}, "windows": {"text"}},
    "room": {"changes": {"check"}, "refused": ANSWERED},
    "row weight": {"changes": EVERY},
    "row id": {"changes": EVERY},
    "row tools": {"bad rows": EVERY},
    "row chat_template_kwargs": {"bad rows": EVERY},
    # of a kind without a column of judgement, there is nothing that could be null
    "unlabelled": {"changes": {"score", "label"}, "nothing": EVERY - {"score", "label"}},
}
CASES = [
    (option, kind, what) for option, told in TABLE.items() for what in told for kind in told[what]
]


def test_the_table_has_every_pair() -> None:
    assert set(TABLE) == set(CHANGED)
    for option, told in TABLE.items():
        listed = [kind for kinds in told.values() for kind in kinds]
        assert sorted(listed) == sorted(KINDS), option


@pytest.mark.parametrize(("option", "kind", "what"), sorted(CASES))
def test_an_option_changes_what_it_says_or_is_refused(
    option: str, kind: str, what: str, tmp_path: Path
) -> None:
    if what == "nothing":
        return
    rows, told = CHANGED[option](kind)
    how = told.pop("how", {})
    limits = {key: value for key, value in how.items() if key == "max_length"}
    if what == "refused" and option == "room":
        recipe = {"model": "absent", "data": [{"name": "rows", "path": rows, **told}]}
        data = stores(rows, tmp_path, {}, **told)
        streams = parse_recipe(recipe).data
        with pytest.raises(RecipeError, match="has a reward but no problem"):
            check_problems(data, streams)
        return
    if what == "refused":
        with pytest.raises(RecipeError, match=f"{option} changes nothing for {kind} records"):
            stores(rows, tmp_path, how, **told)
        return
    found = stores(rows, tmp_path, how, **told)
    if what == "bad rows":
        assert not len(found.train["rows"])
        assert found.train["rows"].table.refused == len(rows)
        return
    plain = {key: value for key, value in told.items() if key != option}
    plain.pop("columns", None)
    without = {} if option in ("max_length", "room") else limits
    before = stores(rows if option not in SAME else rows_of(kind), tmp_path / "b", without, **plain)
    if option.startswith("row "):
        before = stores(rows_of(kind), tmp_path / "c")
    if option in SAME or what == "windows":
        assert _without_facts(content(found)) == _without_facts(content(before))
    else:
        assert content(found) != content(before)


def _without_facts(seen: list[Any]) -> list[Any]:
    """Facts keep the names of columns."""
    return [one[:6] if len(one) > 2 else one for one in seen]


@pytest.mark.parametrize("kind", sorted(ANSWERED))
def test_overflow_cuts_the_prompt_of_every_kind_and_counts_it(kind: str, tmp_path: Path) -> None:
    dropped = stores(ROWS[kind], tmp_path, {"max_length": 40}).train["rows"].table
    cut = stores(ROWS[kind], tmp_path, {"max_length": 40, "overflow": "truncate_prompt"})
    if kind == "text":
        assert (dropped.refused, dropped.total) == (0, cut.train["rows"].table.total)
        return
    assert (dropped.refused, dropped.overlong, dropped.total) == (1, 1, 0)
    table = cut.train["rows"].table
    assert (table.refused, table.cut, table.total) == (0, 1, 1)


@pytest.mark.parametrize("kind", sorted(ANSWERED))
def test_a_row_weight_reaches_the_feedback_of_every_kind(kind: str, tmp_path: Path) -> None:
    rows = [{**row, "weight": 3.0} for row in ROWS[kind]]
    feedback = feedback_of(list(stores(rows, tmp_path).train["rows"]))
    assert set(feedback.weight_N.tolist()) == {3.0}


def test_pair_scores_have_a_range(tmp_path: Path) -> None:
    rows = [{**ROWS["pair"][0], "chosen_score": 5, "rejected_score": 1}]
    (record,) = stores(rows, tmp_path, score_range=(1, 5)).train["rows"]
    assert record.scores == (1.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hint_needs_a_solution(kind: str, tmp_path: Path) -> None:
    rows = rows_of(kind)
    if kind == "check":
        assert len(stores(rows, tmp_path, reward="match", hint="cosine").train["rows"])
        rows = [{"prompt": "2+2?", "answer": "4"}]
    with pytest.raises(RecipeError, match="hint changes nothing"):
        stores(rows, tmp_path / "b", reward="match", hint="cosine")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_no_row_has_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"columns: \{label: thumb\}: no row has a column"):
        stores(rows_of(kind), tmp_path, columns={"label": "thumb"})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"weight": 1, "per_step": 2}, "weight or per_step"),
        ({"eval_limit": 3}, "eval_limit needs"),
    ],
)
def test_options_that_exclude_or_need_each_other(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Stream(ROWS["pair"], **options)


@pytest.mark.parametrize("kind", sorted(ANSWERED))
def test_evaluation_options_reach_every_kind(kind: str, model_folder: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows_of(kind) * 2)
    recipe: dict[str, Any] = {
        "model": {"name": str(model_folder)},
        "data": {"rows": {"path": str(path), "eval_path": str(path), "eval_limit": 3}},
        "cache_dir": str(tmp_path / "cache"),
    }
    draft = Draft(parse_recipe(recipe))
    draft.read(lambda line: None)
    assert (len(draft.stores.train["rows"]), len(draft.stores.held_out["rows"])) == (4, 3)


def test_tools_beside_text_are_taken_where_it_becomes_messages() -> None:
    row = {**ROWS["demonstration"][0], "tools": [{"name": "add"}]}
    (record,) = read([row], as_messages=True)
    assert isinstance(record, Record)
    assert record.template == {"tools": [{"name": "add"}]}
    (refused,) = read([{**ROWS["text"][0], "tools": [{"name": "add"}]}], as_messages=True)
    assert isinstance(refused, Refusal)
    (empty,) = read([{**ROWS["demonstration"][0], "tools": []}])
    assert isinstance(empty, Record)


@pytest.mark.parametrize("option", [{"weight": 1}, {"reward": "match"}, {"feedback": "pair"}])
def test_what_is_only_watched_takes_no_option_of_training(option: dict[str, Any]) -> None:
    recipe = {
        "model": "absent",
        "data": [{"name": "rows", "path": "rows.jsonl"}],
        "probe": {"retention": [{"name": "kept", "path": "kept.jsonl", **option}]},
    }
    with pytest.raises(RecipeError, match="would do nothing"):
        parse_recipe(recipe)
