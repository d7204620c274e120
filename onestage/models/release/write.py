"""A whole folder in the precision that is wanted: what rounding does to it is counted and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onestage.models.endings import as_read, settle, told_settings
from onestage.models.loading import LoadError, check_files, count_of
from onestage.models.merge.into_base import Alone, base_of, looked_at, open_whole, weight_bytes
from onestage.models.merge.run import Distance, check_saved, distance, logits_of
from onestage.models.model import Model
from onestage.models.release import Export
from onestage.models.release.gguf import TYPES, convert, find_converter, try_out
from onestage.models.source import text_part_note
from onestage.runfolder.disk import require_room, whole_folder


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    files: dict[str, int]
    """Bytes of each."""
    dtype: str
    distances: list[Distance]
    """Of what was given, and of its base, from what was written."""
    reload: float
    """Largest difference of a logit between the reloaded folder and the model in memory."""
    flushed: int
    """Weights that became 0 in the new precision and were not."""
    settings: str
    """How it ends and is sampled by default, in words."""


def run(asked: Export, say: Callable[[str], None] = lambda line: None) -> Exported:
    """Do what the section asks. Raises as `release.export`."""
    converter = find_converter(asked.converter) if asked.gguf else None
    root = base_of(asked.model, asked.base)
    sources = [asked.model, *([root] if root else [])]
    check_files(root or asked.model)
    each = None if asked.precision == "auto" else getattr(torch, asked.precision).itemsize
    copies = 2 if asked.gguf else 1
    room = copies * weight_bytes(root or asked.model, each)
    require_room(asked.out, room, f"the export of {asked.model}")
    if converter is not None:
        try_out(converter, *looked_at(asked.model, asked.base, root), sources)
    # Rounded once, behind the sum: bfloat16 keeps three bits less than float16.
    fine = asked.precision in ("float16", "float32")
    alone = open_whole(asked.model, asked.base, merged_in="float32" if fine else "auto")
    if alone.base is not None:
        say(f"{asked.model}: an adapter, merged into {alone.base}")
    for note in text_part_note(Model(name=root or asked.model)):
        say(note)
    flushed = cast(alone, asked.precision)
    held = sum(p.numel() * p.element_size() for p in alone.model.parameters())
    require_room(asked.out, copies * held, f"the export of {asked.model}")
    settle(alone.model, alone.tokenizer, asked.sampling)
    ours_TV = logits_of(alone.model, alone.prompts)
    with whole_folder(asked.out) as draft:
        with as_read(alone.model, draft):
            alone.model.save_pretrained(draft, max_shard_size=asked.shard_size)
        alone.tokenizer.save_pretrained(draft)
        reload = check_saved(draft, alone.prompts, ours_TV, alone.model.dtype)
        if converter is not None:
            made = f"{asked.out.name}-{TYPES[alone.model.dtype]}.gguf"
            say(f"{converter}: {made}")
            convert(converter, draft, draft / made, alone.model.dtype, alone.tokenizer, sources)
        files = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
    return Exported(
        asked.out,
        files,
        str(alone.model.dtype).removeprefix("torch."),
        [distance(which, theirs_TV, ours_TV, None) for which, theirs_TV in alone.said],
        reload,
        flushed,
        told_settings(alone.model),
    )


def cast(alone: Alone, dtype: str) -> int:
    """Bring a model to another precision, in place; how many weights became 0 by it.

    Raises `LoadError` where some are too large for it.
    """
    if dtype == "auto":
        return 0
    to: torch.dtype = getattr(torch, dtype)
    large, flushed = [], 0
    for name, weight in alone.model.named_parameters():
        there: Any = weight.detach().to(to)
        if not torch.isfinite(there).all():
            large.append(name)
        flushed += int(((there == 0) & (weight != 0)).sum())
    if large:
        raise LoadError(
            f"{alone.name} has weights larger than {torch.finfo(to).max:g} or not finite in "
            f"{count_of(large)}, which {dtype} cannot hold; export with --dtype bf16"
        )
    # Of buffers, those that are saved: rotary frequencies stay as whoever loads the folder makes them.
    for kept in alone.model.state_dict(keep_vars=True).values():
        if kept.is_floating_point():
            kept.data = kept.data.to(to)
    return flushed
