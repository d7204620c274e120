"""The last mile: a trained model as other programs take it. What can be asked for, and the call.

`write.py` exports, `gguf.py` asks llama.cpp's converter, `serving.py` knows the commands that serve a
folder, `upload.py` brings one to the hub. Nothing here loads a library of models before it is run, so
the command line makes its flags from this section.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from onestage.config import Section, nearest
from onestage.runfolder import require_writable

if TYPE_CHECKING:
    from onestage.models.release.write import Exported

PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
SIZE = re.compile(r"\d+(\.\d+)?(MB|GB)")


class Export(Section):
    """One whole folder of a model, in a precision and in shards. What cannot be honoured is refused
    before anything is loaded."""

    model: str
    """A model or adapter folder, or hub id; an adapter is merged into its base."""
    out: Path
    """Model folder to make; it must not exist."""
    dtype: str = "auto"
    """bf16, fp16 or fp32. Default: the precision it has."""
    shard_size: str = "5GB"
    """The largest weight file: a number with MB or GB."""
    base: str | None = None
    """Where an adapter's base lies, if it has moved. Default: what the adapter says."""
    gguf: bool = False
    """A GGUF file beside it, by llama.cpp's converter."""
    converter: Path | None = None
    """llama.cpp's folder, or its convert_hf_to_gguf.py. Default: $LLAMA_CPP, the PATH, ./llama.cpp."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling default to write; 0 is greedy. Default: what the model has."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Sampling default to write. Default: what the model has."""
    top_k: int | None = Field(default=None, ge=0)
    """Sampling default to write. Default: what the model has."""

    @model_validator(mode="after")
    def _possible(self) -> Export:
        if self.precision not in ("auto", *PRECISIONS.values()):
            raise ValueError(f"--dtype {self.dtype!r}{nearest(self.dtype, ['auto', *PRECISIONS])}")
        size = SIZE.fullmatch(self.shard_size)
        if size is None or float(self.shard_size[:-2]) == 0:
            raise ValueError(
                f"--shard-size {self.shard_size!r}: write a number and MB or GB, as 5GB"
            )
        said = [name for name in ("top_p", "top_k") if getattr(self, name) is not None]
        if self.temperature == 0 and said:
            raise ValueError(
                f"--{said[0].replace('_', '-')}: changes nothing at --temperature 0, which is greedy"
            )
        if self.converter is not None and not self.gguf:
            raise ValueError("--converter is for --gguf: add that, or leave it out")
        if self.out.exists():
            raise ValueError(f"{self.out} exists already: choose another --out")
        require_writable(self.out)
        return self

    @property
    def precision(self) -> str:
        """As torch names it, or `auto`."""
        return PRECISIONS.get(self.dtype, self.dtype)

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling defaults that are asked for."""
        named = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return {name: value for name, value in named.items() if value is not None}


def export(model: str | Path, out: str | Path, **options: Any) -> Exported:
    """Write a model as one whole folder that plain transformers, vLLM and llama.cpp's converter take.

    model: a model or adapter folder, or hub id; options: the other fields of `Export`. Raises
    `ValueError` for what cannot be had or asked for, `DiskFullError` where there is no room, and
    `RuntimeError` for a folder that does not give the model's logits; then there is no folder.
    """
    from onestage.models.release.write import run

    return run(Export(model=str(model), out=Path(out), **options))
