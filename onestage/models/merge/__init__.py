"""Merging trained models of one base: what can be asked for, and the call that does it.

Nothing here loads a library of models before a merge is run, so the command line makes its flags from
these sections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from onestage.config import Section, nearest
from onestage.data.stream import Stream
from onestage.runfolder import require_writable

if TYPE_CHECKING:
    from onestage.models.merge.run import Merged

LINEAR, SLERP, ADAPTIVE = "linear", "slerp", "ama"
RANDOM = ("dare_linear", "dare_ties")
TIES = "ties"
TRIMMED = (TIES, *RANDOM)
"""Methods that keep a share `density` of each delta's entries."""
METHODS = (LINEAR, "task_arithmetic", *TRIMMED, SLERP, ADAPTIVE)
DENSITY = 0.2
"""The TIES paper's own; DARE's authors drop 90 % and more of SFT deltas and less of large ones."""


class Adaptive(Section):
    """Options of adaptive model averaging (see `adaptive`, which has the formula), as published."""

    blocks: int = 3
    """Blocks of layers."""
    mean: float = 0.2
    """Mean share of PRE-TRAINED."""
    epsilon: float = 0.2
    """Keeps the shares near."""
    penalty: float = 1e-4
    """On their distance."""
    learning_rate: float = 0.05
    """Of Adam."""
    epochs: int = 1
    batch_size: int = 8
    """Responses a step."""
    tokens_per_row: int = 2048

    @model_validator(mode="after")
    def _ranges(self) -> Adaptive:
        if not 0 < self.mean < 1:
            raise ValueError(f"--mean must lie between 0 and 1, found {self.mean}")
        for name in ("blocks", "epochs", "batch_size", "epsilon", "penalty", "learning_rate"):
            value = getattr(self, name)
            least = 1 if isinstance(value, int) else 0
            if not least <= value < math.inf:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be {least} or more, found {value}")
        return self


class Merge(Section):
    """One whole model from several, or from one adapter and its base. What cannot be honoured is refused
    before anything is loaded."""

    LOOKED_AT_ELSEWHERE = frozenset({"weights"})

    models: list[str]
    """Adapters of one base (one alone goes into it), or whole models. For ama: PRE-TRAINED, ALIGNED."""
    out: Path
    """Model folder to make; it must not exist."""
    method: str = LINEAR
    """linear, task_arithmetic, ties, dare_linear, dare_ties, slerp or ama."""
    weights: list[float] | None = None
    """Weight of a model, once for each. Default: equal; 1 with deltas."""
    density: float | None = None
    """ties, dare: share of entries kept. Default: 0.2."""
    base: str | None = None
    """The base of whole models, or of one adapter whose base has moved. Default: the adapters' own."""
    seed: int | None = None
    """dare: of what is dropped; ama: of the order. Default: 0."""
    data: Stream | None = None
    """Records: AMA's responses, and what models are compared on."""
    max_length: int = Field(default=2048, ge=2)
    """Longest path in tokens."""
    min_score: float | None = None
    """Scored responses are good from here on."""
    adaptive: Adaptive | None = None
    device: str = "cpu"
    """cpu, cuda, ... Only ama's training and the comparison take long enough to want another."""

    @model_validator(mode="after")
    def _possible(self) -> Merge:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}{nearest(self.method, METHODS)}")
        self._check_models()
        self._check_weights()
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(f"--density must lie in (0, 1], found {self.density}")
        self._check_unused()
        if self.method == ADAPTIVE and self.data is None:
            raise ValueError("ama needs good responses of the aligned model: give --data")
        if self.out.exists():
            raise ValueError(f"{self.out} exists already: choose another --out")
        require_writable(self.out)
        return self

    def _check_models(self) -> None:
        if self.alone:
            return
        if len(self.models) < 2:
            raise ValueError(
                f"merging needs two or more models, found {len(self.models)}; one alone must be a "
                "folder with an adapter, which is merged into its base"
            )
        # Two spellings of one folder would be merged with themselves.
        places = [Path(name).resolve() if Path(name).is_dir() else name for name in self.models]
        if len(set(places)) < len(places):
            raise ValueError(
                f"one model is named twice: {', '.join(self.models)}; give it a larger --weights instead"
            )
        if self.method in (SLERP, ADAPTIVE) and len(self.models) != 2:
            raise ValueError(f"{self.method} merges exactly two models, found {len(self.models)}")

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        if len(self.weights) != len(self.models):
            raise ValueError(
                f"found {len(self.weights)} --weights for {len(self.models)} models: give one for each"
            )
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise ValueError(
                f"--weights must be 0 or more and not all 0, found "
                f"{', '.join(map(str, self.weights))}"
            )

    def _check_unused(self) -> None:
        used = {
            "density": self.method in TRIMMED,
            "seed": self.method in (*RANDOM, ADAPTIVE),
            "weights": self.method != ADAPTIVE,
            "min_score": self.method == ADAPTIVE,
        }
        if self.alone and self.method != LINEAR:
            raise ValueError(
                f"--method {self.method} merges several models, and one adapter is merged into its base "
                "as it is: leave it out, or name more models"
            )
        for name, honoured in used.items():
            if getattr(self, name) is not None and not (honoured and not self.alone):
                flag, what = name.replace("_", "-"), "one adapter" if self.alone else self.method
                raise ValueError(f"--{flag} has no meaning for {what}: leave it out")
        if self.adaptive is not None and self.method != ADAPTIVE:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in Adaptive.model_fields)
            raise ValueError(f"{names} have no meaning for {self.method}: leave them out")

    @property
    def alone(self) -> bool:
        """Whether one adapter is merged into its base."""
        return len(self.models) == 1 and (Path(self.models[0]) / "adapter_config.json").is_file()

    @property
    def needs_base(self) -> bool:
        """Averages need no base: theirs is a weighted mean of whole weights."""
        return self.method not in (LINEAR, ADAPTIVE)

    def filled(self) -> dict[str, Any]:
        """The options with their defaults, as far as the method has them."""
        used: dict[str, Any] = {"method": self.method, "models": list(self.models)}
        if self.method == ADAPTIVE:
            return used | (self.adaptive or Adaptive()).model_dump() | {"seed": self.seed or 0}
        used["weights"] = list(self.weights or [1.0] * len(self.models))
        if self.method in TRIMMED:
            used["density"] = self.density or DENSITY
        if self.method in RANDOM:
            used["seed"] = self.seed or 0
        return used


def merge(models: Sequence[str | Path], out: str | Path, **options: Any) -> Merged:
    """One whole model from several, saved to the folder `out`: what `onestage merge` does.

    models: folders or hub ids of adapters of one base (one alone is merged into it), or of whole models
    of one architecture (for `ama` the pre-trained and the aligned one); options: the other fields of
    `Merge`. What comes back says how far each model is from the merged one, in logits and in KL (nats a
    token).

    Raises `ValueError` for what cannot be merged or asked for and `RuntimeError` for a folder that does
    not give the merged model's logits; then there is no folder.
    """
    return carried_out(Merge(models=[str(m) for m in models], out=Path(out), **options))


def carried_out(asked: Merge, say: Callable[[str], None] = lambda line: None) -> Merged:
    """Do what a section asks; raises as `merge`."""
    from onestage.models.merge import into_base, run

    return (into_base if asked.alone else run).run(asked, say)
