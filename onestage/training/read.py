"""What a run reads: its streams, encoded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from onestage.config import RecipeError
from onestage.data.store import Store, open_store, tokenizer_digest
from onestage.data.tokenize import Encoder
from onestage.runfolder import Say, default_cache
from onestage.training.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """The stores of a run, by stream; `held_out` where a stream has evaluation rows."""

    train: dict[str, Store]
    held_out: dict[str, Store]
    retention: dict[str, Store] = field(default_factory=dict)
    """What is only watched, by the probe."""

    def table(self) -> dict[str, Any]:
        """The data table, as written to `data.json`."""
        parts = {"train": self.train, "eval": self.held_out}
        if self.retention:
            parts["retention"] = self.retention
        return {
            part: {name: asdict(store.table) for name, store in stores.items()}
            for part, stores in parts.items()
        }


def cache_folder(recipe: Recipe) -> Path:
    """Where encoded data and reference log-probabilities are kept between runs."""
    return Path(recipe.cache_dir).expanduser() if recipe.cache_dir else default_cache()


def make_encoder(recipe: Recipe, tokenizer: Any) -> Encoder:
    """How the recipe's records become token ids. `overflow: error` is judged later (`judge`)."""
    cut = recipe.train.overflow == "truncate_prompt"
    room = recipe.rollout.max_completion_length
    return Encoder(tokenizer, recipe.train.max_length, "truncate_prompt" if cut else "drop", room)


def read_data(recipe: Recipe, tokenizer: Any, say: Say) -> Data:
    """Read, check and encode every stream (or find it encoded). Judges nothing: see `judge`."""
    encoder = make_encoder(recipe, tokenizer)
    cache, digest = cache_folder(recipe), tokenizer_digest(tokenizer)
    found = Data({}, {}, {})
    wanted = [("", stream, found.train) for stream in recipe.data]
    wanted += [
        (" (held out)", held_out, found.held_out)
        for stream in recipe.data
        if (held_out := stream.held_out)
    ]
    watched = recipe.probe.retention if recipe.probe else []
    wanted += [(" (retention)", stream, found.retention) for stream in watched]
    for note, stream, stores in wanted:
        # only problems need room for a completion: another length must not encode the rest anew
        fitting = encoder if stream.reward is not None else replace(encoder, room=0)
        store, known = open_store(stream, fitting, cache, digest)
        stores[stream.name] = store
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in store.table.records.items())
        say(
            f"data {stream.name}{note}: {kinds or 'no records'}; "
            f"{store.table.tokens:,} tokens{' (encoded before)' if known else ''}"
        )
    return found


def judge(recipe: Recipe, data: Data) -> None:
    """Refuse data that the recipe does not allow, naming file, row and what to do."""
    stores = [*data.train.items(), *data.held_out.items(), *data.retention.items()]
    for name, store in stores:
        table, shown = store.table, "\n  ".join(store.table.reasons[:5])
        if table.overlong and recipe.train.overflow == "error":
            raise RecipeError(
                f"data {name}: {table.overlong} records are longer than train.max_length; raise it, "
                f"or set train.overflow to drop or truncate_prompt\n  {shown}"
            )
        if table.refused > table.overlong and recipe.train.bad_rows == "error":
            raise RecipeError(
                f"data {name}: {table.refused - table.overlong} rows cannot be used; mend them, or "
                f"set train.bad_rows to skip to leave them out\n  {shown}"
            )
        if not len(store):
            raise RecipeError(f"data {name}: no record is left to train on\n  {shown}")
    rewards = {stream.name: stream.reward for stream in recipe.data}
    for name, store in stores:
        asked = store.table.has_problems
        if asked and rewards.get(name) is None:
            raise RecipeError(
                f"data {name}: holds problems to solve (check records); say what judges the answers "
                "with reward, or train on worked ones with kind: demonstration"
            )
        if not asked and rewards.get(name) is not None:
            raise RecipeError(f"data {name}: has a reward but no problem to solve (check records)")
