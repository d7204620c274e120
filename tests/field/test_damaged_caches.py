"""Whatever is damaged in a cache, a run comes to the result that it has without one, and says so."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny import make_tokenizer
from tokenizers import AddedToken, normalizers

from bench.trust.caches import CACHES, DAMAGES, SEAL, World, at_once, files_of, flip
from onestage.data import kept
from onestage.data.digests import tokenizer_digest
from onestage.data.encoded import Encoded
from onestage.data.store import open_store
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.runfolder.seal import damage

ROWS = [
    {"prompt": "2 + 2 =", "completion": f" {n}", "score": n / 9, "weight": n + 1} for n in range(9)
]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path, str]:
    world = World(tmp_path_factory.mktemp("world"))
    whole = world.folder / "whole"
    wanted, _ = world.run(whole)
    return world, whole, wanted


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("cache", CACHES)
def test_a_run_with_a_damaged_cache_is_as_one_without(
    cache: str, damage: str, there: tuple[World, Path, str]
) -> None:
    world, whole, wanted = there
    damaged = world.folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(whole, damaged)
    files = [file for file in files_of(damaged / cache) if file.stat().st_size]
    file = random.Random(f"{cache} {damage}").choice(files)
    DAMAGES[damage](file)
    got, said = world.run(damaged)
    assert got == wanted
    told = [line for line in said if "damaged" in line]
    # reference entries that are not there are computed, as those of a first run are
    assert len(told) == (0 if (cache, damage) == ("reference", "missing") else 1)
    got, said = world.run(damaged)
    assert got == wanted
    assert not any("damaged" in line or "computed anew" in line for line in said)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("what", ["a file in place of the folder", "a folder that is gone"])
def test_whole_folders_of_a_cache(cache: str, what: str, there: tuple[World, Path, str]) -> None:
    world, whole, wanted = there
    damaged = world.folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(whole, damaged)
    for folder in sorted((damaged / cache).iterdir()):
        if folder.is_dir():
            shutil.rmtree(folder)
            if what.startswith("a file"):
                folder.write_text("no folder")
    got, said = world.run(damaged)
    assert got == wanted
    assert any("damaged" in line for line in said) == what.startswith("a file")


@pytest.mark.parametrize("room", ["", *CACHES])
def test_a_cache_that_cannot_be_used_is_told_and_replaced(
    room: str, there: tuple[World, Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world, _, wanted = there
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broken = tmp_path / "cache" / room
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("no folder")
    got, said = world.run(tmp_path / "cache")
    assert got == wanted
    assert sum("cannot be used" in line for line in said) >= 1
    assert broken.read_text() == "no folder"


def test_runs_at_once_share_a_cache(there: tuple[World, Path, str], tmp_path: Path) -> None:
    world, whole, wanted = there
    assert at_once(world, tmp_path / "empty", 3) == {wanted: 3}
    shutil.copytree(whole, tmp_path / "damaged")
    for seal in (tmp_path / "damaged").rglob(SEAL):
        flip(seal, 0.5)
    assert at_once(world, tmp_path / "damaged", 3) == {wanted: 3}
    left = [file.name for file in tmp_path.rglob(".*") if not file.name.endswith(".lock")]
    assert left == []  # no drafts


def content(store: Any) -> list[Any]:
    def seen(record: Encoded) -> Any:
        paths = [(path.ids.tolist(), path.spans, path.responses) for path in record.paths]
        return record.kind, paths, record.scores, record.weight, record.id, record.about

    return [store.table, *(seen(record) for record in store)]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    where=st.floats(0, 1),
    which=st.integers(0, 1000),
    how=st.sampled_from(["flip", "cut", "gone", "swap"]),
)
def test_any_damage_to_a_store_gives_the_same_records(
    where: float, which: int, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, said = tmp_path_factory.mktemp("cache"), []
    stream, encoder = Stream(ROWS, name="rows"), Encoder(make_tokenizer(), 64)
    made, _ = open_store(stream, encoder, folder, "digest")
    wanted = content(made)
    files = [file for file in files_of(made.folder) if file.stat().st_size]
    file = files[which % len(files)]
    before = file.read_bytes()
    if how == "flip":
        flip(file, where)
    elif how == "cut":
        os.truncate(file, int(where * (file.stat().st_size - 1)))
    elif how == "gone":
        file.unlink()
    else:
        shutil.copy(files[(which + 1) % len(files)], file)
    same = file.exists() and file.read_bytes() == before
    again, known = open_store(stream, encoder, folder, "digest", said.append)
    assert content(again) == wanted
    assert known == (not said)
    # white space at the end of the seal says nothing
    assert said or same or (file.name == SEAL and how in ("flip", "cut"))
    assert open_store(stream, encoder, folder, "digest", said.append)[1]
    assert len(said) <= 1


def test_a_draft_that_fails_leaves_nothing_and_is_not_taken(tmp_path: Path) -> None:
    def fill() -> None:
        with kept.drafted(tmp_path / "place") as draft:
            (draft / "half").write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fill()
    assert list(tmp_path.iterdir()) == []
    with kept.drafted(tmp_path / "place") as draft:
        (draft / "whole").write_text("whole")
    assert json.loads((tmp_path / "place" / SEAL).read_text())["whole"]["bytes"] == 5
    assert damage(tmp_path / "place") is None


def test_everything_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(opened: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{opened}")).name)
        fsync(opened)

    def replaced(old: Any, new: Any) -> None:
        events.append(f"-> {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with kept.drafted(tmp_path / "place") as draft:
        (draft / "a").write_text("a")
    at = events.index("-> place")
    assert "a" in events[:at]
    assert SEAL in events[:at]
    assert tmp_path.name in events[at:]  # the folder, which holds the new name


def changed(name: str) -> Any:
    tokenizer = make_tokenizer()
    if name == "template":
        tokenizer.chat_template += " "
    elif name == "templates by name":
        tokenizer.chat_template = {"default": tokenizer.chat_template, "tools": "{{ tools }}"}
    elif name == "extra special tokens":
        tokenizer.add_special_tokens({"extra_special_tokens": ["<think>"]})
    elif name == "a special token's name":
        tokenizer.add_special_tokens({"eos_token": "<s>"})
    elif name == "added tokens":
        tokenizer.add_tokens([AddedToken("hello", lstrip=True)])
    elif name == "normaliser":
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    elif name == "split special tokens":
        tokenizer.split_special_tokens = True
    elif name == "end added":
        tokenizer.add_eos_token = True
    return tokenizer


def test_the_digest_of_a_tokenizer_sees_what_changes_texts_and_ids(tmp_path: Path) -> None:
    names = (
        *("", "template", "templates by name", "extra special tokens", "a special token's name"),
        *("added tokens", "normaliser", "split special tokens", "end added"),
    )
    digests = [tokenizer_digest(changed(name)) for name in names]
    assert len(set(digests)) == len(names)
    same = make_tokenizer()
    same(["a", "a b c"], padding=True, truncation=True, max_length=3)  # remembered by the backend
    same.name_or_path = str(tmp_path)
    assert tokenizer_digest(same) == digests[0]


def test_a_tokenizer_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    make_tokenizer().save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert tokenizer_digest(one) == tokenizer_digest(two)
    config = json.loads((tmp_path / "two" / "tokenizer_config.json").read_text())
    config["extra_special_tokens"] = ["<tool>"]
    (tmp_path / "two" / "tokenizer_config.json").write_text(json.dumps(config))
    assert tokenizer_digest(AutoTokenizer.from_pretrained(tmp_path / "two")) != tokenizer_digest(
        one
    )


def test_a_run_that_is_killed_while_it_fills_a_cache_spoils_nothing(
    there: tuple[World, Path, str], tmp_path: Path
) -> None:
    world, _, wanted = there
    context = multiprocessing.get_context("fork")
    for number, wait in enumerate((0.01, 0.03, 0.06, 0.1, 0.15)):
        world.count += 1000 * (number + 1)
        child = context.Process(target=world.run, args=(tmp_path / "cache",))
        child.start()
        time.sleep(wait)
        child.kill()
        child.join()
    world.count += 10_000
    got, said = world.run(tmp_path / "cache")
    assert got == wanted
    assert not any("damaged" in line for line in said)
