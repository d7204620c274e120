"""Which command serves a folder: what vLLM and transformers want to be told, read off its files.

vLLM serves an adapter as its base with the adapter beside it, and then takes tokenizer, template, end
tokens and precision from the base. What the adapter's own folder says of these is named here, or a model
that was trained on another template answers in the base's, and never ends.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import safe_open

from onestage.models.adapters import config_in
from onestage.models.features import Door, require
from onestage.models.loading import LoadError, check_files
from onestage.models.merge.family import said_by
from onestage.models.merge.into_base import base_of, holds, tokenizer_beside
from onestage.models.model import Model
from onestage.models.source import config_of, tokenizer_of

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM makes room for."""
WRITTEN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Precisions as safetensors writes them."""
ENDS = ("embed_tokens", "lm_head", "wte", "lora_embedding")
"""In the names of adapters on embeddings and heads, which vLLM does not load."""


@dataclass(frozen=True)
class Serving:
    """A command, and what a user should know of it."""

    words: list[str]
    name: str
    """What requests call the model."""
    notes: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """To be pasted into a shell."""
        return shlex.join(self.words)


def by_vllm(
    model: str, base: str | None = None, name: str | None = None, where: tuple[str, int] = ("", 0)
) -> Serving:
    """The command of vLLM. Raises `LoadError` for an adapter that it cannot load as it is.

    base: the adapter's, where that has moved; name: what requests shall call it, by default the run's;
    where: host and port, by default vLLM's own.
    """
    name, root = name or _name_of(model), base_of(model, base)
    check_files(root or model)
    weights = holds(model, base, root)
    words = ["vllm", "serve", root or model, "--dtype", _dtype(weights)]
    if weights.revision is not None:
        words += ["--revision", weights.revision]
    if root is None:
        words += ["--served-model-name", name]
    else:
        rank = rank_of(model)
        words += [
            "--enable-lora",
            "--max-lora-rank",
            str(rank),
            "--lora-modules",
            f"{name}={model}",
        ]
        words += _own_of(model, base, weights)
    return Serving([*words, *_at(where)], name, _notes(model, base, root, weights))


def by_transformers(
    model: str, base: str | None = None, where: tuple[str, int] = ("", 0)
) -> Serving:
    """The command of transformers, which finds an adapter's base by itself."""
    root = base_of(model, base)
    if base is not None and root is not None:
        raise ValueError(
            f"--base {base}: `transformers serve` takes an adapter's base from adapter_config.json; "
            "write it there, or serve with --engine vllm"
        )
    check_files(root or model)
    weights = holds(model, base, root)
    words = ["transformers", "serve", model, "--dtype", _dtype(weights)]
    return Serving([*words, *_at(where)], model, _notes(model, base, root, weights))


def rank_of(folder: str) -> int:
    """The room that vLLM must have for an adapter. Raises `LoadError` where it cannot load it."""
    config = config_in(folder)
    require(config, Door.WHOLE, folder)
    whole = (
        f"make it whole (onestage merge {folder} --out {folder.rstrip('/')}-whole) and serve that"
    )
    try:
        require(config, Door.LOADED, folder)
    except LoadError as error:
        raise LoadError(f"{str(error).partition(';')[0]}; {whole}") from error
    ends = [name for name in _tensors(folder) if any(end in name for end in ENDS)]
    if ends:
        raise LoadError(
            f"{folder} adapts embeddings or the head, which vLLM does not load; {whole}"
        )
    most = max([config.r, *(config.rank_pattern or {}).values()])
    room = next((rank for rank in RANKS if rank >= most), None)
    if room is None:
        raise LoadError(f"{folder} has rank {most}, and vLLM has room for {RANKS[-1]}; {whole}")
    return room


def _tensors(folder: str) -> list[str]:
    file = Path(folder) / "adapter_model.safetensors"
    check_files(folder, "adapter_model")
    if not file.is_file():
        return []
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _own_of(adapter: str, moved: str | None, base: Model) -> list[str]:
    """What an adapter's folder says otherwise than its base."""
    words: list[str] = []
    own, theirs = tokenizer_beside(adapter, moved), tokenizer_of(base)
    if own.get_vocab() != theirs.get_vocab() or said_by(own) != said_by(theirs):
        words += ["--tokenizer", adapter]
    if (Path(adapter) / "generation_config.json").is_file():
        words += ["--generation-config", adapter]
    return words


def _dtype(model: Model) -> str:
    """The precision of a configuration, or, where it says none, of the weights: `auto` would halve
    float32."""
    found = config_of(model).dtype
    if found is not None:
        return str(found).removeprefix("torch.")
    for file in sorted(Path(str(model.name)).glob("model*.safetensors"))[:1]:
        with safe_open(file, framework="pt") as opened:
            first = next(iter(opened.keys()), None)
            told = "" if first is None else opened.get_slice(first).get_dtype()
        return WRITTEN.get(told, "auto")
    return "auto"


def _notes(model: str, base: str | None, root: str | None, weights: Model) -> list[str]:
    tokenizer = tokenizer_beside(model, base)
    notes = []
    if tokenizer.chat_template is None:
        notes.append("no chat template: ask for completions (/v1/completions), not for chats")
    if _dtype(weights) == "float32":
        notes.append(
            "float32: served as it is, exactly; half the memory with `onestage export --dtype bf16`"
        )
    if root is not None:
        notes.append(
            f"an adapter of {root}; as one model: `onestage merge {shlex.quote(model)} --out FOLDER`"
        )
    return notes


def _name_of(model: str) -> str:
    """`runs/chat/model` is the run's."""
    parts = [part for part in Path(model).parts if part not in ("/", "model", "checkpoints")]
    return parts[-1] if parts else "model"


def _at(where: tuple[str, int]) -> list[str]:
    host, port = where
    return ([f"--host={host}"] if host else []) + ([f"--port={port}"] if port else [])
