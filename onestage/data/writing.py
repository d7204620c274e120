"""A record as a row of ours again: what `onestage convert` writes, and `data/rows.py` reads back."""

from __future__ import annotations

from typing import Any

from onestage.data.kinds import FEEDBACK
from onestage.data.messages import Turns
from onestage.data.record import Record


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
