"""GGUF files, by llama.cpp's own converter, which knows how each architecture's weights are named there.

The converter is a script of llama.cpp's source and no package: it is asked for where people have it, as
another process, which needs nothing of ours.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

SCRIPT = "convert_hf_to_gguf.py"
HERE = "LLAMA_CPP"
"""In the environment: llama.cpp's folder."""
TYPES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}
"""The converter's names of precisions."""
WANTED = (
    "get it with `git clone https://github.com/ggml-org/llama.cpp` (the source package of "
    "llama-cpp-python has it, too, in vendor/llama.cpp) and `pip install sentencepiece`, and give its "
    f"folder as --converter or ${HERE} (the package gguf alone has no converter)"
)
MISSING = re.compile(r"No module named '(\w+)")


def find_converter(given: Path | None) -> Path:
    """The converter's script. Raises `ValueError`: where to get it."""
    named = os.environ.get(HERE)
    on_path = shutil.which(SCRIPT)
    places = [given] if given else [Path(named)] if named else [Path("llama.cpp")]
    if on_path and given is None and named is None:
        places.insert(0, Path(on_path))
    for place in places:
        file = place / SCRIPT if place.is_dir() else place
        if file.is_file():
            return file
    where = f"at {given or named}" if given or named else "on the PATH or in ./llama.cpp"
    raise ValueError(f"--gguf: llama.cpp's {SCRIPT} is not {where}; {WANTED}")


def convert(
    script: Path, folder: Path, name: str, dtype: torch.dtype, say: Callable[[str], None]
) -> Path:
    """Write `NAME-bf16.gguf` (by the precision) into a model folder. Raises `RuntimeError` with what the
    converter says."""
    kind = TYPES[dtype]
    file = folder / f"{name}-{kind}.gguf"
    say(f"{script}: {file.name}")
    words = [str(folder), "--outfile", str(file), "--outtype", kind, "--model-name", name]
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False
    )
    if done.returncode or not file.is_file():
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = said[-1] if said else "it says nothing"
        missing = MISSING.search(last)
        # Not by llama.cpp's own list of requirements, which brings another torch.
        then = f"pip install {missing[1]}" if missing else "see what it needs"
        raise RuntimeError(
            f"{script} could not convert the model ({last}); {then}, or export without --gguf"
        )
    return file
