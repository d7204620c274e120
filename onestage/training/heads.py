"""Whose head a run computes with: settled before anything is computed with it, the same on all ranks.

On a GPU the ways that there are race at the run's own size (`models.head_choice`), unless the recipe
says which. A run that goes on keeps the way it was begun with, so that its last bit is that of one never
stopped; and one that law 3 finds inexact on the run's own data makes way for ours, in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env

from onestage.config import RecipeError
from onestage.data.packing import pack_records
from onestage.models import Model
from onestage.models.head import shape_of
from onestage.models.head_choice import chosen, named, try_ways
from onestage.models.head_ways import OURS, cannot
from onestage.models.model import HEADS
from onestage.models.policy import Policy
from onestage.runfolder import read_json
from onestage.training.agreeing import all_do
from onestage.training.selfcheck import head_verdict

if TYPE_CHECKING:
    from onestage.training.run import Run

FACT = "head"
"""Under which `manifest.json` says it."""
LEAVE = "or leave model.head out"
PARTS = "the weights lie in parts, on which no other is tried"


def check(model: Model) -> None:
    """Raise `RecipeError` for a head that a recipe names and that cannot be had on this machine."""
    if model.head not in ("auto", OURS) and (trouble := cannot(model.head, device_here())):
        raise RecipeError(f"model.head: {model.head}: {trouble}; {LEAVE}")


def racing(model: Model) -> list[str]:
    """What `check` says of a choice that is made when a run begins."""
    if model.head != "auto" or model.task == "reward" or device_here() != "cuda":
        return []
    here = [name for name in HEADS[1:] if not cannot(name, "cuda")]
    with_whom = (
        f"beside {' and '.join(here)}" if here else f"(of {', '.join(HEADS[1:])} none is installed)"
    )
    return [f"head: onestage's is tried {with_whom} when the run begins; model.head names one"]


def device_here() -> str:
    """What a run on this machine would compute on."""
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None or parse_flag_from_env("ACCELERATE_USE_CPU") else found.type


def settle(run: Run) -> None:
    """Choose, say so, and compute with it from now on: the policy, and who it is compared with.

    Before anything is computed that is kept: the reference's numbers are other runs', too.
    """
    if "logp" not in run.policy.gives or not run.policy.fit.chunked_head:
        return
    name, why = all_do(run.accelerator, lambda: _asked(run)) or _raced(run)
    _use(run, name)
    if name != OURS and (trouble := _inexact(run)):
        if run.head != "auto":
            raise RecipeError(f"model.head: {name} is not exact on these data ({trouble}); {LEAVE}")
        name, why = OURS, f"{name} is not exact on these data: {trouble}; it was {why}"
        _use(run, name)
    if why:
        run.say(f"head: {name} ({why})")
        _note(run, name)


def _inexact(run: Run) -> str:
    """What law 3 has against the head as it is now, on the run's own data; nothing where it holds."""
    verdict = head_verdict(run, run.first_records())
    holds = all(run.devices.gather([verdict.holds]))
    return "" if holds else verdict.detail


def _asked(run: Run) -> tuple[str, str] | None:
    """A way that is settled already, and why; None where they may race."""
    policy, device = run.policy, run.policy.device.type
    if run.head != "auto":
        _require(policy, run.head, f"model.head: {run.head}", "")
        return run.head, "as the recipe says"
    if run.resuming:
        name = _begun_with(run)
        if policy.sharded is not None and name != OURS:  # the last bit is another's in any case
            return OURS, PARTS
        what = f"the run in {run.out} was begun with the head of {name}"
        _require(policy, name, what, " (of a run that goes on: --allow-changed model.head)")
        return name, "" if name == OURS else "as the run was begun"
    if device != "cuda":
        return OURS, ""
    if policy.sharded is not None:
        return OURS, PARTS
    troubles = {name: _trouble(policy, name) for name in HEADS[1:]}
    if all(troubles.values()):
        return OURS, "; ".join(f"{name}: {trouble}" for name, trouble in troubles.items())
    return None


def _trouble(policy: Policy, name: str) -> str:
    if policy.sharded is not None and name != OURS:
        return PARTS
    dtype = policy.base.get_output_embeddings().weight.dtype
    return cannot(name, policy.device.type, shape_of(policy.base.config), dtype)


def _require(policy: Policy, name: str, what: str, more: str) -> None:
    if trouble := _trouble(policy, name):
        raise RecipeError(f"{what}: {trouble}; with model.head: {OURS} it goes without{more}")


def _begun_with(run: Run) -> str:
    """What the manifest says; an earlier version's runs had ours."""
    found = [OURS]
    if run.folder is not None and (file := run.folder.folder / "manifest.json").is_file():
        found = [str(read_json(file).get(FACT, OURS)).split()[0]]
    return str(broadcast_object_list(found)[0])


def _raced(run: Run) -> tuple[str, str]:
    rows = pack_records(run.first_records(), run.options.row_budget).rows
    scored = max((len(set(row.tree.node_K.tolist())) for row in rows), default=0)
    passes = max(run.plan.tokens() / run.options.row_budget, run.steps)
    with run.accelerator.autocast():
        mine = try_ways(run.policy, scored or run.options.row_budget, passes)
    found = gather_object([mine]) if run.accelerator.num_processes > 1 else [mine]
    # A rank may find ours too fast for a race: then nobody takes another.
    common = [name for name in mine if all(name in one for one in found)]
    return chosen([{name: one[name] for name in common} for one in found])


def _use(run: Run, name: str) -> None:
    for policy in (run.policy, run.compared.policy):
        if policy is not None and policy.fit.chunked_head:
            policy.readout.way = name


def _note(run: Run, name: str) -> None:
    if run.folder is not None:
        run.folder.note({FACT: named(name)})
