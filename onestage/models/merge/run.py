"""Merging trained models of one base: one whole model from several, saved, reloaded and compared.

The laws of it: nothing is written unless everything fits together; the result is an ordinary
transformers folder with its tokenizer; and the folder, loaded by plain transformers, gives the logits
of the model in memory (adapters saved after a merge in memory fail in exactly this: xright.md T1).

Legend: T tokens of all prompts on which models are compared, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from onestage.data.encoded import Encoded
from onestage.data.record import Refusal
from onestage.models.endings import stop_at_markers
from onestage.models.merge import ADAPTIVE, DENSITY, RANDOM, Adaptive, Merge
from onestage.models.merge.adaptive import Found, find_shares
from onestage.models.merge.examples import good_examples, prompts, read_records
from onestage.models.merge.family import Family, Itself, load_family, without_adapters
from onestage.models.merge.methods import combiner
from onestage.models.save import fill_model
from onestage.models.yardstick import TOLERANCE
from onestage.randomness import seed_torch
from onestage.runfolder import write_json
from onestage.runfolder.disk import require_room, whole_folder

ZERO = 1e-5
"""Entries of a delta below this count as zero, as in PAFT's measure of sparsity."""


@dataclass(frozen=True)
class Merged:
    """What came out: the folder, how far each model is from it, and the reload check."""

    folder: Path
    options: dict[str, Any]
    distances: list[Distance]
    reload: float
    """Largest difference of a logit between the reloaded folder and the model in memory."""
    prompts: int
    found: Found | None = None
    refused: list[Refusal] = field(default_factory=list)
    """Rows of the data that could not be read."""


def run(asked: Merge, say: Callable[[str], None] = lambda line: None) -> Merged:
    """Merge, save to `asked.out`, reload and compare. Raises ValueError for what does not fit
    together and RuntimeError for a folder that does not give the merged model's logits; then there
    is no folder."""
    family = load_family(asked.models, asked.base, needs_base=asked.needs_base, device=asked.device)
    records: list[Encoded] = []
    refused: list[Refusal] = []
    if asked.data is not None:
        records, refused = read_records(asked.data, family.tokenizer, asked.max_length)
    examples = good_examples(records, asked.min_score) if asked.method == ADAPTIVE else []
    say(f"{len(asked.models)} models are loaded; base: {family.base or 'none'}")
    for note in family.notes:
        say(note)
    chosen = prompts(family.tokenizer, records)
    before = _logits(family, chosen)
    found = None
    if asked.method == ADAPTIVE:
        zeros, found = _adapt(family, examples, asked)
    else:
        zeros = _combine(family, asked.filled())
    merged_TV = logits_of(family.plain(), chosen)
    distances = [distance(name, theirs, merged_TV, zeros.get(name)) for name, theirs in before]
    merged = Merged(asked.out, asked.filled(), distances, math.nan, len(chosen), found, refused)
    return replace(merged, reload=_save(family, merged, chosen, merged_TV))


def _save(
    family: Family, merged: Merged, chosen: Sequence[np.ndarray[Any, Any]], merged_TV: Tensor
) -> float:
    """Write the folder, whole or not at all; how far its logits are from the model's in memory."""
    dtype = next(iter(family.tensors.values())).dtype
    bytes_of = sum(t.numel() * t.element_size() for t in family.tensors.values())
    require_room(merged.folder, bytes_of, "the merged model")
    stop_at_markers(family.target, family.tokenizer)
    with whole_folder(merged.folder) as draft:
        fill_model(family.target, family.tokenizer, draft)
        reload: float = check_saved(draft, chosen, merged_TV, dtype)
        facts: dict[str, Any] = {**merged.options, "base": family.base, "reload": reload}
        facts["distances"] = [asdict(d) for d in merged.distances]
        write_json(draft / "merge.json", facts | _told(merged.found))
    return reload


def _told(found: Found | None) -> dict[str, Any]:
    return {} if found is None else {"found": asdict(found)}


def _logits(family: Family, chosen: Sequence[np.ndarray[Any, Any]]) -> list[tuple[str, Tensor]]:
    """Logits of each model and of the base, by name; a base that is one of the models stands once."""
    found = []
    for parent in family.parents:
        with parent.running() as model:
            found.append((parent.name, logits_of(model, chosen)))
    if family.base is not None and not any(isinstance(p, Itself) for p in family.parents):
        with without_adapters(family.target):
            found.append((f"{family.base} (base)", logits_of(family.target, chosen)))
    return found


