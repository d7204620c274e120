"""What commands are given: models, data files, columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage.data.stream import Stream


def load_model(model: str, tokenizer: str | None, dtype: str) -> Any:
    """The policy, which has its tokenizer; a mistyped precision is refused before anything is read."""
    from onestage import models
    from onestage.cli._terminal import complaints
    from onestage.models.rates import slow_precision

    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype {dtype!r}: allowed are auto, float32, bfloat16, float16")
    policy = models.open(model, dtype, tokenizer)  # type: ignore[arg-type]
    if slow := slow_precision(policy.dtype, policy.device.type):
        complaints.print(f"{slow} (--dtype float32)", highlight=False, soft_wrap=True)
    return policy


def refuse_unused(what: str, sort: str, given: Mapping[str, Any]) -> None:
    """ValueError for flags of which a recipe, or a data file, would make nothing."""
    for flag, value in given.items():
        if value not in (None, [], (0, 1)):
            raise ValueError(f"--{flag.replace('_', '-')}: changes nothing for {what}, {sort}")


def stream_of(
    path: str,
    kind: str | None,
    column: list[str] | None,
    score_range: tuple[float, float],
    **written: str | None,
) -> Stream:
    """The rows that a command is pointed at, named after their file. `written`: how they are, as a
    stream says it (`encoding`, `delimiter`, `subset`)."""
    from onestage.config import checked
    from onestage.data.stream import Stream, name_of

    columns = {}
    for item in column or []:
        ours, equals, theirs = item.partition("=")
        if not equals:
            raise ValueError(f"--column {item!r}: expected OURS=THEIRS")
        columns[ours] = theirs
    told = {"kind": kind, "columns": columns, "score_range": score_range, **written}
    return checked(Stream, {"name": name_of(path), "path": path, **told})
