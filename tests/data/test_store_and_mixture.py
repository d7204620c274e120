"""Stores on disk and the order in which records are drawn from them."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny import token_path

from onestage.data.encoded import Encoded
from onestage.data.feeds import Feeds
from onestage.data.inspect import balance
from onestage.data.mixture import MixedStream, Mixture, order, shares
from onestage.data.packing import pack_records
from onestage.data.record import Refusal
from onestage.data.store import Store, write


def record(number: int, kind: str = "demonstration", source: str = "s") -> Encoded:
    scores = {"label": (1.0,), "pair": (float("nan"),) * 2}.get(kind, (float("nan"),))
    paths = tuple(
        token_path([0, 5, 6, 7 + n, number % 90 + 10], (2, 4), responses=(n,))
        for n in range(len(scores))
    )
    return Encoded(kind, paths, scores, 1.0 + number, source, f"file:{number}")  # type: ignore[arg-type]


def store_of(folder: Path, size: int, name: str = "s") -> Store:
    return write((record(n, source=name) for n in range(size)), name, folder)


def test_a_store_gives_back_what_was_written(tmp_path: Path) -> None:
    items = [record(0), record(1, "pair"), Refusal("f:3", "bad"), record(2, "label")]
    store = write(items, "s", tmp_path / "store")
    assert len(store) == 3
    wanted = [item for item in items if isinstance(item, Encoded)]
    for number, want in enumerate(wanted):
        got = store[number]
        assert (got.kind, got.weight, got.id, got.cut) == (
            want.kind,
            want.weight,
            want.id,
            want.cut,
        )
        np.testing.assert_equal(got.scores, want.scores)
        for left, right in zip(got.paths, want.paths, strict=True):
            assert left.ids.tolist() == right.ids.tolist()
            assert (left.spans, left.responses) == (right.spans, right.responses)
    assert {kind: store.numbers([kind]).tolist() for kind in store.counts()} == {
        "demonstration": [0],
        "label": [2],
        "pair": [1],
    }
    assert store.lengths().tolist() == [5, 10, 5]
    assert store.table.records == {"demonstration": 1, "pair": 1, "label": 1}
    assert (store.table.refused, store.table.reasons) == (1, ["f:3: bad"])


def test_a_store_is_whole_or_absent(tmp_path: Path) -> None:
    def broken():
        yield record(0)
        raise RuntimeError("the reader fails")

    with pytest.raises(RuntimeError, match="the reader fails"):
        write(broken(), "s", tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_the_order_is_a_function_of_seed_stream_and_epoch() -> None:
    first = order(1, "a", 0, 50)
    assert sorted(first) == list(range(50))
    assert first.tolist() == order(1, "a", 0, 50).tolist()
    for other in (order(2, "a", 0, 50), order(1, "b", 0, 50), order(1, "a", 1, 50)):
        assert other.tolist() != first.tolist()


def test_in_proportion_every_record_is_seen_once_an_epoch(tmp_path: Path) -> None:
    sizes = {"a": 17, "b": 5, "c": 30}
    stores = {name: store_of(tmp_path / name, size, name) for name, size in sizes.items()}
    part = shares(sizes, dict.fromkeys(sizes), dict.fromkeys(sizes), 8)
    streams = [MixedStream(name, stores[name], part[name]) for name in sizes]
    mixture = Mixture(streams, 0, dict(sizes))
    drawn = [mixture.draw(step) for step in range(7)]  # 52 records: six steps of 8 and one of 4
    assert [len(records) for records in drawn] == [8] * 6 + [4]
    seen = Counter((r.source, r.id) for records in drawn for r in records)
    assert set(seen.values()) == {1}
    assert len(seen) == 52


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.05, 9), min_size=1),
    st.integers(1, 40),
    st.integers(0, 300),
)
def test_taking_is_even_and_adds_up(parts: dict[str, float], batch: int, step: int) -> None:
    total = sum(parts.values())

    class Sized:
        def __len__(self) -> int:
            return 7

    streams = [MixedStream(n, Sized(), batch * p / total) for n, p in parts.items()]  # type: ignore[arg-type]
    mixture = Mixture(streams, 0)
    take = mixture.take(step)
    assert sum(take.values()) == batch
    for stream in streams:
        exact, count = stream.share * step, len(streams)
        off = abs(mixture.until(step)[stream.name] - exact)
        assert off <= 0.5 + stream.share / batch * count / 2 + 1e-6
        assert take[stream.name] >= 0


@given(
    st.lists(st.sampled_from([0.05, 0.5, 1.0, 1 / 3, 2.0, 9.0]), min_size=1, max_size=12),
    st.integers(0, 6),
)
@settings(deadline=None)
def test_records_are_taken_in_the_order_in_which_they_fall_due(
    parts: list[float], step: int
) -> None:
    """The k-th record of a stream is due at (k - 1/2) / part, ties by name: all written out, sorted."""
    streams = [MixedStream(f"s{n}", None, part) for n, part in enumerate(parts)]  # type: ignore[arg-type]
    shares = {stream.name: Fraction(stream.share) for stream in streams}
    wanted = round(sum(shares.values()) * step)
    due = [((k - Fraction(1, 2)) / p, n) for n, p in shares.items() for k in range(1, wanted + 1)]
    taken = Counter(name for _, name in sorted(due)[:wanted])
    assert Mixture(streams, 0).until(step) == {name: taken[name] for name in shares}


def test_a_step_of_many_streams_orders_none_of_them_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[tuple[str, int]] = Counter()

    def counted(seed: int, stream: str, epoch: int, size: int) -> Any:
        made[stream, epoch] += 1
        return order(seed, stream, epoch, size)

    monkeypatch.setattr("onestage.data.mixture.order", counted)
    store = store_of(tmp_path / "store", 10)
    mixture = Mixture([MixedStream(f"s{n}", store, 0.3) for n in range(50)], 0)
    assert sum(len(mixture.draw(step)) for step in range(60)) == 900
    assert set(made.values()) == {1}  # 18 records each: two epochs


def test_shares() -> None:
    none = {"a": None, "b": None}
    assert shares({"a": 30, "b": 10}, none, none, 8) == {"a": 6.0, "b": 2.0}
    assert shares({"a": 30, "b": 10}, {"a": 1, "b": 3}, none, 8) == {"a": 2.0, "b": 6.0}
    assert shares({"a": 30, "b": 10}, {"a": 3, "b": None}, none, 8) == {"a": 6.0, "b": 2.0}
    assert shares({"a": 30, "b": 10}, none, {"a": 3, "b": None}, 8) == {"a": 3.0, "b": 5.0}
    assert shares({"a": 30, "b": 10}, none, {"a": 3, "b": 5}, 8) == {"a": 3.0, "b": 5.0}


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ({"a": 0, "b": 0}, {"a": None, "b": None}, "add up to nothing"),
        ({"a": None, "b": None}, {"a": 9, "b": None}, "do not fit batch_size 8"),
        ({"a": None, "b": None}, {"a": 3, "b": 4}, "do not fit batch_size 8"),
        ({"a": None, "b": None}, {"a": 8, "b": None}, "do not fit batch_size 8"),
    ],
)
def test_bad_shares_are_refused(weights: dict, counts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shares({"a": 30, "b": 10}, weights, counts, 8)


def feeds_of(tmp_path: Path) -> Feeds:
    long = store_of(tmp_path / "a", 11)
    short = write((record(50 + n) for n in range(3)), "s", tmp_path / "b")
    own = {
        "x": Mixture([MixedStream("a", long, 4.0)], 3),
        "y": Mixture([MixedStream("b", short, 2.0)], 3),
    }
    return Feeds(own, measure_fraction=0.5)


def names(records: list[Encoded]) -> list[str]:
    return [record.id for record in records]


def test_every_term_walks_at_its_own_pace(tmp_path: Path) -> None:
    """Unequal lengths are no trouble, an idle term draws nothing, and nothing drawn is lost."""
    feeds = feeds_of(tmp_path)
    drawn = [names(feeds.draw([term])) for term in "xyyyxxy"]
    assert [len(part) for part in drawn] == [4, 2, 2, 2, 4, 4, 2]
    alone = feeds_of(tmp_path)
    assert [drawn[0], drawn[4], drawn[5]] == [names(alone.draw(["x"])) for _ in range(3)]
    seen = [name for place in (1, 2, 3, 6) for name in drawn[place]]
    assert sorted(seen[:3]) == sorted(seen[3:6]) == sorted(set(seen))  # whole epochs of 3
    assert len(names(alone.draw(["y", "x"]))) == 6


def test_looking_changes_no_draw(tmp_path: Path) -> None:
    feeds, other = feeds_of(tmp_path), feeds_of(tmp_path)
    ahead = names(feeds.to_measure(["x"], next_batch=True))
    apart = [names(feeds.to_measure(["x", "y"], next_batch=False)) for _ in range(4)]
    assert all(len(part) == 3 for part in apart)  # half of 4 and half of 2
    assert len({tuple(part) for part in apart}) > 1
    assert ahead == names(feeds.draw(["x"])) == names(other.draw(["x"]))
    assert feeds.measured == {"x": 4, "y": 4}


def test_a_look_has_at_least_one_record(tmp_path: Path) -> None:
    feeds = Feeds(feeds_of(tmp_path).own, measure_fraction=0.01)
    assert [len(feeds.to_measure(["x"], next_batch=False)) for _ in range(8)] == [1] * 8


def test_feeds_go_on_from_their_state(tmp_path: Path) -> None:
    whole, first, later = (feeds_of(tmp_path) for _ in range(3))
    for feeds in (whole, first):
        feeds.draw(["x"]), feeds.to_measure(["y"], next_batch=False), feeds.draw(["y", "x"])
    later.restore(json.loads(json.dumps(first.state())))
    for _ in range(3):
        assert names(whole.draw(["x"])) == names(later.draw(["x"]))
        assert names(whole.to_measure(["y"], next_batch=False)) == names(
            later.to_measure(["y"], next_batch=False)
        )


@given(st.integers(0, 9), st.integers(0, 5), st.integers(0, 3))
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_planned_covers_whatever_is_drawn(
    tmp_path: Path, draws: int, looks: int, probes: int
) -> None:
    feeds = feeds_of(tmp_path)
    planned = {
        record.id
        for part in feeds.planned({"x": draws, "y": 1}, {"x": looks}, probes)
        for record in part
    }
    visited = [record for _ in range(draws) for record in feeds.draw(["x"])] + feeds.draw(["y"])
    visited += [
        record for _ in range(looks) for record in feeds.to_measure(["x"], next_batch=False)
    ]
    visited += [record for number in range(probes) for record in feeds.probe(["x", "y"], number)]
    assert planned == set(names(visited))


def test_a_batch_numbers_its_responses_through() -> None:
    batch = pack_records([record(0), record(1, "pair")], 100)
    assert batch.first == (0, 1)


def test_balance() -> None:
    found = balance(np.array([0.0, 1.0, 0.8, np.nan]))
    assert found == {
        "count": 3,
        "mean": pytest.approx(0.6),
        "min": 0,
        "max": 1,
        "above_half": pytest.approx(2 / 3),
    }
    assert balance(np.array([np.nan])) == {"count": 0}