@torch.no_grad()
def _combine(family: Family, options: dict[str, Any]) -> dict[str, float]:
    """Overwrite the target's weights, a tensor at a time; the share of zeros of each delta."""
    combine = combiner(options["method"], options["weights"], options.get("density", DENSITY))
    counts = {parent.name: [0, 0] for parent in family.parents}
    with torch.random.fork_rng(devices=[]):
        seed_torch(options.get("seed", 0))
        for name, tensor in family.tensors.items():
            deltas = [parent.delta(name, tensor) for parent in family.parents]
            _count(counts, family, deltas)
            known = [
                torch.zeros_like(tensor, dtype=torch.float32) if d is None else d for d in deltas
            ]
            if any(delta is not None for delta in deltas):
                # What is drawn at random is drawn on the CPU: the same on every device.
                place = "cpu" if options["method"] in RANDOM else tensor.device
                change = combine([delta.to(place) for delta in known])
                tensor.copy_(tensor.float() + change.to(tensor.device))
    return _shares(counts, family)


def _adapt(family: Family, examples: Any, asked: Merge) -> tuple[dict[str, float], Found]:
    """Average the two models by blocks, in place; the first is the pre-trained one.

    The difference of the two is kept whole, in the target's precision.
    """
    counts = {parent.name: [0, 0] for parent in family.parents}
    pre: dict[str, Tensor] = {}
    delta: dict[str, Tensor] = {}
    for name, tensor in family.tensors.items():
        deltas = [parent.delta(name, tensor) for parent in family.parents]
        _count(counts, family, deltas)
        if any(d is not None for d in deltas):
            first, second = (torch.zeros_like(tensor.float()) if d is None else d for d in deltas)
            delta[name] = (second - first).to(tensor.dtype)
            if deltas[0] is not None:
                pre[name] = first
    zeros = _shares(counts, family)
    model = family.plain()
    how = asked.adaptive or Adaptive()
    for name, change in pre.items():
        family.tensors[name].add_(change)
    found, block = find_shares(model, delta, examples, how, asked.seed or 0)
    for name, difference in delta.items():
        tensor = family.tensors[name]
        share = found.shares[block[name]]
        tensor.copy_(tensor.float() + (1 - share) * difference.float())
    return zeros, found


def _count(counts: dict[str, list[int]], family: Family, deltas: Sequence[Tensor | None]) -> None:
    for parent, delta in zip(family.parents, deltas, strict=True):
        if delta is not None:
            counts[parent.name][0] += int((delta.abs() < ZERO).sum())
            counts[parent.name][1] += delta.numel()


def _shares(counts: dict[str, list[int]], family: Family) -> dict[str, float]:
    """Zeros of each delta; nothing where there is no base that the deltas could be from."""
    if family.base is None:
        return {}
    return {name: zeros / total for name, (zeros, total) in counts.items() if total}


@dataclass(frozen=True, slots=True)
class Distance:
    """From one model to the merged one. `logit`: the largest absolute difference of any logit.
    `kl`: mean over tokens of KL(model || merged), in nats."""

    name: str
    logit: float
    kl: float
    zeros: float | None = None
    """Share of the model's delta from the base that is 0 (|d| < 1e-5), of those it could change."""


@torch.no_grad()
def logits_of(model: Any, prompts: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """Logits (T, V) of some prompts, one after another, in float32 on the CPU."""
    rows = []
    for ids in prompts:
        ids_T = torch.from_numpy(np.asarray(ids, np.int64)).to(model.device)
        rows.append(model(input_ids=ids_T[None], use_cache=False).logits[0].float().cpu())
    return torch.cat(rows)


def distance(name: str, theirs_TV: Tensor, merged_TV: Tensor, zeros: float | None) -> Distance:
    """How far the merged model's logits are from a model's."""
    logp_TV = torch.log_softmax(theirs_TV, -1)
    kl_T = (logp_TV.exp() * (logp_TV - torch.log_softmax(merged_TV, -1))).sum(-1)
    return Distance(name, (theirs_TV - merged_TV).abs().max().item(), kl_T.mean().item(), zeros)


def check_saved(
    folder: Path,
    prompts: Sequence[np.ndarray[Any, Any]],
    merged_TV: Tensor,
    dtype: torch.dtype,
    kind: Any = AutoModelForCausalLM,
) -> float:
    """Largest difference of a logit between the saved folder, loaded by plain transformers (as `kind`),
    and the model that was saved. Raises `RuntimeError` where it is more than rounding."""
    saved: Any = kind.from_pretrained(folder)
    found = (logits_of(saved.eval(), prompts) - merged_TV).abs().max().item()
    # Rounding grows with the logits themselves, and log-probabilities are of the size of 1.
    allowed = TOLERANCE[dtype] * max(1.0, merged_TV.abs().max().item())
    if not found <= allowed:
        raise RuntimeError(
            f"the saved model gives logits that differ by {found:.2g} from the merged model in memory "
            f"(rounding is up to {allowed:.2g}); it was not kept"
        )
    return found
