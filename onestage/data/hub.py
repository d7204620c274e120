"""Hugging Face data sets: by hub name, or from a folder made by `save_to_disk`.

`datasets` is imported inside the functions: it takes over a second, and plain files need none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onestage.data.files import BATCH_ROWS, SUFFIXES
from onestage.data.raw import RawRow, columns_to_read, rows_of_table

ADDRESS = "hf://datasets/"
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_saved(given: str) -> bool:
    """Whether this is a folder made by `save_to_disk`."""
    path = Path(given).expanduser()
    try:
        return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    except (OSError, ValueError):  # longer than a path can be
        return False


def is_hub_name(given: str) -> bool:
    """Whether this reads as `owner/name` and is not on this disk."""
    if HUB_NAME.fullmatch(given) is None or given.lower().endswith(SUFFIXES):
        return False
    return not Path(given).exists()


def whole_hub_name(given: str) -> str:
    """`owner/name` for the address of a whole data set, `hf://datasets/owner/name`."""
    name = given.removeprefix(ADDRESS)
    return name if name != given and HUB_NAME.fullmatch(name) else given


def load_saved(given: str, split: str) -> Any:
    """The data set that was saved here; of several splits, the one asked for."""
    import datasets

    try:
        saved = datasets.load_from_disk(Path(given).expanduser())
    except (OSError, ValueError) as error:
        raise ValueError(f"{given}: what save_to_disk wrote is not whole: {error}") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise ValueError(f"{given}: no split {split!r}, found {', '.join(sorted(saved))}")
        return saved[split]
    if split not in ("train", str(saved.split)):
        raise ValueError(f"{given}: no split {split!r}, the saved data set is {saved.split}")
    return saved


def load_hub(name: str, config: str | None, split: str, streaming: bool) -> Any:
    """The hub's data set; every way to fail says what was asked for."""
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split, streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        asked = f"split {split!r}" + (f" of configuration {config!r}" if config else "")
        raise ValueError(
            f"{name}: neither on this disk nor, with {asked}, on the Hugging Face hub: {error}"
        ) from error


def rows_of_dataset(
    dataset: Any, label: str, wanted: frozenset[str], block: int = BATCH_ROWS
) -> Iterator[RawRow]:
    """Every row of a data set, streamed or not; unwanted columns (images, say) are not decoded. `block`:
    rows that are asked for together."""
    unread: tuple[str, ...] = ()
    if dataset.column_names is not None:
        read, unread = columns_to_read(dataset.column_names, wanted)
        if unread:
            dataset = dataset.select_columns(read)
    start = 0
    for table in dataset.iter(batch_size=block):
        count = len(next(iter(table.values()), ()))
        yield from rows_of_table(label, table, start, unread, count)
        start += count
