"""What a study in the lab stands on: a pretrained base model, and the world's rows as files.

A base is an ordinary run of this package on the world's text. It is kept by the content that it came
from (text, tokenizer, configuration, settings), so that any number of runs and processes share it, and
a change of any of these makes another. It is sealed: one that is damaged is made anew, and said.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from onestage.data.kept import drafted, drop
from onestage.data.kinds import Kind
from onestage.runfolder import Say, write_text
from onestage.runfolder.disk import sync
from onestage.runfolder.seal import damage, seal
from onestage.studies.lab.feedback import WRITTEN
from onestage.studies.lab.presets import Size, base_config, pretraining_settings
from onestage.studies.lab.source import SPLITS, Rows, Source
from onestage.studies.lab.tokenizer import train_tokenizer
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe


class GroundError(RuntimeError):
    """The base was not made."""


def make_base(
    world: Source,
    cache: Path,
    preset: Size = "small",
    *,
    seed: int = 0,
    steps: int | None = None,
    say: Say = print,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """The base model of a world: a plain model folder with its tokenizer, found or made.

    The run that made it lies around it, in `cache/lab/bases/DIGEST`. A run that is killed leaves no such
    folder; of processes that ask at once, one makes it and the others wait. `seed` is that of the
    weights and of the order of documents; `steps`: of its pretraining, where those of the preset are not
    meant. Raises `GroundError` where the run was stopped by a signal.
    """
    home = cache.absolute() / "lab"
    lines = [json.dumps({"text": text}) + "\n" for text in world.pretraining_text("train")]
    tokenizer = train_tokenizer(world)
    words = tokenizer.backend_tokenizer.to_str()
    text = home / "texts" / f"{_digest(*lines)}.jsonl"
    recipe: dict[str, Any] = {
        "model": {
            "config": base_config(tokenizer, preset),
            "tokenizer": str(home / "tokenizers" / _digest(words)),
        },
        "data": [{"name": "text", "path": str(text)}],
        "objective": "sft",
        "train": {
            **pretraining_settings(preset),
            **({} if steps is None else {"max_steps": steps}),
            "seed": seed,
        },
    }
    content = {"config": recipe["model"]["config"], "train": recipe["train"]}
    found = home / "bases" / _digest(json.dumps(content, sort_keys=True), words, *lines)
    if damage(found) is not None:
        with _alone(found):
            # Asked again with the lock held: another process may have made it meanwhile.
            if (wrong := damage(found)) is not None:
                if os.path.lexists(found):
                    say(f"the base model that was made before is damaged ({wrong}); made anew")
                    drop(found)
                _keep_sources(text, lines, Path(recipe["model"]["tokenizer"]), tokenizer)
                recipe["cache_dir"] = str(cache.absolute())
                say(f"pretraining a base model on generated text: {found}")
                _pretrain(recipe, found, say, callbacks)
    else:
        say(f"base model found: {found / 'model'}")
    return found / "model"


def write_rows(world: Rows, folder: Path, kinds: Sequence[Kind] = WRITTEN) -> dict[str, Path]:
    """The world's rows as a user's files, `KIND.SPLIT.jsonl`, by `KIND.SPLIT`.

    Each appears whole or not at all; a file that has the content already is left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, text in texts_of(world, kinds):
        files[name] = folder / f"{name}.jsonl"
        _have(files[name], text)
    return files


def texts_of(world: Rows, kinds: Sequence[Kind] = WRITTEN) -> Iterator[tuple[str, str]]:
    """What stands in these files, by `KIND.SPLIT`."""
    for kind in kinds:
        for split in SPLITS:
            yield (
                f"{kind}.{split}",
                "".join(json.dumps(row) + "\n" for row in world.rows(kind, split)),
            )


def _have(file: Path, text: str) -> None:
    """Write a file, unless it has that content already."""
    if not file.is_file() or file.read_bytes() != text.encode():
        drop(file)
        write_text(file, text)


def _keep_sources(
    text: Path, lines: list[str], folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """What the recipe of a base names, so that the run can be repeated by hand."""
    text.parent.mkdir(parents=True, exist_ok=True)
    _have(text, "".join(lines))
    if damage(folder) is not None:
        with drafted(folder) as draft:
            tokenizer.save_pretrained(draft)


def _pretrain(
    recipe: Mapping[str, Any], found: Path, say: Say, callbacks: Sequence[Callback]
) -> None:
    draft = found.with_name(f".{found.name}")  # one that is there was left by a killed process
    shutil.rmtree(draft, ignore_errors=True)
    model = carry_out(parse_recipe(dict(recipe)), draft, say=say, callbacks=callbacks)
    if model != draft / "model":
        raise GroundError(f"pretraining was stopped before its end; {found} was not made")
    seal(draft)
    sync(draft)
    os.replace(draft, found)


@contextmanager
def _alone(found: Path) -> Iterator[None]:
    """Wait until no other process makes this base. A lock falls with the process that holds it."""
    found.parent.mkdir(parents=True, exist_ok=True)
    with found.with_name(f".{found.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(*parts: str) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() + b"\0")
    return found.hexdigest()[:16]
