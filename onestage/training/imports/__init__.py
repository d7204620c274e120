"""Configurations of other tools become recipes: one file a tool, which says what it calls what.

A tool is a table (its key: ours) and a few lines for what a table cannot say: data, objective, batch.
Everything that is given is accounted for: carried, not needed here (with the reason), or left, which the
user is told, because a recipe that trains otherwise than the old one must not look like it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from onestage.config import Plugins, RecipeError, number

FOREIGN = 2
"""Keys of a tool that no recipe has by mistake."""
COMMON = frozenset({"model", "dataset", "beta", "template", "lora_rank"})
"""Marks that tools which are not read here have, too: alone they say nothing."""
UNNAMED = "to be named"
"""An objective that no recipe can be trained with."""
ON = frozenset(
    {"shuffle_dataset", "dataset_shuffle", "train_dataloader_shuffle", "disable_dropout"}
    | {"double_quantization"}
)
"""Switches that are on where nothing is said: of them, off says something."""
PACKED = ("packing", "sample_packing", "neat_packing")
ROOM = 1024
"""Tokens of a prompt for which there is room where a tool has no bound."""


@dataclass
class Carried:
    """A recipe made of somebody's configuration, and what became of its keys."""

    given: dict[str, Any]
    """What is left of the configuration; taken from as it is read."""
    recipe: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What a reader of the recipe should know."""
    unneeded: dict[str, str] = field(default_factory=dict)
    """Keys that change nothing here, and why."""
    command: str = ""
    """What was typed: `trl dpo`, `swift pt`, or the name of a script; "" of a file."""
    packed: bool = False
    """Whether the tool packs rows though nothing says so."""
    unsaid: list[str] = field(default_factory=list)
    """What the tool does where its configuration says nothing, and what became of that."""

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which then is accounted for; a null is as if it were not there."""
        value = self.given.pop(key, None)
        return default if value is None else value

    def put(self, path: str, value: Any) -> None:
        """Set `section.key` of the recipe."""
        *sections, key = path.split(".")
        place = self.recipe
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value

    @property
    def told(self) -> list[str]:
        """All that a reader of the recipe should know."""
        return [*self.notes, *self.unsaid]

    @property
    def left(self) -> dict[str, Any]:
        """What could not be carried; switches that are off say nothing, where off is usual."""
        return {
            k: v
            for k, v in self.given.items()
            if v not in (None, False, "", [], {}) or (k in ON and v is False)
        }


class Tool(ABC):
    """A training tool whose configurations are read."""

    title: ClassVar[str]
    marks: ClassVar[frozenset[str]]
    """Keys that this tool has and the others have not."""
    commands: ClassVar[frozenset[str]] = frozenset()
    """What it is started by."""
    keys: ClassVar[Mapping[str, str]]
    """Its key: `section.key` of ours, with the same value."""
    unneeded: ClassVar[Mapping[str, str]]
    """Its key: why nothing here depends on it."""

    @abstractmethod
    def rest(self, carried: Carried, devices: int) -> None:
        """What the tables cannot say. devices: on how many it ran, for the size of a batch."""

    def usual(self, carried: Carried, devices: int) -> Mapping[str, Any]:
        """`section.key` of ours: what the tool takes where its configuration does not say."""
        return {}

    def carry(self, given: Mapping[str, Any], devices: int = 1, command: str = "") -> Carried:
        """The recipe of a configuration. command: see `Carried`."""
        plain = {key: _plain(value) for key, value in given.items()}
        carried = Carried(plain, {"model": {}}, command=command)
        packed = any(plain.get(key) is True for key in PACKED)
        prompt = plain.get("max_prompt_length")
        self.rest(carried, devices)
        for key, path in self.keys.items():
            value = carried.take(key)
            if value is not None:
                carried.put(path, value)
        for key, why in self.unneeded.items():
            if carried.take(key) not in (None, False):
                carried.unneeded[key] = why
        _fill(carried, self.usual(carried, devices))
        if packed or carried.packed:
            _of_rows(carried)
        _room(carried, prompt)
        _in_steps(carried)
        _held_out(carried)
        _named(carried)
        order = ("model", "data", "objective", "rollout", "train")
        carried.recipe = {k: carried.recipe[k] for k in order if carried.recipe.get(k)}
        return carried


