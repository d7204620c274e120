"""Models that are to be evaluated, and their bases: all that can be known without any weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onestage.models import Model, Policy, adapter_base, config_of, digest_files, tokenizer_of
from onestage.models import open as open_model
from onestage.models.loading import check_files
from onestage.models.model import Precision
from onestage.models.source import check_base, check_found, require_folder, revision_of

READ = ("*.safetensors", "*.bin", "*.json", "*.jinja", "tokenizer*")
"""Files of a model folder that decide what it answers."""


@dataclass(frozen=True)
class Candidate:
    """A model, and how it is asked."""

    name: str
    """A folder or hub id."""
    tokenizer: str | None = None
    """Whose tokenizer and chat template it is asked with, where not its own: a base is asked as the
    model is that it stands beside."""
    base: str | None = None
    """The model that it is compared with."""
    dtype: Precision = "auto"
    revision: str | None = None
    """Of the hub: of a base, the one that its adapter was trained on."""

    @cached_property
    def words(self) -> Any:
        """Its tokenizer."""
        return tokenizer_of(Model(name=self.name, tokenizer=self.tokenizer))

    @property
    def templated(self) -> bool:
        return self.words.chat_template is not None

    @cached_property
    def key(self) -> str:
        """By the content of all that decides its answers: kept answers of one key are its own."""
        found = hashlib.blake2b(digest_size=8)
        for name in (self.name, adapter_base(Model(name=self.name)), self.tokenizer):
            folder = Path(name or "")
            if name and folder.is_dir():
                files = {f for pattern in READ for f in folder.glob(pattern) if f.is_file()}
                words = name == self.tokenizer != self.name
                wanted = set(folder.glob("tokenizer*")) if words else files
                found.update(digest_files(wanted).encode())
            else:
                found.update(str(name).encode())
        # A hub's repository may be another by now: what is here of it, by its commit.
        config = config_of(Model(name=self.name, revision=self.revision))
        commit = getattr(config, "_commit_hash", None)
        found.update(f"{commit or ''}{self.dtype} {self.words.chat_template}".encode())
        return found.hexdigest()

    @cached_property
    def beside(self) -> Candidate | None:
        """Its base, asked as it is: ids of the same text must be the same for both."""
        if self.base is None:
            return None
        own = Model(name=self.name)
        revision = revision_of(own) if adapter_base(own) == self.base else None
        return Candidate(self.base, self.name, None, self.dtype, revision)

    def stands_beside(self, other: Candidate) -> bool:
        """Whether another is its base, asked as it is itself."""
        if other.name != self.base:
            return False
        return bool(other.words.chat_template == self.words.chat_template)

    def load(self) -> Policy:
        return open_model(self.name, self.dtype, self.tokenizer, self.revision)


def candidates(
    names: Sequence[str], base: str | None = "auto", dtype: Precision = "auto"
) -> list[Candidate]:
    """Each model behind its base, a base once where several share it.

    base: a folder or hub id for all; `auto`: an adapter's own; None: none. Raises `ValueError` for what
    is no model.
    """
    found: dict[tuple[str, str | None], Candidate] = {}
    for name in names:
        own = _checked(name)
        beside = own if base == "auto" else None if base is None else _plain(base)
        if own is not None and beside == own:
            _require_comparable(name, own)
        model = Candidate(name, None, None if beside == name else beside, dtype)
        if model.beside is not None and not (beside in names and _asked_alike(model)):
            found.setdefault((model.beside.name, model.words.chat_template), model.beside)
        found[(name, None)] = model
    return list(found.values())


def _asked_alike(model: Candidate) -> bool:
    """Whether its base has its chat template, so that it need not be asked by another one, too."""
    assert model.beside is not None
    return bool(
        replace(model.beside, tokenizer=None).words.chat_template == model.words.chat_template
    )


def _require_comparable(name: str, base: str) -> None:
    """Raise `ValueError` where a base has no embeddings for tokens that its adapter has."""
    mine, theirs = (config_of(Model(name=one)).vocab_size for one in (name, base))
    if mine != theirs:
        raise ValueError(
            f"{name} has {mine} embeddings and its base {base} has {theirs}, so the base cannot be "
            "asked the same; set --base none, or to a folder of the base as it was resized"
        )


def _plain(name: str) -> str:
    _checked(name)
    return name


def _checked(name: str) -> str | None:
    """A model's base, if it is an adapter. Raises `ValueError` where it is no model, or not whole."""
    check_found("model", name)
    require_folder(name)
    base = adapter_base(Model(name=name))
    if base is None:
        check_files(name)
        return None
    check_files(name, "adapter_model")
    check_base(name, base)
    return base
