"""One model by itself as a whole one: an adapter goes into its base, a whole model stays as it is.

PEFT adds the adapter; what this adds is the proof. The logits are taken before the adapter is gone, and
what is saved must give them again (authors' released merges fail in exactly this: xright.md T1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from onestage.data.encoded import Encoded
from onestage.data.record import Refusal
from onestage.models.endings import settle_beside, stop_at_markers
from onestage.models.features import Door
from onestage.models.loading import LoadError, check_files
from onestage.models.merge import Merge
from onestage.models.merge.examples import prompts, read_records
from onestage.models.merge.run import Merged, check_saved, distance, logits_of
from onestage.models.model import Model, Precision
from onestage.models.resized import vocabulary_of
from onestage.models.save import fill_model
from onestage.models.source import (
    adapter_base,
    check_base,
    check_vocabulary,
    config_of,
    revision_of,
    text_part_note,
    tokenizer_of,
)
from onestage.models.start import absorbed
from onestage.models.weights import load_whole
from onestage.runfolder import write_json
from onestage.runfolder.disk import require_room, whole_folder


@dataclass
class Alone:
    """A whole model in memory, and what it said before an adapter went into it."""

    name: str
    base: str | None
    """Of an adapter."""
    model: Any
    tokenizer: Any
    prompts: Sequence[np.ndarray[Any, Any]]
    said: list[tuple[str, Tensor]]
    """Logits (T, V) on the prompts by name: of what was given, then of its base."""


def base_of(name: str, given: str | None = None) -> str | None:
    """Where an adapter's base lies, `given` before what the adapter says; None for a whole model.

    Raises `ValueError` for a base where none is wanted, or that is not there.
    """
    own = adapter_base(Model(name=name))
    if own is None:
        if given is not None:
            raise ValueError(
                f"--base {given}: {name} is no adapter, so it has no base; leave it out"
            )
        return None
    base = given or own
    is_path = base.startswith((".", "/", "~")) or base.count("/") > 1
    if is_path and not Path(base).is_dir():
        raise LoadError(
            f"{name} is an adapter of {base}, and there is no such folder; say where its base lies with "
            "--base (a folder or hub id)"
        )
    if given is None or is_path:
        check_base(name, base)
    return base


def open_whole(
    name: str,
    base: str | None = None,
    *,
    records: Sequence[Any] = (),
    device: str = "cpu",
    merged_in: Precision = "auto",
) -> Alone:
    """Load a model, its adapter merged into its base. Raises `ValueError` for what cannot be had whole.

    base: the adapter's, where that has moved; records: what logits are taken on (`merge.examples`);
    merged_in: the precision in which an adapter is added, by default its base's.
    """
    root = base_of(name, base)
    source = holds(name, base, root).model_copy(update={"dtype": merged_in if root else "auto"})
    config, tokenizer = looked_at(name, base, root)
    model: Any = load_whole(source, config, device).requires_grad_(False).eval()
    chosen = prompts(tokenizer, list(records))
    said = [(name, logits_of(model, chosen))]
    if root is not None:
        said = [(f"{root} (base)", said[0][1])]
        model, said_TV = absorbed(model, name, chosen, Door.WHOLE)
        said.insert(0, (name, said_TV))
        settle_beside(model, name)
    stop_at_markers(model, tokenizer)
    return Alone(name, root, model, tokenizer, chosen, said)


def holds(name: str, base: str | None, root: str | None) -> Model:
    """What holds the weights of a model: an adapter's base, at the revision that the adapter says."""
    if root is None:
        return Model(name=name)
    said = revision_of(Model(name=name)) if base is None else None
    return Model(name=root, revision=said)


def looked_at(name: str, base: str | None, root: str | None) -> tuple[Any, Any]:
    """The config and the tokenizer of what a model is as a whole, without any weights.

    base, root: of an adapter, as it was given and as `base_of` found it. Raises `ValueError` as
    `open_whole`.
    """
    config = config_of(holds(name, base, root))
    if root is not None:
        config.vocab_size = vocabulary_of(name, config)
    refuse_quantised(name, config, root)
    tokenizer = tokenizer_beside(name, base)
    check_vocabulary(tokenizer, config)
    return config, tokenizer


def tokenizer_beside(name: str, base: str | None) -> Any:
    """A model's own tokenizer, or that of an adapter's base, where that has moved: `base`."""
    own = base is None or any(Path(name).glob("tokenizer*"))
    return tokenizer_of(Model(name=name if own else base))


def refuse_quantised(name: str, config: Any, root: str | None) -> None:
    if getattr(config, "quantization_config", None) and root is None:
        raise LoadError(
            f"{name} is quantised, and its weights are no plain numbers to write in another precision; "
            "give the model as it was before"
        )
    if getattr(config, "quantization_config", None):
        raise LoadError(
            f"{name} is of a quantised base, into whose rounded weights nothing can be merged; give the "
            "base as it was before (--base)"
        )


def run(asked: Merge, say: Callable[[str], None] = lambda line: None) -> Merged:
    """Merge one adapter into its base, save to `asked.out`, reload and compare; raises as `run.run`."""
    (name,) = asked.models
    records: list[Encoded] = []
    refused: list[Refusal] = []
    base = base_of(name, asked.base)
    check_files(base or name)
    require_room(asked.out, weight_bytes(base or name), f"the merged model of {name}")
    if asked.data is not None:
        tokenizer = tokenizer_beside(name, asked.base)
        records, refused = read_records(asked.data, tokenizer, asked.max_length)
    alone = open_whole(name, asked.base, records=records, device=asked.device)
    say(f"{name}: an adapter of {alone.base}")
    for note in text_part_note(Model(name=base or name)):
        say(note)
    merged_TV = logits_of(alone.model, alone.prompts)
    distances = [distance(which, theirs, merged_TV, None) for which, theirs in alone.said]
    options = {"method": "into its base", "models": [name]}
    found = Merged(asked.out, options, distances, math.nan, len(alone.prompts), refused=refused)
    with whole_folder(asked.out) as draft:
        fill_model(alone.model, alone.tokenizer, draft)
        # What PEFT makes of adapters that share a weight is right in memory and not on disk.
        reload = check_saved(draft, alone.prompts, alone.said[0][1], alone.model.dtype)
        told = [asdict(d) for d in distances]
        facts = {**options, "base": alone.base, "reload": reload, "distances": told}
        write_json(draft / "merge.json", facts)
    return replace(found, reload=reload)


def weight_bytes(name: str, each: int | None = None) -> int:
    """Bytes of the weights in a folder, `each` a weight where they will be written otherwise; 0 for hub
    names, of which nothing is known before they are here."""
    total = 0
    for file in Path(name).glob("*.safetensors") if Path(name).is_dir() else ():
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        for told in header.values():
            if "shape" in told:
                first, end = told["data_offsets"]
                total += end - first if each is None else each * math.prod(told["shape"])
    return total
