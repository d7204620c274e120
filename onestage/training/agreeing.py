"""Ranks are one run: they must be told the same, and where one stops the others say so and stop.

Every rank draws the records of a step by itself, so a rank with another recipe, other data or another
version of the code would train on something else than the rest, or wait for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import distributed

from onestage.config import RecipeError
from onestage.runfolder import code_digest
from onestage.training.read import Data

GONE = ("closed by peer", "reset by peer", "Broken pipe", "Timed out", "remote process exited")
"""What torch's messengers say where the other end is no longer there."""
PATIENCE = timedelta(days=30)


class RankError(RuntimeError):
    """Another rank has stopped."""


def require_same(accelerator: Accelerator, facts: Mapping[str, Any]) -> None:
    """Raise `RecipeError` on every rank where one has another fact than the main process.

    `facts`: by what they are called, values that are told in the message, so short ones.
    """
    if accelerator.num_processes == 1:
        return
    first, *others = gather_object([dict(facts)])
    for rank, theirs in enumerate(others, 1):
        for name in sorted(first.keys() | theirs.keys()):
            was, now = first.get(name), theirs.get(name)
            if was != now:
                raise RecipeError(
                    f"rank {rank} has another {name} than rank 0 ({was} there, {now} here); give all "
                    "ranks the same recipe, data and version of onestage"
                )


def told(recipe: Any) -> dict[str, Any]:
    """What a recipe says and what carries it out, in a few words each."""
    content = recipe.model_dump(mode="json", exclude={"cache_dir", "description", "data"})
    facts = {f"recipe, section {name}": _digest(value) for name, value in content.items()}
    streams = {f"recipe, stream {s.name}": _digest(s.model_dump(mode="json")) for s in recipe.data}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return facts | streams | versions | {"code of onestage": code_digest()}


def read_by(data: Data, plugins: Mapping[str, Any]) -> dict[str, Any]:
    """What a rank has read, by content, and other people's code that it runs."""
    stores = {
        f"{split} data of {name}": store.folder.name
        for split in ("train", "held_out", "retention")
        for name, store in getattr(data, split).items()
    }
    return stores | {f"code of {name}": _digest(facts) for name, facts in plugins.items()}


def first_of_node(
    accelerator: Accelerator | None, read: Callable[[Mapping[str, str]], Data]
) -> Data:
    """What `read` returns. A node's first process reads, then its others, who are told where that one
    has found or put everything (`Data.folders`): large data are read through once a node.

    They wait for as long as it takes, where a card's own messages give up after ten minutes: rows may be
    encoded for hours. Gloo's connections end with the process at their other end, so nobody waits for
    one that has stopped.
    """
    if accelerator is None or accelerator.num_processes == 1:
        return read({})
    accelerator.wait_for_everyone()  # a group is waited for as patiently, also for who never comes
    waiting = distributed.new_group(backend="gloo", timeout=PATIENCE)
    mine = read({}) if accelerator.is_local_main_process else None
    told: list[Any] = [None] * accelerator.num_processes
    distributed.all_gather_object(told, mine.folders if mine else None, waiting)
    first = accelerator.process_index - accelerator.local_process_index
    distributed.destroy_process_group(waiting)
    return mine or read(told[first])


@contextmanager
def among_ranks(accelerator: Accelerator) -> Iterator[None]:
    """Inside, an error that only says that another rank is gone says it in a line (`RankError`)."""
    try:
        yield
    except RuntimeError as error:
        lost = accelerator.num_processes > 1 and any(word in str(error) for word in GONE)
        if not (lost or isinstance(error, distributed.DistBackendError)):
            raise
        raise RankError(
            f"rank {accelerator.process_index} stops here, since another rank has stopped: its own "
            "message says why"
        ) from error


def _digest(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=4).hexdigest()
