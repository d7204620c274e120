"""The model a run starts from, where that lies in no folder yet.

A saved adapter is worth what its base is worth: PEFT finds the base by the name in the adapter's
configuration. So a base that this run makes itself (an earlier adapter merged into its base, or fresh
weights) is first written to a folder of its own, and then loaded from there like any other.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from onestage.models.load import ModelSource, adapter_base, load_config, load_whole
from onestage.models.policy import Task
from onestage.models.reward_model import adapter_task, settle
from onestage.models.save import fill_model, write_folder

ORIGIN = "onestage_origin.json"
"""In the folder of a start model: what it was made from."""


class StartError(ValueError):
    """A start model that was made from something else than the recipe says."""


def needs_folder(source: ModelSource) -> bool:
    """Whether the run starts from weights that no folder holds but a saved model would refer to."""
    merged = source.adapter == "merge" and adapter_base(source) is not None
    return merged or (source.config is not None and source.lora is not None)


def started(source: ModelSource, tokenizer: Any, folder: Path, *, keep: bool) -> ModelSource:
    """The same source, with the model in `folder` (an ordinary one, written here) as its `name`.

    keep: use what lies there already, as a resumed run does. Raises `StartError` where that was made
    from something else.
    """
    if not (keep and folder.exists()):
        _write(source, tokenizer, folder)
    try:
        found = json.loads((folder / ORIGIN).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise StartError(f"{folder} is no start model: {ORIGIN} cannot be read") from error
    if found != _origin(source):
        raise StartError(
            f"{folder} was made from {found['from']}, which is not what the recipe starts from now, "
            "or has changed since"
        )
    return replace(
        source,
        name=str(folder.resolve()),
        config=None,
        adapter="same",
        tokenizer=None,
        revision=None,
    )


def _write(source: ModelSource, tokenizer: Any, folder: Path) -> None:
    task: Task = source.task
    if (
        source.config is None
    ):  # merged as what it is; a reward model may start from a language model
        task = "reward" if adapter_task(str(source.name)) == "SEQ_CLS" else "causal"
    model = load_whole(replace(source, load_in_4bit=False, task=task), load_config(source))
    if task == "reward":
        settle(model, tokenizer)
    if source.config is None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(source.name)).merge_and_unload(safe_merge=True)

    def fill(draft: Path) -> None:
        fill_model(model, tokenizer, draft)
        (draft / ORIGIN).write_text(json.dumps(_origin(source), indent=1))

    write_folder(folder, fill)


def _origin(source: ModelSource) -> dict[str, Any]:
    """What the start model is made from; an adapter by its content."""
    if source.config is not None:
        given = {"config": source.config, "seed": source.seed, "dtype": source.dtype}
        task = {} if source.task == "causal" else {"task": source.task}
        return {"from": "fresh weights", **task, **json.loads(json.dumps(given))}
    folder = Path(str(source.name))
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(folder.glob("adapter_*")):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    facts = {"base": adapter_base(source), "revision": source.revision, "dtype": source.dtype}
    return {"from": str(source.name), "adapter": digest.hexdigest(), **facts}
