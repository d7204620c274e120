"""Checkpoints: everything that a run needs to go on as if it had never stopped.

`checkpoints/step-000100/` holds `model/` (an ordinary model folder), `training.pt` (optimiser,
learning-rate schedule, masters of weights; of a run in parts, their tensors are in `state/`, which every
rank writes its own of: `shards`), `progress.json` (step, cursors, objectives' states), and
`files.json` with the size and digest of each file, by which a damaged checkpoint is known. Of stacked
adapters `model/` holds the sum, and `trained.safetensors` the one that is trained. The links `last` and
`best` point to two of them (`best` of a run that was drawn back at its end to `end/`, its model alone).
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onestage.models.layout import receive
from onestage.models.save import (
    Weights,
    copied,
    fill_exact,
    fill_model,
    restore_weights,
    saved_weights,
)
from onestage.models.sharding import gathered, part_like
from onestage.runfolder.disk import whole_folder
from onestage.runfolder.seal import damage, seal
from onestage.training import shards
from onestage.training.optimizer import go_on
from onestage.training.same_run import CheckpointError, require_same_run
from onestage.training.saving import still

if TYPE_CHECKING:
    from onestage.training.run import Run


NAME = re.compile(r"step-\d+")
"""Of a checkpoint: at least six digits, and as many as its step has."""


def save(run: Run, *, best: bool = False, beside: Mapping[str, Any] | None = None) -> None:
    """Save a run as it stands; all ranks must call. `best`: it has the lowest evaluation loss so far;
    `beside`: what is told with its progress.

    With `train.async_save` it is written while the run goes on (`run.saving`)."""
    run.saving.wait()
    aside = run.options.async_save
    weights: Weights | None = gathered(run.policy)
    parts = None if weights is None else partial(shards.write, run)
    unlogged = run.window.state()
    if run.folder is None:
        written = parts(None) if parts else None
        if aside and written:
            run.saving.begin(written)
        return
    progress = {
        "recipe": run.changes.recipe,
        "fingerprint": run.loaded.fingerprint,
        "reference": run.compared.fingerprint,
        "data": run.data.contents(),
        "watched": run.data.watched(),
        "portions": {name: len(one.stores) for name, one in run.data.arriving.items()},
        "ended": [name for name, one in run.data.arriving.items() if one.ended],
        "feeds": run.feeds.state() | (run.answers.state() if run.answers else {}),
        "schedule": run.schedule.state(),
        "clipping": run.clipping.state(),
        "state": run.terms.state,
        "tokens": run.tokens,
        "best": run.best if math.isfinite(run.best) else None,
        "logged": run.folder.logged(),
        "unlogged": unlogged,
        "sampled": run.answers.unreported() if run.answers else {},
        **(beside or {}),
    }
    if run.data.arriving:
        run.folder.data(run.data.table())
    if run.benchmarks:
        progress["evaluate"] = run.benchmarks.state()
    optimizer = run.optimizer.state_dict()
    training = {
        "optimizer": optimizer if parts is None else {**optimizer, "state": {}},
        "made": run.made,
        "learning_rate": run.learning_rate.state_dict(),
    }
    if run.masters.exact:
        training["masters"] = run.masters.state()
    if run.average:
        average = run.average.state()
        training["average"] = average if parts is None else {**average, "mean": {}}
    if run.policy.value_head is not None and parts is None:
        training["value_head"] = run.policy.value_head.state_dict()
    # Sampled again they would be other answers: the policy has moved since.
    waiting = run.answers.contents() if run.answers else []
    if waiting:
        training["waiting"] = waiting
    model = run.loaded.model
    if aside:
        training, weights = still(training), copied(model, weights)
    kept = Checkpoints(run.out, run.options.save_total_limit)
    finish = kept.begin(
        run.step,
        model,
        run.loaded.tokenizer,
        training,
        progress,
        best=best,
        weights=weights,
        parts=parts,
    )
    if aside:
        run.saving.begin(finish)
    else:
        finish()


def resume(run: Run) -> Mapping[str, Any]:
    """Put a run where its newest checkpoint left it, and return what that says of its progress;
    `CheckpointError` for one of another run."""
    newest = Checkpoints(run.out).newest()
    progress: dict[str, Any] = json.loads((newest / "progress.json").read_text())
    for name, count in progress.get("portions", {}).items():
        if name in run.data.arriving:
            # Of a source that had ended one more is asked for: what has grown since is another.
            run.data.arriving[name].reach(count + (name in progress.get("ended", ())))
    require_same_run(newest, progress, run)
    training = read(run, newest)
    run.masters.restore(training.get("masters", {}))
    try:
        # One of an earlier version does not say how its optimiser was made.
        made = training.get("made", [] if run.changes.keys else run.made)
        go_on(run.optimizer, run.learning_rate, training, made, run.made)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {newest} does not fit the recipe: {error}") from error
    run.feeds.restore(progress["feeds"])
    if run.answers:
        run.answers.restore(progress["feeds"], training.get("waiting", []))
        run.answers.report_on(progress.get("sampled", {}))
    if run.policy.value_head is not None and "value_head" in training and not run.policy.sharded:
        run.policy.value_head.load_state_dict(training["value_head"])
    run.schedule.restore(progress["schedule"])
    run.clipping.restore(progress["clipping"])
    if run.average:
        run.average.restore(training["average"])
    run.terms.state.update(progress["state"])
    run.window.restore(progress.get("unlogged", []), main=run.folder is not None)
    run.step, run.tokens = progress["step"], progress["tokens"]
    run.best = math.inf if progress["best"] is None else progress["best"]
    if run.folder:
        for name in run.folder.altered(progress.get("logged", {})):
            run.say(f"{name} is not as this run wrote it; what can be read of it is kept")
        for name, lost in run.folder.rewind(run.step).items():
            run.say(f"{name}: {lost} damaged lines were left out")
        entry = run.changes.record(run.step)
        if entry["keys"]:
            run.folder.change(run.changes.recipe, entry)
    if run.benchmarks and "evaluate" in progress:
        run.benchmarks.restore(progress["evaluate"], run.out)
    run.say(f"resumed after step {run.step} from {newest}")
    for line in run.changes.lines():
        run.say(f"changed since: {line}")
    return progress


def folder_of(out: Path) -> Path:
    """Where the checkpoints of a run folder lie; the link `last` there is the newest."""
    return out / "checkpoints"


def copy_of(out: Path, step: int, folder: Path) -> None:
    """The model of a step's checkpoint as a folder of its own."""
    with whole_folder(folder) as draft:
        shutil.copytree(Checkpoints(out).of(step) / "model", draft, dirs_exist_ok=True)


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, out: Path, keep: int | None = None) -> None:
        self.folder = folder_of(out)
        self.keep = keep

    def begin(
        self,
        step: int,
        model: Any,
        tokenizer: Any,
        training: Mapping[str, Any],
        progress: Mapping[str, Any],
        *,
        best: bool = False,
        weights: Weights | None = None,
        parts: Callable[[Path], Callable[[], None]] | None = None,
    ) -> Callable[[], None]:
        """Begin the checkpoint of a step; what is returned writes it, moves the links, and drops what is
        over the limit. `weights`: the model's, where it lies in parts or goes on; `parts`: begins to
        write those of all ranks, and returns what waits for that."""
        target = self.of(step)
        told = json.dumps({**progress, "step": step}, indent=1)
        with ExitStack() as stack:
            draft = stack.enter_context(whole_folder(target))
            written = parts(draft) if parts else None
            opened = stack.pop_all()

        def finish() -> None:
            with opened:
                if written:
                    written()
                (draft / "model").mkdir()
                fill_model(model, tokenizer, draft / "model", weights)
                if not parts:  # which hold all that is trained
                    fill_exact(model, draft)
                torch.save(dict(training), draft / "training.pt")
                (draft / "progress.json").write_text(told)
                seal(draft)
            self.link("last", target)
            if best:
                self.link("best", target)
            self._prune()

        return finish

    def of(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def link(self, name: str, target: Path) -> None:
        # A link cannot be changed, but another be renamed over it: there always is one.
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
        # By number: as texts, step-1000000 would be older than step-999999.
        found = {path: NAME.fullmatch(path.name) for path in self.folder.glob("step-*")}
        return sorted(
            (path for path, match in found.items() if match),
            key=lambda path: int(path.name.removeprefix("step-")),
        )

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


def read(run: Run, checkpoint: Path) -> dict[str, Any]:
    """Restore the weights of a run; return the rest of its training as it was saved, with tensors as
    this run's lie: a checkpoint in parts and a run in others, or none, and the other way round."""
    training: dict[str, Any] = torch.load(
        checkpoint / "training.pt", map_location="cpu", weights_only=True, mmap=True
    )
    if (checkpoint / shards.FOLDER).is_dir():
        parts = shards.read(run, checkpoint)
        with torch.no_grad():
            for name, weight in parts[shards.WEIGHTS].items():
                run.policy.get_parameter(name).copy_(weight)
        training["masters"] = parts[shards.WEIGHTS]
        training["optimizer"]["state"] = parts[shards.OPTIMIZER]
        if run.average:
            training["average"]["mean"] = parts[shards.AVERAGE]
    elif run.policy.sharded is None:
        restore_weights(run.policy.model, checkpoint)
    else:
        receive(run.policy, _whole(run, checkpoint, training))
        training["optimizer"]["state"] = shards.laid_out(run, training["optimizer"]["state"])
        if run.average:
            place, mean = run.policy.get_parameter, training["average"]["mean"]
            training["average"]["mean"] = {n: part_like(v, place(n)) for n, v in mean.items()}
    return training


def _whole(run: Run, checkpoint: Path, training: dict[str, Any]) -> dict[str, Tensor]:
    """The trained weights of a checkpoint that is not in parts, by name; on the main process alone."""
    if run.folder is None:
        return {}
    head = training.pop("value_head", {})
    found = saved_weights(run.policy, checkpoint) | training.get("masters", {})
    return found | {f"value_head.{name}": tensor for name, tensor in head.items()}
