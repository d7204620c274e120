"""Reading, encoding and packing, each alone; rows that are given in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from support.tiny import make_tokenizer, write_rows

from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.data.reading import content_key, read
from onestage.data.record import Record, Refusal
from onestage.data.store import open_store, tokenizer_digest
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder, encode

PAIR = {"prompt": "2+2?", "chosen": " 4", "rejected": " 5"}
DEMO = {"prompt": "2+2?", "completion": " 4"}
ROWS = [DEMO, {"prompt": "3+3?"}, PAIR]


def data_set(rows: list[dict[str, Any]]) -> Any:
    datasets = pytest.importorskip("datasets")
    names = {name for row in rows for name in row}
    return datasets.Dataset.from_list([dict.fromkeys(names) | row for row in rows])


def plain(items: Iterator[Record | Refusal]) -> list[Any]:
    return [
        (item.kind, item.prompt, item.completions) if isinstance(item, Record) else item.tie
        for item in items
    ]


def test_a_file_a_list_and_a_data_set_are_read_alike(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    wanted = plain(read(file))
    assert [type(one) for one in wanted] == [tuple, bool, tuple]
    assert plain(read(str(file))) == plain(read(str(tmp_path / "*.jsonl"))) == wanted
    assert plain(read(ROWS)) == plain(read(data_set(ROWS))) == wanted
    assert plain(read(Stream(file))) == wanted


def test_reading_takes_a_streams_options() -> None:
    (record,) = read([{"q": "2+2?", "completion": "4", "score": 3}], columns={"prompt": "q"},
                     score_range=(1, 5), name="mine")  # fmt: skip
    assert isinstance(record, Record)
    assert (record.kind, record.scores, record.id) == ("score", (0.5,), "mine[0]")
    assert len(list(read([DEMO] * 5, limit=2))) == 2


def test_reading_is_lazy() -> None:
    first = next(read([DEMO, None]))
    assert isinstance(first, Record)
    (refusal,) = read([None])
    assert refusal == Refusal("data[0]", "a row must be a dict, found NoneType None")
    with pytest.raises(ValueError, match="the source is empty"):
        list(read([]))


@pytest.mark.parametrize("data", [3, None, b"rows", {"prompt": "2+2?"}, iter([DEMO])])
def test_what_holds_no_rows_is_refused(data: Any) -> None:
    with pytest.raises(ValidationError, match=r"a list of dicts or a datasets\.Dataset, found"):
        Stream(name="s", path=data)


def test_several_splits_are_to_be_chosen_from() -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict({"train": data_set([DEMO]), "test": data_set([DEMO])})
    with pytest.raises(ValueError, match="choose one of its splits, train, test"):
        Stream(both)


def test_options_of_other_places_are_refused() -> None:
    for options in ({"split": "test"}, {"subset": "main"}, {"streaming": True}):
        with pytest.raises(ValueError, match=r"needs a hub.*found <1 rows given in Python"):
            read([DEMO], **options)


def test_a_stream_is_named_after_its_file() -> None:
    assert Stream("some/pairs.train.jsonl", weight=2).name == "pairs"
    assert Stream([DEMO]).name == "data"
    with pytest.raises(ValidationError, match=r"name\n.*Field required"):
        Stream(path="pairs.jsonl")


def test_rows_are_known_by_their_content() -> None:
    key = content_key(Stream([DEMO, PAIR]))
    assert key == content_key(Stream([dict(DEMO), dict(PAIR)]))
    others = [Stream([PAIR, DEMO]), Stream([DEMO]), Stream([DEMO, PAIR], limit=1)]
    others += [Stream([DEMO, PAIR], name="other"), Stream([DEMO, {**PAIR, "weight": 2.0}])]
    assert len({key, *map(content_key, others)}) == 6
    arrays = [Stream([{**DEMO, "nums": np.arange(size)}]) for size in (2000, 2000, 2001)]
    first, again, longer = map(content_key, arrays)
    assert first == again != longer
    assert content_key(Stream(data_set([DEMO]))) == content_key(Stream(data_set([DEMO])))


def test_a_stream_that_cannot_be_known_is_read_anew(tmp_path: Path) -> None:
    stream = Stream(data_set([DEMO]).to_iterable_dataset())
    assert content_key(stream) is None
    tokenizer, folders = make_tokenizer(), []
    for _ in range(2):
        store, known = open_store(stream, Encoder(tokenizer, 64), tmp_path, "t")
        assert (len(store), known) == (1, False)
        folders.append(store.folder)
    other = Stream(data_set([{**DEMO, "completion": " red"}]).to_iterable_dataset())
    folders.append(open_store(other, Encoder(tokenizer, 64), tmp_path, "t")[0].folder)
    # named by what was read, so that a run that goes on knows it again, and kept once
    assert folders[0] == folders[1] != folders[2]
    assert {*(tmp_path / "tokens").iterdir()} == {*folders}


def test_the_store_of_given_rows_is_found_again(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    encoder, digest = Encoder(tokenizer, 64), tokenizer_digest(tokenizer)
    made, known = open_store(Stream([DEMO, PAIR]), encoder, tmp_path, digest)
    assert not known
    again, known = open_store(Stream([DEMO, PAIR]), encoder, tmp_path, digest)
    assert known
    assert again.folder == made.folder


def test_what_a_recipe_keeps_of_given_rows_is_readable_and_refused_as_a_path() -> None:
    stream = Stream([DEMO, PAIR], eval_path=[DEMO])
    told = yaml.safe_load(yaml.safe_dump(stream.model_dump(mode="json", exclude_unset=True)))
    assert told["path"].startswith("<2 rows given in Python, digest ")
    assert told["eval_path"].startswith("<1 rows given in Python, digest ")
    again = Stream(**told)
    for use in (read, content_key):
        with pytest.raises(
            ValueError, match=r"^<2 rows .* are on no disk: give the same rows"
        ) as e:
            use(again)
        assert "\n" not in str(e.value)
    assert Stream(**stream.model_dump(exclude_unset=True)) == stream


def test_held_out_rows_are_a_stream_too() -> None:
    stream = Stream("o/n", eval_split="test", limit=5, eval_limit=2, columns={"prompt": "q"})
    held_out = stream.held_out
    assert held_out is not None
    assert (held_out.path, held_out.split, held_out.limit) == ("o/n", "test", 2)
    assert held_out.names["q"] == "prompt"
    assert Stream("o/n").held_out is None


def test_encoding_and_packing_keep_what_they_refuse() -> None:
    tokenizer = make_tokenizer()
    long = {"prompt": "2+2?", "completion": " 4" * 50}
    items = list(encode(read([*ROWS, long]), tokenizer, max_length=30))
    assert [type(item) for item in items] == [Encoded, Refusal, Encoded, Refusal]
    batch = pack_records(items)
    assert [record.kind for record in batch.records] == ["demonstration", "pair"]
    assert batch.refused == (items[1], items[3])
    assert batch.first == (0, 1)
    assert sorted(n for row in batch.rows for n in row.records) == [0, 1]
    kept = encode(read([long]), tokenizer)
    assert isinstance(next(kept), Encoded)


def test_packing_takes_an_iterator_and_a_budget() -> None:
    records = encode(
        read([{"prompt": f"{n} ", "completion": "x"} for n in range(40)]), make_tokenizer()
    )
    batch = pack_records(records, tokens_per_row=32)
    assert len(batch.records) == 40
    assert max(len(row) for row in batch.rows) <= 32
