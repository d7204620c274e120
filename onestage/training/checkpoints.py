"""Checkpoints: everything that a run needs to go on as if it had never stopped.

`checkpoints/step-000100/` holds `model/` (an ordinary model folder), `training.pt` (optimiser and
learning-rate schedule), `progress.json` (step, cursors, objectives' states), and `files.json` with
the size and digest of each file, by which a damaged checkpoint is known. Of stacked adapters `model/`
holds the sum, and `trained.safetensors` the one that is trained. The links `last` and `best`
point to two of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onestage.models.save import fill_exact, fill_model, restore_weights, write_folder


class CheckpointError(ValueError):
    """No checkpoint, or one that is damaged or belongs to another run."""


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, keep: int | None = None) -> None:
        self.folder = folder / "checkpoints"
        self.keep = keep

    def save(
        self,
        step: int,
        model: Any,
        tokenizer: Any,
        training: Mapping[str, Any],
        progress: Mapping[str, Any],
        *,
        best: bool = False,
    ) -> Path:
        """Write the checkpoint of a step, move the links, and drop what is over the limit."""
        target = self.folder / f"step-{step:06d}"

        def fill(draft: Path) -> None:
            (draft / "model").mkdir()
            fill_model(model, tokenizer, draft / "model")
            fill_exact(model, draft)
            torch.save(dict(training), draft / "training.pt")
            (draft / "progress.json").write_text(json.dumps({**progress, "step": step}, indent=1))
            files = {str(file.relative_to(draft)): _facts(file) for file in _files(draft)}
            (draft / "files.json").write_text(json.dumps(files, indent=1))

        write_folder(target, fill)
        self._link("last", target)
        if best:
            self._link("best", target)
        self._prune()
        return target

    def _link(self, name: str, target: Path) -> None:
        draft = self.folder / f".{name}"
        draft.unlink(missing_ok=True)
        draft.symlink_to(target.name)
        os.replace(draft, self.folder / name)

    def _prune(self) -> None:
        if self.keep is None:
            return
        best = self.folder / "best"
        kept = best.resolve() if best.exists() else None
        for old in self.all()[: -self.keep]:
            if old.resolve() != kept:
                shutil.rmtree(old)

    def all(self) -> list[Path]:
        """Every checkpoint, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def newest(self) -> Path:
        """The last checkpoint; `CheckpointError` if there is none or it is damaged."""
        found = self.all()
        if not found:
            raise CheckpointError(f"--resume: no checkpoint in {self.folder}")
        problem = damage(found[-1])
        if problem:
            whole = [old.name for old in found[:-1] if not damage(old)]
            advice = (
                f"remove that folder to go on from {whole[-1]}"
                if whole
                else "no other checkpoint is whole"
            )
            raise CheckpointError(f"checkpoint {found[-1]} is damaged: {problem}; {advice}")
        return found[-1]


def read(checkpoint: Path, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Restore the weights into `model`; return (training, progress) as they were saved."""
    restore_weights(model, checkpoint)
    training = torch.load(checkpoint / "training.pt", map_location="cpu", weights_only=True)
    return training, json.loads((checkpoint / "progress.json").read_text())


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        recorded = json.loads((checkpoint / "files.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        return f"files.json cannot be read ({error})"
    for name, facts in recorded.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != facts["bytes"]:
            return f"{name} has {file.stat().st_size} bytes where {facts['bytes']} were written"
        if _facts(file) != facts:
            return f"the content of {name} has changed"
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _facts(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16))
    return {"bytes": file.stat().st_size, "digest": digest.hexdigest()}
