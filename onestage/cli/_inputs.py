"""What commands are given: models, data files, columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_model(model: str, tokenizer: str | None, dtype: str) -> Any:
    """The policy, which has its tokenizer; a mistyped precision is refused before anything is read."""
    from onestage import models

    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype {dtype!r}: allowed are auto, float32, bfloat16, float16")
    return models.open(model, dtype, tokenizer)  # type: ignore[arg-type]


def source_of_rows(
    path: str, kind: str | None, column: list[str] | None, score_range: tuple[float, float]
) -> Any:
    from onestage.data.rows import Columns
    from onestage.data.stream import Source

    rename = {}
    for item in column or []:
        ours, equals, theirs = item.partition("=")
        if not equals:
            raise ValueError(f"--column {item!r}: expected OURS=THEIRS")
        rename[ours] = theirs
    name = Path(path).name.split(".")[0] or "data"
    columns = Columns(source=name, kind=kind, rename=rename, score_range=score_range)  # type: ignore[arg-type]
    return Source(path=path, columns=columns)
