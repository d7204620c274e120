"""The first stage of a chain that others begin with, too: trained once.

Chains that a study compares differ in what comes after: their first stages are one run, of the same
recipe and model on the same rows. It is kept by the content of all of these, sealed, and copied into
the runs that begin with it, which then look as if it had been trained there.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from onestage import models
from onestage.data import kept
from onestage.runfolder import Say, code_digest, digest_of, read_json, write_json
from onestage.runfolder.disk import DiskFullError, whole_folder
from onestage.runfolder.seal import SEAL, damage
from onestage.training.build import Draft
from onestage.training.optimum import digest_of_model

FILE = "taken.json"
"""In a stage that was trained elsewhere: where, and in how many seconds."""


@dataclass(frozen=True)
class FirstStage:
    """Where the first stage of a chain is kept, or will be."""

    place: Path

    @classmethod
    def of(cls, draft: Draft, folder: Path) -> FirstStage | None:
        """By its draft, which has read the data. None where more decides what is trained than can be
        compared: problems that an engine answers, rows that still arrive, callbacks."""
        recipe, model = draft.recipe, draft.recipe.model
        if draft.problems or draft.callbacks or draft.stores.arriving:
            return None
        named = (model.name, models.adapter_base(model), recipe.reference)
        content = [
            recipe.model_dump(mode="json", exclude={"cache_dir"}),
            [(name, store.folder.name) for name, store in draft.stores.named()],
            [digest_of_model(name) for name in named],
            draft.plugins(),
            code_digest(),
        ]
        return cls(folder / digest_of(content))

    def take(self, stage: Path, say: Say) -> bool:
        """Put it into a run's folder; False where it is not there, whole."""
        if not self.place.is_dir() or stage.exists():
            return False
        if wrong := damage(self.place):
            say(f"what was kept of this stage is damaged ({wrong}); it is trained anew")
            return False
        with whole_folder(stage) as draft:
            _copy(self.place, draft, SEAL)
        told = read_json(stage / FILE)
        say(f"trained before, in {told['trained_in']}: taken from there")
        return True

    def keep(self, stage: Path, seconds: float, say: Say) -> None:
        """What a run has just trained, without its checkpoints. Where there is no room, others train it
        themselves."""
        try:
            with kept.drafted(self.place) as draft:
                _copy(stage, draft, "checkpoints")
                write_json(draft / FILE, {"trained_in": str(stage), "seconds": round(seconds, 2)})
        except DiskFullError as error:
            say(f"this stage is not kept for other runs: {error}")


def seconds_taken(run: Path) -> float:
    """How long those stages of a run took that were trained elsewhere."""
    return sum(float(read_json(file)["seconds"]) for file in run.glob(f"*/{FILE}"))


def _copy(source: Path, target: Path, without: str) -> None:
    """Weights are the same bytes under a second name, where the file system has that."""

    def one(file: str, to: str) -> None:
        if file.endswith(".safetensors"):
            try:
                os.link(file, to)
                return
            except OSError:
                pass
        shutil.copy2(file, to)

    skipped = shutil.ignore_patterns(without)
    shutil.copytree(source, target, copy_function=one, dirs_exist_ok=True, ignore=skipped)
