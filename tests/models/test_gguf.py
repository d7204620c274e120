"""GGUF files: what the converter is given, and what its file says of the tokenizer, with a stand-in for
llama.cpp's script that copies a file made here; the real one where there is one (LLAMA_CPP)."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import make_tokenizer, tiny_llama
from typer.testing import CliRunner

from onestage.cli import app
from onestage.models.release import write
from onestage.models.release.gguf import SCRIPT
from onestage.models.release.gguf_header import header

CONVERTER = Path(os.environ.get("LLAMA_CPP", "not there")) / SCRIPT
STAND_IN = """
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
folder = pathlib.Path(sys.argv[1])
seen = {f.name: f.read_text() if f.name.startswith("tokenizer") else "" for f in folder.iterdir()}
with open(here / "seen.jsonl", "a") as log:
    log.write(json.dumps([sys.argv[2:], seen]) + "\\n")
shutil.copy(here / "made.gguf", sys.argv[sys.argv.index("--outfile") + 1])
"""


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(one: Any) -> bytes:
    """A value behind its type, as ggml's page on the format has it."""
    if isinstance(one, str):
        return struct.pack("<I", 8) + text(one)
    if isinstance(one, int):
        return struct.pack("<II", 4, one)
    kinds = {str: 8, float: 6, int: 5}
    packed = [
        text(each)
        if isinstance(each, str)
        else struct.pack("<f" if kinds[type(each)] == 6 else "<i", each)
        for each in one
    ]
    return struct.pack("<IIQ", 9, kinds[type(one[0])], len(one)) + b"".join(packed)


def gguf(said: dict[str, Any]) -> bytes:
    body = b"".join(text(key) + value(one) for key, one in said.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(said)) + body


def right(**changes: Any) -> dict[str, Any]:
    tokenizer = make_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    said = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(number) for number in range(len(tokens))],
        "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    return {
        **said,
        **{f"tokenizer.{name.replace('__', '.')}": one for name, one in changes.items()},
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def asked(base: Path, tmp_path: Path) -> list[object]:
    script = tmp_path / SCRIPT
    script.write_text(STAND_IN)
    return ["export", base, "--out", tmp_path / "out", "--gguf", "--converter", script]


def test_a_header_is_read(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(gguf(right()))
    assert header(tmp_path / "one.gguf") == right()
    (tmp_path / "other").write_bytes(b"GGML" + bytes(20))
    with pytest.raises(ValueError, match="is no GGUF file of version 2 or 3"):
        header(tmp_path / "other")


def test_a_converter_that_fails_is_told_before_weights_are_read(
    asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(write, "open_whole")
    script = tmp_path / SCRIPT
    script.write_text("raise SystemExit('this tokenizer is not known')")
    assert "could not convert the model (this tokenizer is not known)" in call(*asked, code=1)
    script.write_text("import no_such_package")
    assert "; pip install no_such_package, or export without --gguf" in call(*asked, code=1)
    assert not (tmp_path / "out").exists()


def test_what_the_converter_is_given(asked: list[object], base: Path, tmp_path: Path) -> None:
    """SentencePiece's file of the source, and the tokens beside it, which transformers saves no more."""
    (tmp_path / "made.gguf").write_bytes(gguf(right()))
    (base / "tokenizer.model").write_text("pieces")
    call(*asked)
    (first, vocabulary), (words, seen) = map(json.loads, (tmp_path / "seen.jsonl").open())
    assert first[2:] == ["--vocab-only"]
    assert "model.safetensors" not in vocabulary
    assert words[2:] == ["--outtype", "f32", "--model-name", "out"]
    assert "model.safetensors" in seen
    tokenizer = make_tokenizer()
    for each in (vocabulary, seen):
        assert each["tokenizer.model"] == "pieces"
        told = json.loads(each["tokenizer_config.json"])["added_tokens_decoder"]
        end = told[str(tokenizer.eos_token_id)]
        assert end == {"content": tokenizer.eos_token, "special": True}
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert "out-f32.gguf" in left
    assert "tokenizer.model" not in left
    assert "added_tokens_decoder" not in (tmp_path / "out" / "tokenizer_config.json").read_text()


def test_pieces_of_another_vocabulary_are_not_given(base: Path, tmp_path: Path) -> None:
    """An adapter whose tokenizer is another than its base's."""
    from onestage.models.release import gguf as room

    make_tokenizer().save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.model").write_text("pieces")
    with room._as_wanted(base, make_tokenizer(390), [str(base), str(tmp_path / "other")]) as wanted:
        assert not (wanted / "tokenizer.model").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ggml__scores": [-1000.0] * 400}, "its tokens have no scores"),
        ({"ggml__tokens": ["<pad>"]}, "special tokens are others there"),
        ({"ggml__eos_token_id": 7}, "a text ends at token 7 there"),
        ({"chat_template": "{{ messages }}"}, "the chat template is missing, or another"),
    ],
)
def test_a_file_that_reads_otherwise_is_refused(
    changes: dict[str, Any], message: str, asked: list[object], tmp_path: Path
) -> None:
    (tmp_path / "made.gguf").write_bytes(gguf(right(**changes)))
    said = call(*asked, code=1)
    assert "wrote a file that reads texts otherwise than the model" in said
    assert message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not CONVERTER.is_file(), reason="no llama.cpp (LLAMA_CPP)")
@pytest.mark.skipif("ONESTAGE_SMOLLM2" not in os.environ, reason="no real model")
def test_gguf_by_the_real_converter_holds_the_same_numbers(tmp_path: Path) -> None:
    call("export", os.environ["ONESTAGE_SMOLLM2"], "--out", tmp_path / "out", "--gguf")
    sys.path.insert(0, str(CONVERTER.parent / "gguf-py"))
    from gguf import GGUFReader  # type: ignore[import-not-found]

    reader = GGUFReader(tmp_path / "out" / "out-bf16.gguf")
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    ours = load_file(tmp_path / "out" / "model.safetensors")
    for name, there in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.3.mlp.down_proj.weight", "blk.3.ffn_down.weight"),
    ):
        raw = ours[name].view(torch.uint8).flatten()
        assert torch.equal(torch.from_numpy(theirs[there].data.copy()).flatten(), raw)
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == 2
