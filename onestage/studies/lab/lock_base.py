"""The base of the locks: a Llama of 0.13 million parameters that acts as people do, made in seconds."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from onestage.data.kept import drafted
from onestage.runfolder import Say, digest_of
from onestage.runfolder.seal import damage
from onestage.studies.lab.lock import ACTIONS, CUES, NONE, OPEN, THEN, LockWorld
from onestage.studies.lab.presets import llama
from onestage.studies.lab.tokenizer import SPECIAL, UNKNOWN, finished
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

ATTEMPTS = 8_000
"""Each pair of cue and action before is seen about a thousand times."""
SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    "initializer_range": 0.06,
}
TRAIN: dict[str, Any] = {
    "max_steps": 250,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.05,
    "tokens_per_row": 1024,
    "logging_steps": 50,
}


def lock_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, with the space before it, so that what is decoded is what was encoded."""
    words = [*SPECIAL, OPEN, NONE, THEN, *(f" {word}" for word in (*CUES, *ACTIONS))]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s?\S+"), "isolated")
    inner.decoder = decoders.Fuse()
    return finished(inner)


def make_lock_base(
    world: LockWorld,
    cache: Path,
    say: Say,
    *,
    attempts: int = ATTEMPTS,
    train: dict[str, Any] | None = None,
) -> Path:
    """The base's folder: an ordinary run from a recipe, or found from an earlier one.

    It is kept under a digest of what it is made from, `cache/lab/bases/DIGEST`, and is there whole or
    not at all. It depends on the world's seed and places and on no other part: all horizons share it.
    `train` overrides settings of the recipe's section. One that is damaged is made anew, and said.
    """
    tokenizer, most = lock_tokenizer(), 2 * world.places + 8
    settings = {**TRAIN, "max_length": most, "seed": world.seed, **(train or {})}
    config, rows = llama(tokenizer, SHAPE), list(world.attempts(attempts))
    folder = cache / "lab" / "bases" / digest_of(["lock", config, settings, rows])
    wrong = damage(folder)
    if wrong is None:
        say(f"base of the locks found: {folder}")
        return folder
    if os.path.lexists(folder):
        say(f"the base of the locks that was made before is damaged ({wrong}); made anew")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        tokenizer.save_pretrained(draft / "tokenizer")
        text = draft / "attempts.jsonl"
        text.write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = {
            "model": {"config": config, "tokenizer": str(draft / "tokenizer")},
            "data": [{"name": "attempts", "path": str(text), "kind": "demonstration"}],
            "objective": "sft",
            "train": settings,
            "cache_dir": str(draft / "cache"),
        }
        say(f"pretraining the base of the locks: {folder}")
        model = carry_out(parse_recipe(recipe), draft / "run", say=say)
        with drafted(folder) as place:
            for file in model.iterdir():
                os.replace(file, place / file.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
