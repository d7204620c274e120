"""Self-generated replay in the lab: how the base itself goes on where its text begins.

Demonstrations that the start model drew itself, at temperature 1, are what its loss of forgetting is an
average over: their loss under the model now is KL(start model to model now) and a number that no
training changes. So they need none of the text that the base was made from, but for how it begins.
"""

from __future__ import annotations

import json
from pathlib import Path

from onestage import models
from onestage.rollout.complete import drawn
from onestage.rollout.engines import Decoding
from onestage.runfolder import Say, write_text
from onestage.studies.lab.source import Rows

BEGINNING = 6
"""Words of a text that are given."""
LONGEST = 64
"""Tokens of a continuation at most, as of the texts themselves."""


def write_own(base: Path, world: Rows, folder: Path, number: int, *, seed: int, say: Say) -> None:
    """Write `own.train.jsonl` (prompt, completion), unless it is there. The folder is of this base and
    number alone.

    number: of texts of the world that are begun. What was cut is left out, and said. Raises
    `ValueError` where the world has fewer texts.
    """
    file = folder / "own.train.jsonl"
    if file.is_file():
        return
    texts = [row["text"] for row in world.rows("text", "train")]
    if number > len(texts):
        raise ValueError(f"world lab: own may be at most {len(texts)}, its texts; got {number}")
    prompts = [" ".join(text.split()[:BEGINNING]) for text in texts[:number]]
    said = drawn(models.open(base), prompts, Decoding(LONGEST), seed=seed)
    rows = [
        {"prompt": prompt, "completion": f" {one.text}"}
        for prompt, one in zip(prompts, said, strict=True)
        if one.ended
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    say(f"{file}: {len(rows):,} continuations by the base, {number - len(rows):,} were cut")
