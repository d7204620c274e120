"""Whether a checkpoint is of the run that is to go on from it: the model, the reference and the data by
what they hold, and the shape of what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.models.fingerprint import same_weights, told_by_settings

if TYPE_CHECKING:
    from onestage.training.run import Run

UNNAMED = "store"
"""What earlier versions called rows that only pass by."""


class CheckpointError(ValueError):
    """No checkpoint, or one that is damaged or belongs to another run."""


def require_same_run(checkpoint: Path, progress: Mapping[str, Any], run: Run) -> None:
    """Raise `CheckpointError` for one of another run, or of one that does not fit what changed."""
    if not same_weights(progress["fingerprint"], run.loaded.fingerprint):
        raise CheckpointError(
            f"checkpoint {checkpoint} is of a run that started from model {progress['fingerprint']}, "
            f"but the recipe's model is {run.loaded.fingerprint}"
        )
    changes, reference = run.changes, (progress["reference"], run.compared.fingerprint)
    pairs = {"model": (progress["fingerprint"], run.loaded.fingerprint), "reference": reference}
    for what, (before, after) in pairs.items():
        # Not refused: another version of transformers may say the same in other words.
        if before != after and same_weights(before, after) and told_by_settings(before):
            run.say(f"changed since: the settings of the {what} (config.json, or how it is read)")
    if not same_weights(*reference) and changes.notes("reference", *reference):
        raise CheckpointError(
            f"checkpoint {checkpoint} is of a run whose reference was {reference[0]}, but the recipe's "
            f"is {reference[1]}; put it back, or go on with it: --resume --allow-changed reference"
        )
    now = run.data.contents()
    # Rows that only pass by were called UNNAMED by earlier versions.
    was = {k: now.get(k) if name == UNNAMED else name for k, name in progress["data"].items()}
    other = [k for k in sorted(was | now) if changes.notes(f"data.{k}", was.get(k), now.get(k))]
    if other:
        allowing = " ".join(f"--allow-changed data.{name}" for name in other)
        raise CheckpointError(
            f"checkpoint {checkpoint} was made with other data: {other} differ in content, limits or "
            f"tokenizer; put them back, or go on with what is there now: --resume {allowing}"
        )
    _require_fitting(checkpoint, progress, run)


def _require_fitting(checkpoint: Path, progress: Mapping[str, Any], run: Run) -> None:
    """Raise `CheckpointError` where what was allowed to change has another shape of state."""
    feeds = run.feeds.state() | (run.answers.state() if run.answers else {})
    kept = {
        "terms": (set(progress["state"]), set(run.terms.state)),
        "sources of answers": (set(progress["feeds"]), set(feeds)),
        "schedule's memory": (set(progress["schedule"]), set(run.schedule.state())),
    }
    for what, (was, now) in kept.items() if run.changes.keys else ():
        if was != now:
            raise CheckpointError(
                f"checkpoint {checkpoint} does not fit the recipe: its {what} {sorted(was)} would "
                f"become {sorted(now)}; choose another --out, and start from {checkpoint / 'model'}"
            )
