"""Fine-tune a language model in one stage, on any mixture of feedback.

    import onestage as one

    run = one.train(model="Qwen/Qwen3-0.6B", data={"chat": "chat.jsonl"}, out="runs/first")
    one.check("recipe.yaml")  # what `train` would refuse, and what it would train on

The same words as in recipes: `Model`, `Lora`, `Stream`, `Train`, ... are sections; `objectives`,
`schedules`, `rewards`, `hints` and `suites` hold what they name. The pieces can be used alone, in a loop
of one's own: `read`, `encode`, `pack`, `load`, `answer`, `score`, `complete`. Names are loaded when they
are first used, so that `import onestage` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage import objectives as objectives
    from onestage import schedules as schedules
    from onestage.config import RecipeError as RecipeError
    from onestage.data.packing import pack_records as pack
    from onestage.data.reading import read as read
    from onestage.data.stream import Stream as Stream
    from onestage.data.tokenize import encode as encode
    from onestage.models import Lora as Lora
    from onestage.models import Model as Model
    from onestage.models import open as load
    from onestage.models.merge import merge as merge
    from onestage.report.page import report as report
    from onestage.rollout import hints as hints
    from onestage.rollout import rewards as rewards
    from onestage.rollout import suites as suites
    from onestage.rollout.complete import complete as complete
    from onestage.rollout.engines import Decoding as Decoding
    from onestage.rollout.rollout import Rollout as Rollout
    from onestage.studies.evaluate import evaluate as evaluate
    from onestage.studies.study import study as study
    from onestage.training.answered import answer as answer
    from onestage.training.callbacks import Callback as Callback
    from onestage.training.recipe import Guard as Guard
    from onestage.training.recipe import Optimum as Optimum
    from onestage.training.recipe import Probe as Probe
    from onestage.training.recipe import Stage as Stage
    from onestage.training.recipe import Train as Train
    from onestage.training.score import score as score
    from onestage.training.train import Trained as Trained
    from onestage.training.train import check as check
    from onestage.training.train import train as train

_WHERE = {
    "onestage.config": "RecipeError",
    "onestage.data.reading": "read",
    "onestage.data.stream": "Stream",
    "onestage.data.tokenize": "encode",
    "onestage.models": "Lora Model",
    "onestage.models.merge": "merge",
    "onestage.report.page": "report",
    "onestage.rollout.complete": "complete",
    "onestage.rollout.engines": "Decoding",
    "onestage.rollout.rollout": "Rollout",
    "onestage.studies.evaluate": "evaluate",
    "onestage.studies.study": "study",
    "onestage.training.answered": "answer",
    "onestage.training.callbacks": "Callback",
    "onestage.training.recipe": "Guard Optimum Probe Stage Train",
    "onestage.training.score": "score",
    "onestage.training.train": "Trained check train",
}
_OTHERWISE = {
    "load": ("onestage.models", "open"),
    "pack": ("onestage.data.packing", "pack_records"),
}
"""Named otherwise where they are."""
_MODULES = {
    "hints": "onestage.rollout.hints",
    "suites": "onestage.rollout.suites",
    "objectives": "onestage.objectives",
    "rewards": "onestage.rollout.rewards",
    "schedules": "onestage.schedules",
}
_MOVED = {
    "run_recipe": "train",
    "run_stages": "train",
    "Session": "train",
    "Recipe": "training.recipe.Recipe",
    "load_recipe": "train (it reads a recipe's file)",
    "parse_recipe": "train (it takes a recipe's content)",
}
"""Names of version 0.1.0."""

_PLACE = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = [
    "Callback",
    "Decoding",
    "Guard",
    "Lora",
    "Model",
    "Optimum",
    "Probe",
    "RecipeError",
    "Rollout",
    "Stage",
    "Stream",
    "Train",
    "Trained",
    "answer",
    "check",
    "complete",
    "encode",
    "evaluate",
    "hints",
    "load",
    "merge",
    "objectives",
    "pack",
    "read",
    "report",
    "rewards",
    "schedules",
    "score",
    "study",
    "suites",
    "train",
]


if not TYPE_CHECKING:  # which would take any name for known

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(_MODULES[name])
        if name in _OTHERWISE:
            module, theirs = _OTHERWISE[name]
            return getattr(importlib.import_module(module), theirs)
        if name in _PLACE:
            return getattr(importlib.import_module(_PLACE[name]), name)
        if name in _MOVED:
            raise ImportError(f"onestage.{name} is now onestage.{_MOVED[name]}")
        raise AttributeError(f"module 'onestage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
