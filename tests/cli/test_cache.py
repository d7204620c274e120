"""What is kept between runs is shown by its age, and what is old can be removed; it is made again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from support.tiny import write_rows
from typer.testing import CliRunner

from onestage.cli import app
from onestage.data.cached import kept_in, remove
from onestage.data.portions import Arriving, Portions
from onestage.data.store import open_store
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder


def test_what_a_run_that_goes_on_may_open_again_is_left(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"text": f"Text {n}."} for n in range(3)]
    stream = Stream(str(write_rows(tmp_path / "a.jsonl", rows)), portion=1)
    cache, encoder = tmp_path / "cache", Encoder(tokenizer, 64)
    more = Arriving(stream, encoder, cache)
    first = more()
    assert first is not None
    portions = Portions(first, more)
    portions.reach(3)
    open_store(Stream(str(write_rows(tmp_path / "b.jsonl", rows[:1]))), encoder, cache)
    told = said(str(cache), "--older", "0", "--remove")
    assert "3 more are left, which a run that goes on may open again" in told
    assert "removed 1 of 4" in told
    held = list(kept_in(cache))
    assert [portions[n].id for n in range(3)] == [store[0].id for store in portions.stores]
    assert [remove(one) for one in held] == [False] * 3
    del portions
    assert "removed 3 of 3" in said(str(cache), "--older", "0", "--remove")
    assert not [place for place in (cache / "tokens").iterdir() if ".run-" in place.name]


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["cache", *words])
    assert done.exit_code == (1 if "error" in done.output else 0), done.output
    return " ".join(done.output.split())


def test_what_nobody_has_used_for_long_is_removed(tokenizer: Any, tmp_path: Path) -> None:
    cache = tmp_path / "the cache"
    encoder = Encoder(tokenizer, 64)
    streams = [
        Stream(str(write_rows(tmp_path / f"{name}.jsonl", [{"text": f"Text {name}."}])))
        for name in "ab"
    ]
    stores = [open_store(stream, encoder, cache)[0] for stream in streams]
    half = cache / "tokens" / ".killed-1234"
    half.mkdir()
    (half / "tokens.bin").write_bytes(b"1" * 1_000_000)
    (cache / "reference" / "model").mkdir(parents=True)
    then = time.time() - 40 * 86400
    for place in (*(s.folder for s in stores), half, cache / "reference/model"):
        for path in (*place.rglob("*"), place):
            os.utime(path, (then, then))
    old = [one for one in kept_in(cache) if one.place == stores[0].folder]
    assert open_store(streams[0], encoder, cache)[1]  # found, and so it is used
    assert [remove(one) for one in old] == [False]  # since it was looked at
    assert sorted(round(one.idle) for one in kept_in(cache)) == [0, 40, 40, 40]
    told = said(str(cache))
    assert "tokens: encoded data │ 3 │ 1.0 │ 2 │ 1.0 │" in told
    assert "reference: log-probs │ 1 │ 0.0 │ 1 │ 0.0 │" in told
    assert told.endswith(f"next: onestage cache '{cache}' --older 30 --remove")
    assert stores[1].folder.is_dir()
    assert "removed 3 of 4, 1.0 MB" in said(str(cache), "--remove")
    assert [one.place for one in kept_in(cache)] == [stores[0].folder]
    assert not open_store(streams[1], encoder, cache)[1]
    assert open_store(streams[1], encoder, cache)[1]
    assert "give the cache_dir of your recipes" in said(str(tmp_path / "nowhere"))
