"""The last step of a run under bounds: its checkpoint is written before what the end alone does.

A run that ends draws weights back to be saved, and one that is made longer goes on from before that. So
what is measured after the last step is not in its last checkpoint: the probe, the held-out losses, which
checkpoint is the best. Who goes on from there, or was killed between the two, measures it once more.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onestage.models.save import save_model
from onestage.models.sharding import gathered
from onestage.training.checkpoints import Checkpoints, save

if TYPE_CHECKING:
    from onestage.training.best import Best
    from onestage.training.keeping import Keeper
    from onestage.training.run import Run

BEST = "best_before"
"""In the progress of such a checkpoint: which one was the best so far, if any."""
HELD = "end"
"""Beside the checkpoints: the model of a run that has ended, where that is the best."""


def finish(run: Run, keeper: Keeper) -> dict[str, float]:
    """Hold to the bounds of a run that ends; what there is to log."""
    every = run.options.save_steps
    if every and (run.step % every == 0 or run.options.eval_steps):
        run.saving.wait()
        link = Checkpoints(run.out).folder / "best"
        best = os.readlink(link) if link.is_symlink() else None
        # The last line of metrics, which is still to come, tells all that was measured.
        save(run, beside={BEST: best, "unlogged": [], "sampled": {}})
    return keeper.finish()


def go_back(run: Run, progress: Mapping[str, Any]) -> None:
    """A run goes on from what a checkpoint says: where its step was the last one of a run under bounds,
    it is measured again, and the best checkpoint is the one that was so before."""
    _tell_watched(run, progress)
    run.unmeasured = BEST in progress
    if run.unmeasured and run.folder:
        kept, name = Checkpoints(run.out), progress[BEST]
        shutil.rmtree(kept.folder / HELD, ignore_errors=True)
        if name is None:
            (kept.folder / "best").unlink(missing_ok=True)
        elif (kept.folder / name).is_dir():
            kept.link("best", kept.folder / name)
    if run.benchmarks and run.benchmarks.best:
        _point_at_best(run, run.benchmarks.best)


def _tell_watched(run: Run, progress: Mapping[str, Any]) -> None:
    """Other held-out rows or texts than before are allowed, and said: what was measured on those before
    does not compare, so no model is the best by them yet."""
    was, now = progress.get("watched"), run.data.watched()
    if was is None:  # a checkpoint of an earlier version
        return
    changed = [what for what in sorted(was | now) if was.get(what) != now.get(what)]
    for what in changed:
        run.say(f"changed since: {what}: what was measured before is of others")
    if any(what.startswith("held-out") for what in changed):
        run.best = math.inf
        best = run.benchmarks.best if run.benchmarks else None
        if best and best.suite is None:
            best.value, best.step, best.waited = None, None, 0


def _point_at_best(run: Run, best: Best) -> None:
    """The link goes by what the checkpoint says: a run that was killed may have moved it since."""
    if best.step is None or not run.folder:
        return
    kept = Checkpoints(run.out)
    if (kept.of(best.step) / "model").is_dir():
        kept.link("best", kept.of(best.step))


def mark_best(run: Run) -> None:
    """The model of this step, whose checkpoint was saved, is the best so far; all ranks must call.

    What was drawn back since that was saved, as at the end, is kept beside it: it is what was measured,
    and what holds to the bounds."""
    run.saving.wait()
    weights = gathered(run.policy) if run.done else None
    if run.folder:
        kept = Checkpoints(run.out)
        place = kept.of(run.step)
        if run.done:
            place = kept.folder / HELD
            save_model(run.loaded.model, run.loaded.tokenizer, place / "model", weights)
        kept.link("best", place)
