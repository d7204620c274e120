"""Any task, group or tag of `lm-eval` (Gao et al.) by its name, or a YAML file of one's own.

The number of a task is its `acc_norm`, else `acc`, else `exact_match`, else its first metric; that of a
group the metric that it goes by itself, else the first of these that all of its tasks have, else each
task's own. All metrics stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onestage.rollout.suites._harness import Harness, Part


@dataclass(frozen=True)
class LmEval(Harness):
    tasks: str | list[str] = ""
    """Names as `lm-eval ls tasks` lists them, or YAML files."""
    shots: int | None = None
    """Examples in front; default: as each task has it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks:
            raise ValueError("tasks must name one task of lm-eval at least")

    def parts(self) -> Sequence[Part]:
        named = [self.tasks] if isinstance(self.tasks, str) else self.tasks
        found: dict[str, str] = {}
        for one in named:
            name = Path(one).stem if one.endswith((".yaml", ".yml")) else one.rpartition("/")[2]
            if found.setdefault(name, one) != one:
                raise ValueError(
                    f"the suite lm_eval: {found[name]} and {one} would both be called {name}: leave "
                    "one out, or call its file otherwise"
                )
        return [Part(name, one, self.shots) for name, one in found.items()]
