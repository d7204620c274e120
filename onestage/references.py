"""The reference of a run: which model it is, and its log-probabilities of the run's records.

By default it is the model that the run starts from. It may be another (`reference:`), as where a
joint run starts from a base model and is compared with a fine-tuned one (arXiv 2410.15483): that model
is loaded beside the policy, computes what the cache lacks, and is dropped before step 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from onestage.policy.loading import (
    adapter_base,
    has_tokenizer,
    load,
    load_config,
    load_tokenizer,
)
from onestage.policy.policy import Policy
from onestage.policy.reference import ReferenceCache, compute
from onestage.recipe import Recipe, RecipeError
from onestage.streams.encoded import Encoded
from onestage.training import Run
from onestage.wiring import Say, cache_folder, reference_source

BLOCK = 4096
"""Records whose missing reference paths are computed together."""


@dataclass(frozen=True)
class Other:
    """A reference that is not the model the run starts from."""

    name: str
    fingerprint: str
    policy: Policy


def check_reference(recipe: Recipe, tokenizer: Any, config: Any) -> None:
    """Refuse another reference whose tokens are not the policy's, before any weights are loaded."""
    source = reference_source(recipe)
    if source is None:
        return
    theirs = load_config(source)
    if theirs.vocab_size != config.vocab_size:
        raise RecipeError(
            f"reference {source.name}: its vocabulary has {theirs.vocab_size} tokens, the policy's "
            f"{config.vocab_size}; log-probabilities of other tokens cannot be compared"
        )
    folders = [name for name in (source.name, adapter_base(source)) if name]
    if (
        any(map(has_tokenizer, folders))
        and load_tokenizer(source).get_vocab() != tokenizer.get_vocab()
    ):
        raise RecipeError(
            f"reference {source.name}: its tokenizer gives other ids than the policy's; "
            "log-probabilities of other tokens cannot be compared"
        )


def load_other(recipe: Recipe, device: torch.device, tokenizer: Any, needed: bool) -> Other | None:
    """Load the other reference, if the recipe names one. `needed`: whether a loss compares with it.

    Raises `RecipeError` for a reference that no objective would use.
    """
    source = reference_source(recipe)
    if source is None:
        return None
    if not needed:
        raise RecipeError(f"reference {source.name}: no objective of the run uses a reference")
    loaded = load(source, device, tokenizer)
    return Other(str(source.name), loaded.fingerprint, Policy(loaded.model))


def cache_of(recipe: Recipe, fingerprint: str) -> ReferenceCache:
    """The cached log-probabilities of a model; autocast gives other ones than full precision."""
    suffix = "-autocast" if recipe.train.bf16 else ""
    return ReferenceCache(cache_folder(recipe) / "reference", fingerprint + suffix)


def fill_cache(run: Run, records: Iterable[Encoded], policy: Policy, say: Say) -> None:
    """Compute with `policy` the reference log-probabilities that the run's cache does not have yet."""
    reference = run.reference
    if reference is None:
        return
    rank, ranks = run.accelerator.process_index, run.accelerator.num_processes
    found = computed = 0
    visited = iter(records)
    while block := list(islice(visited, BLOCK)):
        wanted = (path for r in block if run.terms.wants_reference(r) for path in r.paths)
        known, missing = reference.split(wanted)
        found, computed = found + known, computed + len(missing)
        # By key, not by place: processes that opened the cache at different times miss different paths.
        mine = {key: path for key, path in missing.items() if key % ranks == rank}
        with run.accelerator.autocast():
            reference.add(compute(policy, mine, run.tokens_per_row))
    run.accelerator.wait_for_everyone()
    reference.reload()
    say(
        f"reference: {found:,} paths found in the cache, {computed:,} computed "
        f"({reference.folder.name})"
    )
