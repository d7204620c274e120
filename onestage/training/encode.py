"""Data encoded ahead of time, where runs look for them: for who pays for GPUs only while they train.

A store is named by its content, the tokenizer and the limits (`data.store`), so a run with the same ones
finds it in that cache, or in a copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onestage.data.kept import usable
from onestage.data.reading import passes_by
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.runfolder import Say
from onestage.training.build import CACHED, Draft
from onestage.training.plan import stages_of
from onestage.training.read import Data, check_rows, make_encoder, read_data
from onestage.training.recipe import load_recipe


def encode_recipe(given: Any, overrides: Sequence[str], say: Say) -> Iterator[Data]:
    """Encode all data of a recipe, stage by stage, and find those that are encoded already.

    Raises what would keep a run from reading them, and `RecipeError` for rows that it would refuse.
    """
    whole = load_recipe(given, overrides)
    for stage in stages_of(whole, Path(".")):
        recipe = stage.recipe
        draft = Draft(recipe, stage if whole.stages else None, first=whole.model)
        draft.close()
        if draft.tokenizer is None:
            draft.refuse()
        room = recipe.rollout.max_completion_length
        encoder = make_encoder(recipe.train, draft.tokenizer, room, draft.taught)
        data = encode_streams(recipe.data, encoder, draft.cache, say, recipe.watched)
        yield data
        check_rows(data, recipe.train)


def encode_streams(
    streams: Sequence[Stream],
    encoder: Encoder,
    cache: Path,
    say: Say,
    watched: Sequence[Stream] = (),
) -> Data:
    """Encode some streams, for recipes that have the same rows under the same names and options.

    Those that only pass by are left out, and `say` told: nothing of them could be found again.
    """
    left = {id(s): passes_by(s) or s.portion is not None for s in (*streams, *watched)}
    for stream in (s for s in (*streams, *watched) if left[id(s)]):
        why = "arrives in portions" if stream.portion else "only passes by (streaming)"
        say(f"data {stream.name}: {why}, so each run reads it by itself")
    kept, seen = ([s for s in some if not left[id(s)]] for some in (streams, watched))
    return read_data(kept, seen, encoder, usable(cache, CACHED, say), say)
