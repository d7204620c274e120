"""Ranks are one run: they must be told the same, and where one stops the others say so and stop.

Every rank draws the records of a step by itself, so a rank with another recipe, other data or another
version of the code would train on something else than the rest, or wait for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
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
from onestage.training.stopped import RankError

PATIENCE = timedelta(days=30)
SHORT = 60
"""Letters of an option that are told as they are."""
SAME = "the same recipe, data and version of onestage"


def require_same(accelerator: Accelerator, facts: Mapping[str, Any], advice: str = SAME) -> None:
    """Raise `RecipeError` on every rank where one has another fact than the main process.

    `facts`: by what they are called, values that are told in the message, so short ones; `advice`: what
    to give all ranks.
    """
    if accelerator.num_processes == 1:
        return
    first, *others = gather_object([dict(facts)])
    for rank, theirs in enumerate(others, 1):
        for name in sorted(first.keys() | theirs.keys()):
            was, now = first.get(name), theirs.get(name)
            if was != now:
                raise RecipeError(
                    f"rank {rank} has another {name} than rank 0 ({now}, where that has {was}); give "
                    f"all ranks {advice}"
                )


def told(recipe: Any) -> dict[str, Any]:
    """What a recipe says and what carries it out, in a few words each."""
    content = recipe.model_dump(mode="json", exclude={"cache_dir", "description", "data"})
    facts = {
        f"{name} in its recipe": shown
        for section, value in content.items()
        for name, shown in _named(section, value)
    }
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


def all_do(accelerator: Accelerator, work: Callable[[], Any]) -> Any:
    """What `work` returns on this rank, once all have done theirs: where one fails, none waits for it.

    Raises that rank's own error there, and `RankError` in its words on all others. They wait for as long
    as it takes, where a card's own messages give up after ten minutes: weights may be read for longer,
    and rows be encoded for hours. Gloo's connections end with the process at their other end, so nobody
    waits for one that has stopped without a word.
    """
    return tell_all(accelerator, work)[0]


def tell_all(
    accelerator: Accelerator, work: Callable[[], Any], what: Callable[[Any], Any] = lambda _: None
) -> tuple[Any, list[Any]]:
    """As `all_do`, with `what` of each rank's own result, in the order of ranks."""
    if accelerator.num_processes == 1:
        return (mine := work()), [what(mine)]
    accelerator.wait_for_everyone()  # a group is waited for as patiently, also for who never comes
    waiting = distributed.new_group(backend="gloo", timeout=PATIENCE)
    mine, failed = None, None
    try:
        mine = work()
    except Exception as error:  # told to all, and raised below
        failed = error
    said = (" ".join(str(failed).split()) or type(failed).__name__) if failed else ""
    told: list[Any] = [None] * accelerator.num_processes
    distributed.all_gather_object(told, (said, None if failed else what(mine)), waiting)
    distributed.destroy_process_group(waiting)
    if failed:
        raise failed
    for rank, (words, _) in enumerate(told):
        if words:
            here = accelerator.process_index
            raise RankError(f"rank {here} stops here, since rank {rank} has stopped: {words}")
    return mine, [one for _, one in told]


def by_main(accelerator: Accelerator, work: Callable[[], Any]) -> Any:
    """What `work` returns on the main process, which alone does it; None on the others."""
    return all_do(accelerator, lambda: work() if accelerator.is_main_process else None)


def main_first(accelerator: Accelerator, work: Callable[[], Any]) -> Any:
    """What `work` returns on each rank; the main process has done it before the others begin."""
    mine = by_main(accelerator, work)
    return all_do(accelerator, lambda: mine if accelerator.is_main_process else work())


def first_of_node(
    accelerator: Accelerator | None, read: Callable[[Mapping[str, str]], Data]
) -> Data:
    """What `read` returns. A node's first process reads, then its others, who are told where that one
    has found or put everything (`Data.folders`): large data are read through once a node."""
    if accelerator is None or accelerator.num_processes == 1:
        return read({})
    first = accelerator.is_local_main_process
    mine, folders = tell_all(
        accelerator, lambda: read({}) if first else None, lambda data: data and data.folders
    )
    place = accelerator.process_index - accelerator.local_process_index
    return all_do(accelerator, lambda: mine or read(folders[place]))


def _named(section: str, value: Any) -> Iterator[tuple[str, str]]:
    """The options of a section, by name, and what they say."""
    if not isinstance(value, dict):
        yield section, _shown(value)
        return
    yield from ((f"{section}.{key}", _shown(one)) for key, one in value.items())


def _shown(value: Any) -> str:
    """What an option says, or where that is long, a digest of it."""
    text = str(value)
    return text if len(text) <= SHORT else _digest(value)


def _digest(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=4).hexdigest()
