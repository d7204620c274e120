"""What is whole after a run met a full disk, and how to go on: said in the error that ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onestage.runfolder import stages_in, taken
from onestage.runfolder.disk import DiskFullError, no_room
from onestage.training.checkpoints import Checkpoints


@contextmanager
def told_what_is_whole(out: Path) -> Iterator[None]:
    """A `DiskFullError` from inside says what of the run folder can be gone on from."""
    try:
        yield
    except Exception as error:
        reason = no_room(error)
        if reason is None:
            raise
        place: Path | str = out
        if isinstance(error, DiskFullError):
            place, reason = error.place, error.reason
        raise DiskFullError(place, reason, _advice(out)) from error


def _advice(out: Path) -> str:
    stages = [stage.name for stage in stages_in(out) if (stage / "model").is_dir()]
    runs = [out, *(folder.parent for folder in out.glob("*/checkpoints"))]
    saved = [checkpoint for run in runs for checkpoint in Checkpoints(run).all()]
    newest = max(saved, key=lambda checkpoint: checkpoint.stat().st_mtime, default=None)
    whole = [f"stage {name} is done" for name in stages]
    whole.append(f"the checkpoint {newest} is whole" if newest else "no checkpoint was written")
    again = "make room and run the same command again"
    return f"{', '.join(whole)}; {again}{' with --resume' if taken(out) else ''}"
