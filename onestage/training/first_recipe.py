"""A first recipe for somebody's own files: what is in them decides the objective; all keys are told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import yaml

from onestage.config import RecipeError
from onestage.data.kinds import FEEDBACK, Kind
from onestage.data.reading import read
from onestage.data.record import Refusal
from onestage.data.stream import Stream

LOOKED_AT = 10_000
"""Rows of each file that are looked at."""
SAID = {"kind", "columns", "score_range", "encoding", "delimiter", "subset", "split"}
"""What of a stream is written down where it is not as usual."""
ALONE: Mapping[Kind, str] = {"demonstration": "sft", "pair": "dpo", "text": "sft"}
"""The usual objective of data of one kind; `uft` takes any mixture."""


def first_recipe(streams: Sequence[Stream], model: str) -> str:
    """The text of a recipe; `RecipeError` for a file of which no row can be read."""
    kinds: Counter[Kind] = Counter()
    listed = []
    for stream in streams:
        found, refused = _look(stream)
        if not found:
            why = f": {refused[0].where}: {refused[0].reason}" if refused else ""
            raise RecipeError(
                f"{stream.path}: no row can be read{why}; onestage check {stream.path} says what to do"
            )
        kinds += found
        listed.append(_listed(stream, found, len(refused)))
    problems = any(FEEDBACK[kind].asked for kind in kinds)
    return TEXT.format(
        model=_yaml(model),
        data="".join(listed),
        objective=_objective(kinds),
        rollout=ROLLOUT * problems,
    )


def _look(stream: Stream) -> tuple[Counter[Kind], list[Refusal]]:
    found: Counter[Kind] = Counter()
    refused = []
    for item in islice(read(stream), LOOKED_AT):
        if isinstance(item, Refusal):
            refused.append(item)
        else:
            found[item.kind] += 1
    return found, refused


def _listed(stream: Stream, kinds: Counter[Kind], refused: int) -> str:
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    lines = [f"  # {told}" + (f"; {refused:,} rows that cannot be used" if refused else "")]
    lines += [f"  - name: {_yaml(stream.name)}", f"    path: {_yaml(str(stream.path))}"]
    given = stream.model_dump(mode="json", include=SAID, exclude_defaults=True)
    lines += [f"    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
    if any(FEEDBACK[kind].asked for kind in kinds):
        lines.append(
            "    reward: match            # what judges the answers: `onestage list rewards`"
        )
    if any(FEEDBACK[kind].scale == "graded" for kind in kinds) and "score_range" not in given:
        lines.append("    # score_range: [1, 5]    # of the scores as they are given")
    lines.append(
        "    # eval_path: held_out.jsonl   # rows of the same shape, for evaluation losses"
    )
    return "\n".join(lines) + "\n"


def _objective(kinds: Counter[Kind]) -> str:
    """One objective for all streams, or one for the problems and one for everything else."""
    given = [kind for kind in kinds if not FEEDBACK[kind].asked]
    asked = [kind for kind in kinds if FEEDBACK[kind].asked]
    one = ALONE.get(given[0], "uft") if len(given) == 1 else "uft"
    if not asked:
        return one
    words = {**dict.fromkeys(given, one), **dict.fromkeys(asked, "grpo")}
    return "{" + ", ".join(f"{kind}: {name}" for kind, name in words.items()) + "}"


def _yaml(word: str) -> str:
    # On one line, however long a path is: what it stands in is indented.
    return yaml.safe_dump(word, width=float("inf")).removesuffix("\n").removesuffix("\n...")


ROLLOUT = """
rollout:
  num_generations: 8         # answers to each problem
  max_completion_length: 256
"""

TEXT = """\
# Every key is explained in docs/recipe.md; `onestage schema` tells them to an editor.
model:
  name: {model}
  # dtype: bfloat16          # precision the weights are held in; default: as they were saved
  lora: {{r: 16, alpha: 32}}   # train low-rank adapters; without this line, all weights

data:
{data}
# sft for demonstrations, dpo for pairs, uft for any mixture; `onestage list objectives` shows all.
objective: {objective}
{rollout}
train:
  num_train_epochs: 1        # or max_steps: 500
  batch_size: 32             # records in a step, over all streams
  learning_rate: 1.0e-4      # for adapters; 1.0e-5 is usual for all weights
  lr_scheduler_type: cosine
  warmup_ratio: 0.1
  max_length: 1024           # longest path in tokens
  # bf16: true               # compute in bfloat16, on a GPU
  # eval_steps: 50           # needs a stream with eval_path
"""
