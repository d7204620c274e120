"""GGUF files, by llama.cpp's own converter, which knows how each architecture's weights are named there.

The converter is a script of llama.cpp's source and no package: it is asked for where people have it, as
another process, which needs nothing of ours.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import cached_file

from onestage.models.model import Model
from onestage.models.release.gguf_header import faults, header
from onestage.models.source import tokenizer_of

SCRIPT = "convert_hf_to_gguf.py"
HERE = "LLAMA_CPP"
"""In the environment: llama.cpp's folder."""
TYPES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}
"""The converter's names of precisions."""
WANTED = (
    "get it with `git clone https://github.com/ggml-org/llama.cpp` (the source package of "
    "llama-cpp-python has it, too, in vendor/llama.cpp) and `pip install sentencepiece`, and give its "
    f"folder as --converter or ${HERE} (the package gguf alone has no converter)"
)
PIECES = "tokenizer.model"
"""SentencePiece's file."""
MISSING = re.compile(r"No module named '(\w+)")


def find_converter(given: Path | None) -> Path:
    """The converter's script. Raises `ValueError`: where to get it."""
    named = os.environ.get(HERE)
    on_path = shutil.which(SCRIPT)
    places = [given] if given else [Path(named)] if named else [Path("llama.cpp")]
    if on_path and given is None and named is None:
        places.insert(0, Path(on_path))
    for place in places:
        file = place / SCRIPT if place.is_dir() else place
        if file.is_file():
            return file
    where = f"at {given or named}" if given or named else "on the PATH or in ./llama.cpp"
    raise ValueError(f"--gguf: llama.cpp's {SCRIPT} is not {where}; {WANTED}")


def try_out(script: Path, config: Any, tokenizer: Any, sources: Sequence[str]) -> None:
    """Have the converter write the vocabulary of a model alone, which takes seconds: whether it has the
    packages that it needs, and knows architecture and tokenizer, is found out before weights are read.

    config, tokenizer: what will be exported; sources: as `convert`. Raises `RuntimeError` as that.
    """
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if isinstance(
        known, str
    ):  # what the saved model will say, which may be the text part of another
        config = copy.copy(config)
        config.architectures = [known]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _asked(script, folder, tokenizer, sources, folder / "vocabulary.gguf", ["--vocab-only"])


def convert(
    script: Path,
    folder: Path,
    file: Path,
    dtype: torch.dtype,
    tokenizer: Any,
    sources: Sequence[str],
) -> None:
    """Write the GGUF file of a model folder, in a precision.

    sources: the folders or hub ids from which the model comes, where its tokenizer.model may lie. Raises
    `RuntimeError` with what the converter says, or with how its file's tokenizer is not the model's.
    """
    name = file.stem.removesuffix(f"-{TYPES[dtype]}")
    words = ["--outtype", TYPES[dtype], "--model-name", name]
    _asked(script, folder, tokenizer, sources, file, words)


def _asked(
    script: Path,
    folder: Path,
    tokenizer: Any,
    sources: Sequence[str],
    file: Path,
    words: Sequence[str],
) -> None:
    with _as_wanted(folder, tokenizer, sources) as wanted:
        done = subprocess.run(
            [sys.executable, str(script), str(wanted), "--outfile", str(file), *words],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not file.is_file():
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = said[-1] if said else "it says nothing"
        missing = MISSING.search(last)
        # Not by llama.cpp's own list of requirements, which brings another torch.
        then = f"pip install {missing[1]}" if missing else "see what it needs"
        raise RuntimeError(
            f"{script} could not convert the model ({last}); {then}, or export without --gguf"
        )
    if wrong := faults(header(file), tokenizer):
        raise RuntimeError(
            f"{script} wrote a file that reads texts otherwise than the model ({'; '.join(wrong)}); "
            "export without --gguf, or mend that"
        )


@contextmanager
def _as_wanted(folder: Path, tokenizer: Any, sources: Sequence[str]) -> Iterator[Path]:
    """A model folder as the converter reads it: with the tokenizer.model of SentencePiece, where
    there is one, and with the tokens that were added to it in tokenizer_config.json.

    transformers saves neither since its version 5, as tokenizer.json holds all of it; without them the
    converter writes tokens without scores, by which llama.cpp would cut texts.
    """
    pieces = _pieces(tokenizer, sources)
    with tempfile.TemporaryDirectory() as place:
        wanted = Path(place)
        for file in folder.iterdir():
            (wanted / file.name).symlink_to(file.resolve())
        if pieces is not None:
            (wanted / PIECES).unlink(missing_ok=True)
            (wanted / PIECES).symlink_to(pieces.resolve())
            settings = wanted / "tokenizer_config.json"
            told = json.loads(settings.read_text())
            told["added_tokens_decoder"] = {
                str(number): {"content": token.content, "special": token.special}
                for number, token in sorted(tokenizer.added_tokens_decoder.items())
            }
            settings.unlink()  # the link, not the file
            settings.write_text(json.dumps(told))
        yield wanted


def _pieces(tokenizer: Any, sources: Sequence[str]) -> Path | None:
    """The tokenizer.model that our tokenizer has come from: its tokens have the same numbers in ours."""
    for name in sources:
        found = cached_file(
            name,
            PIECES,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        if found is None:
            continue
        theirs = tokenizer_of(Model(name=name)).get_vocab()
        if theirs.items() <= tokenizer.get_vocab().items():
            return Path(found)
    return None
