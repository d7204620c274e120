"""Any task, group or tag of `lm-eval` (Gao et al.) by its name, or a YAML file of one's own.

The number of a task is its `acc_norm`, else `acc`, else `exact_match`, else its first metric; all of its
metrics stand beside it.
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
        return [Part(Path(one).stem, one, self.shots) for one in named]