def _plain(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a text, and a command has objects as their JSON."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            return json.loads(value)
    return number(value) if isinstance(value, str) else value


def objective_of(carried: Carried) -> str:
    """The name of the recipe's objective, as far as it has one."""
    found = carried.recipe.get("objective", "")
    return str(found["name"]) if isinstance(found, dict) else str(found)


def _of_rows(carried: Carried) -> None:
    """A batch of packed rows is one of many more records."""
    train = carried.recipe.get("train", {})
    rows, tokens = train.get("batch_size"), train.get("max_length")
    if objective_of(carried) != "sft" or not (isinstance(rows, int) and isinstance(tokens, int)):
        return
    carried.notes.insert(
        0,
        f"packing: a step there is {rows} rows of up to {tokens} tokens, each of as many records as it "
        f"holds; batch_size {rows} here is of records. For as much data in a step set it to "
        f"{rows * tokens} / the mean tokens of a record (onestage check RECIPE --tokenizer MODEL)",
    )


def _room(carried: Carried, prompt: Any) -> None:
    """Where answers are drawn, `max_length` is of a prompt and its answer; tools bound the prompt."""
    if "rollout" not in carried.recipe:
        return
    train = carried.recipe.get("train", {})
    told = prompt if isinstance(prompt, int) else train.get("max_length")
    answer = carried.recipe["rollout"].get("max_completion_length", 256)
    if not isinstance(answer, int) or not (told is None or isinstance(told, int)):
        return
    carried.put("train.max_length", (told or ROOM) + answer)
    bound = "" if told else ", for which no bound is given: longer ones want a larger max_length"
    asked = f"{told or ROOM} tokens of a prompt{bound}"
    carried.notes.append(f"max_length is of a prompt and its answer: {asked}, and {answer}")


def _fill(carried: Carried, usual: Mapping[str, Any]) -> None:
    """What the tool takes of itself is written down where nothing says otherwise: our defaults are
    others, and a recipe with those would train otherwise without a word."""
    filled = {}
    for path, value in usual.items():
        section, key = path.split(".")
        if key not in carried.recipe.get(section, {}):
            carried.put(path, value)
            filled[path] = value
    if filled:
        told = ", ".join(f"{path} {value}" for path, value in filled.items())
        carried.unsaid.append(f"not given, and written as the tool takes it of itself: {told}")


def _named(carried: Carried) -> None:
    """An objective that could not be carried is not ours by default."""
    if "objective" not in carried.recipe:
        carried.recipe["objective"] = UNNAMED
        carried.unsaid.append(
            f"no objective could be carried: name one where the recipe has {UNNAMED!r} (onestage list "
            "objectives)"
        )


def _in_steps(carried: Carried) -> None:
    """How often something is done is given in steps here, and elsewhere also as a part of the run."""
    train = carried.recipe.get("train", {})
    for key in ("eval_steps", "save_steps", "logging_steps"):
        if isinstance(train.get(key), float) and not train[key].is_integer():
            carried.notes.append(f"{key} {train.pop(key)} of the run: give train.{key} in steps")


def _held_out(carried: Carried) -> None:
    """`eval_steps` needs held-out rows of some stream: told, where none has any."""
    held_out = [
        stream
        for stream in carried.recipe.get("data", [])
        if {"eval_path", "eval_split"} & set(stream)
    ]
    steps = carried.recipe.get("train", {}).get("eval_steps")
    if steps is not None and not held_out:
        del carried.recipe["train"]["eval_steps"]
        carried.notes.append(
            f"eval_steps {steps} is left out: no stream has held-out rows (eval_path)"
        )


PLUGINS = Plugins("tool", __name__, Tool)  # type: ignore[type-abstract]
names, find = PLUGINS.names, PLUGINS.find


def recognise(given: Mapping[str, Any], command: str = "") -> str:
    """The name of the tool whose configuration this is, by its keys, and by the `command` where it is
    one.

    `RecipeError` where none or several know as many of its keys: `--from` says which.
    """
    for name in names():
        if command.split(" ")[0] in find(name).commands:
            return name
    if "data" in given and "objective" in given:
        raise RecipeError(
            "this is a recipe of onestage, which needs no import: onestage check FILE"
        )
    marks = {name: find(name).marks & set(given) for name in names()}
    scores = {name: len(found) if found - COMMON else 0 for name, found in marks.items()}
    best = max(scores.values())
    found = [name for name, score in scores.items() if score == best]
    if best == 0 or len(found) > 1:
        why = f"could be of {' or '.join(found)}"
        why = why if best else f"has no key that {', '.join(names())} alone have"
        raise RecipeError(f"the configuration {why}; say whose it is: --from NAME")
    return found[0]


def refuse_foreign(given: Mapping[str, Any], file: object) -> None:
    """`RecipeError` for a file that is another tool's configuration, taken for a recipe."""
    if "data" in given:
        return
    known = {name: len(find(name).marks & set(given)) for name in names()}
    best = max(known, key=lambda name: known[name])
    if known[best] >= FOREIGN:
        raise RecipeError(
            f"{file} is a configuration of {find(best).title}, by its keys; make a recipe of it: "
            f"onestage import {file}"
        )
