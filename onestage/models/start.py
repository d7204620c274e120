"""The model a run starts from, where that lies in no folder yet.

A saved adapter is worth what its base is worth: PEFT finds the base by the name in the adapter's
configuration. So a base that this run makes itself (an earlier adapter merged into its base, or fresh
weights) is first written to a folder of its own, and then loaded from there like any other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onestage.models.fingerprint import digest_files
from onestage.models.model import Model, Task
from onestage.models.reward_model import settle
from onestage.models.save import fill_model, write_folder
from onestage.models.source import adapter_base, adapter_task, config_of
from onestage.models.weights import load_whole

ORIGIN = "onestage_origin.json"
"""In the folder of a start model: what it was made from."""


class StartError(ValueError):
    """A start model that was made from something else than the recipe says."""


def needs_folder(source: Model) -> bool:
    """Whether the run starts from weights that no folder holds but a saved model would refer to."""
    merged = source.adapter == "merge" and adapter_base(source) is not None
    return merged or (source.config is not None and source.lora is not None)


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
    if source.config is None:
        # Merged as what it is: a reward model may start from a language model's adapter.
        task = "reward" if adapter_task(str(source.name)) == "SEQ_CLS" else "causal"
    # Adapters are merged into plain weights: a quantised base would round the sum.
    whole = source.model_copy(update={"load_in_4bit": False, "task": task})
    model = load_whole(whole, config_of(source), seed=seed)
    if task == "reward":
        settle(model, tokenizer)
    if source.config is None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(source.name)).merge_and_unload(safe_merge=True)

    def fill(draft: Path) -> None:
        fill_model(model, tokenizer, draft)
        (draft / ORIGIN).write_text(json.dumps(_origin(source, seed), indent=1))

    write_folder(folder, fill)


def _origin(source: Model, seed: int) -> dict[str, Any]:
    """What the start model is made from; an adapter by its content."""
    if source.config is not None:
        given = {"config": source.config, "seed": seed, "dtype": source.dtype}
        task = {} if source.task == "causal" else {"task": source.task}
        return {"from": "fresh weights", **task, **json.loads(json.dumps(given))}
    adapter = digest_files(Path(str(source.name)).glob("adapter_*"))
    facts = {"base": adapter_base(source), "revision": source.revision, "dtype": source.dtype}
    return {"from": str(source.name), "adapter": adapter, **facts}
