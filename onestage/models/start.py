"""The model a run starts from, where that lies in no folder yet.

A saved adapter is worth what its base is worth: PEFT finds the base by the name in the adapter's
configuration. So a base that this run makes itself (an earlier adapter merged into its base, or fresh
weights) is first written to a folder of its own, and then loaded from there like any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from onestage.data.trees import Ids
from onestage.models.adapters import put_on
from onestage.models.features import Door
from onestage.models.fingerprint import digest_files
from onestage.models.merge.examples import prompts
from onestage.models.merge.run import check_saved, logits_of
from onestage.models.model import ORIGIN, Model, Task
from onestage.models.reward_model import settle
from onestage.models.save import fill_model
from onestage.models.source import (
    adapter_base,
    adapter_task,
    config_of,
    is_nested,
    stored_config,
)
from onestage.models.untied import untie
from onestage.models.weights import load_whole
from onestage.runfolder.disk import whole_folder


class StartError(ValueError):
    """A start model that was made from something else than the recipe says."""


def needs_folder(source: Model) -> bool:
    """Whether the run starts from weights that no folder holds but a saved model would refer to."""
    if source.config is not None:
        return source.lora is not None
    merged = source.adapter == "merge" and adapter_base(source) is not None
    # PEFT puts a saved adapter on what the folder holds, of which the text part is not the whole.
    return merged or (source.lora is not None and is_nested(stored_config(source)))


def prepare(source: Model, tokenizer: Any, folder: Path, seed: int, *, keep: bool) -> Model:
    """The same section, with the model in `folder` (an ordinary one, written here) as its `name`.

    seed: of fresh weights; keep: use what lies there already, as a resumed run does. Raises
    `StartError` where that was made from something else.
    """
    if not (keep and folder.exists()):
        _write(source, tokenizer, folder, seed)
    try:
        found = json.loads((folder / ORIGIN).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise StartError(f"{folder} is no start model: {ORIGIN} cannot be read") from error
    if found != _origin(source, seed):
        raise StartError(
            f"{folder} was made from {found['from']}, which is not what the recipe starts from now, "
            "or has changed since"
        )
    done = {"config": None, "adapter": "same", "tokenizer": None, "revision": None}
    return source.model_copy(update={"name": str(folder.resolve()), **done})


def _write(source: Model, tokenizer: Any, folder: Path, seed: int) -> None:
    task: Task = source.task
    merging = adapter_base(source) is not None
    if merging:
        # Merged as what it is: a reward model may start from a language model's adapter.
        task = "reward" if adapter_task(str(source.name)) == "SEQ_CLS" else "causal"
    # Adapters are merged into plain weights: a quantised base would round the sum.
    whole = source.model_copy(update={"load_in_4bit": False, "task": task})
    model = load_whole(whole, config_of(source), seed=seed)
    if task == "reward":
        settle(model, tokenizer)
    asked = prompts(tokenizer, []) if merging else []
    if merging:
        model, said_TV = absorbed(model, str(source.name), asked)
    with whole_folder(folder) as draft:
        fill_model(model, tokenizer, draft)
        if merging:
            # What PEFT makes of adapters that share a weight is right in memory and not on disk.
            check_saved(draft, asked, said_TV, model.dtype, type(model))
        (draft / ORIGIN).write_text(json.dumps(_origin(source, seed), indent=1))


def absorbed(
    model: Any, adapter: str, asked: Sequence[Ids], door: Door = Door.MERGED
) -> tuple[Any, Tensor]:
    """The model with the adapter of a folder merged into it, and the logits (T, V) on some prompts that
    it gave with the adapter on it. Raises `LoadError` for an adapter that cannot be merged exactly."""
    adapted = put_on(model, adapter, door).eval()
    said_TV = logits_of(adapted, asked)
    if door == Door.WHOLE:
        untie(adapted)
    # Not by its "safe" way, which rounds what is added before it is added, and then the sum again.
    return adapted.merge_and_unload(), said_TV


def _origin(source: Model, seed: int) -> dict[str, Any]:
    """What the start model is made from; an adapter by its content."""
    if source.config is not None:
        given = {"config": source.config, "seed": seed, "dtype": source.dtype}
        task = {} if source.task == "causal" else {"task": source.task}
        return {"from": "fresh weights", **task, **json.loads(json.dumps(given))}
    adapter = digest_files(Path(str(source.name)).glob("adapter_*"))
    facts = {"base": adapter_base(source), "revision": source.revision, "dtype": source.dtype}
    return {"from": str(source.name), "adapter": adapter, **facts}
