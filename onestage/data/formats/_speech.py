"""What several formats say alike: transcripts, columns under other names, preferences of a sign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from onestage.data._row_advice import ALIASES
from onestage.data._row_error import RowError, shown
from onestage.data.parts import parsed

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ \t]*")


def is_transcript(value: object) -> bool:
    """Whether a text is a dialogue of "Human:" and "Assistant:", as Anthropic's sets are."""
    if not isinstance(value, str):
        return False
    return value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript(text: str) -> list[dict[str, str]]:
    """The turns of a dialogue; an empty last one is the assistant's that is to come, and left out."""
    parts = TURN.split(text.strip())
    if parts[0].strip():
        raise RowError(f"a transcript must begin with 'Human:', found {shown(text[:60])}")
    turns = [
        {"role": SPEAKERS[speaker], "content": said.strip()}
        for speaker, said in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    return turns


def asked(prompt: Any, system: Any = None) -> Any:
    """A prompt with what the system says before it; alone it stays as it is."""
    if not system:
        return prompt
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [{"role": "system", "content": system}, *turns]


def asked_in(row: Mapping[str, Any]) -> Any:
    """What was asked, with what belongs to it: the `input` or `context` of an instruction, a `system`
    text. RowError where a context stands beside another question, since nobody says how they go
    together."""
    column = column_for(row, "prompt")
    prompt, system = row[column], row.get("system") or row.get("system_prompt")
    details = [row[name] for name in ("input", "context") if name != column and row.get(name)]
    if details and column == "instruction" and isinstance(prompt, str):
        prompt = "\n\n".join([prompt, *map(str, details)])
    elif details:
        raise RowError(f"found a context beside `{column}`: put both into one column `prompt`")
    return asked(prompt, system)


def judged(row: Mapping[str, Any]) -> dict[str, Any]:
    """The feedback of a row under our names, which goes with its response."""
    return {name: row[name] for name in ("label", "score") if row.get(name) is not None}


def column_for(row: Mapping[str, Any], ours: str) -> str:
    """The column that holds what we call `ours`; RowError where none does."""
    for name in (ours, *ALIASES.get(ours, ())):
        if row.get(name) is not None:
            return name
    raise RowError(
        f"needs `{ours}` (or {', '.join(ALIASES.get(ours, ()))}), found {', '.join(row) or 'nothing'}"
    )


def preferred(prompt: Any, first: Any, second: Any, preference: float) -> dict[str, Any]:
    """The pair of two responses; `preference` is above 0 where the second is better."""
    if preference == 0:
        raise RowError("prefers neither response", tie=True)
    better, worse = (second, first) if preference > 0 else (first, second)
    return {"prompt": prompt, "chosen": better, "rejected": worse}


def listed(value: Any) -> Any:
    """A list, or the one that a text is: its JSON, or as Python shows it, as tables hold them."""
    return parsed(value) if isinstance(value, str) else value


def rater(user: Any, number: int) -> str:
    """Who rated: of those without a name each is somebody else."""
    return f"unnamed {number}" if user is None else str(user)


def refuse_several(form: str, judged: Iterable[tuple[str, Mapping[str, Any] | RowError]]) -> None:
    """RowError where answers to several questions would be made one, like those of several raters."""
    judged = list(judged)
    for column, kind in (("score", "score"), ("label", "label"), ("chosen", "pair")):
        asked = [
            question for question, said in judged if isinstance(said, Mapping) and column in said
        ]
        several = list(dict.fromkeys(asked))
        if len(several) > 1:
            raise RowError(
                f"answers several questions ({', '.join(several)}), of which one {kind} would be made: "
                f"say which is meant, as --from '{{name: {form}, question: {several[0]}}}'"
            )


def number(value: Any) -> float | None:
    """What a rating says, or None where it says nothing ("N/A", null)."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
