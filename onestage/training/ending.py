"""The last step of a run under bounds: its checkpoint is written before what the end alone does.

A run that ends draws weights back to be saved, and one that is made longer goes on from before that. So
what is measured after the last step is not in its last checkpoint: the probe, the held-out losses, which
checkpoint is the best. Who goes on from there, or was killed between the two, measures it once more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onestage.training.checkpoints import Checkpoints, save

if TYPE_CHECKING:
    from onestage.training.keeping import Keeper
    from onestage.training.run import Run

BEST = "best_before"
"""In the progress of such a checkpoint: which one was the best so far, if any."""


def finish(run: Run, keeper: Keeper) -> dict[str, float]:
    """Hold to the bounds of a run that ends; what there is to log."""
    every = run.options.save_steps
    if every and (run.step % every == 0 or run.options.eval_steps):
        run.saving.wait()
        link = Checkpoints(run.out).folder / "best"
        save(run, beside={BEST: os.readlink(link) if link.is_symlink() else None})
    return keeper.finish()


def go_back(run: Run, progress: Mapping[str, Any]) -> None:
    """A run goes on from what a checkpoint says: where its step was the last one of a run under bounds,
    it is measured again, and the best checkpoint is the one that was so before."""
    run.unmeasured = BEST in progress
    if run.unmeasured and run.folder:
        kept, name = Checkpoints(run.out), progress[BEST]
        if name is None:
            (kept.folder / "best").unlink(missing_ok=True)
        elif (kept.folder / name).is_dir():
            kept.link("best", kept.folder / name)


def mark_best(run: Run) -> None:
    """The checkpoint of this step, which was saved, is the best so far."""
    run.saving.wait()
    if run.folder:
        kept = Checkpoints(run.out)
        kept.link("best", kept.of(run.step))
