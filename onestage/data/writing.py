"""A record as a row of ours again: what `onestage convert` writes, and `data/rows.py` reads back."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from onestage.data.kinds import FEEDBACK
from onestage.data.messages import Turns
from onestage.data.record import Record
from onestage.runfolder.disk import whole_file


@contextmanager
def rows_file(out: Path) -> Iterator[IO[bytes]]:
    """A file of rows to fill, packed where it is called .gz, which is there whole or not at all."""
    with whole_file(out) as opened:
        if out.suffix != ".gz":
            yield opened
            return
        # No name and no time within, so that the same rows give the same file.
        with gzip.GzipFile("", "wb", fileobj=opened, mtime=0) as packed:
            yield cast(IO[bytes], packed)


def row_of(record: Record) -> dict[str, Any]:
    """The row whose record this is; scores are in [0, 1]. It has a `kind` where it would be read as
    another one without."""
    row = {"id": record.id, **_feedback(record)}
    if FEEDBACK[record.kind].asked:
        if record.completions:
            row |= {"completion": _plain(record.completions[0]), "kind": record.kind}
        row |= {"solution": list(record.solution)} if record.solution else {}
        row |= record.facts
    row |= dict(record.template) and {"chat_template_kwargs": dict(record.template)}
    if record.weight != 1:
        row["weight"] = record.weight
    return row


def _feedback(record: Record) -> dict[str, Any]:
    kind, scores = FEEDBACK[record.kind], record.scores
    said = [_plain(turns) for turns in record.completions]
    if kind.layout == "windows":
        return {"text": said[0]}
    if record.kind == "demonstration" and not record.prompt and not isinstance(said[0], str):
        return {"messages": said[0]}
    prompt = {"prompt": _plain(record.prompt)}
    if kind.paired:
        pair = {**prompt, "chosen": said[0], "rejected": said[1]}
        return {**pair, "chosen_score": scores[0], "rejected_score": scores[1]} if scores else pair
    if len(said) > 1:
        return {**prompt, "completions": said, "scores": list(scores)}
    if kind.asked:
        return prompt
    judged: dict[str, Any] = {"none": {}, "thumb": {"label": bool(scores and scores[0])}}.get(
        kind.scale, {"score": scores[0] if scores else None}
    )
    return {**prompt, "completion": said[0], **judged}


def _plain(turns: Turns) -> str | list[Any]:
    return turns if isinstance(turns, str) else [dict(message) for message in turns]
