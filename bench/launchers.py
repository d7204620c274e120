"""The same run by each launcher, for real: torchrun, and accelerate launch with files of a user's own.

    python bench/launchers.py        # some two minutes

Two ranks of gloo on the CPU. Losses are compared with those of one process. accelerate starts several
processes on the CPU through torchrun where its file is of the type FSDP or MULTI_GPU, and through mpirun
alone where it is MULTI_CPU: without that it starts one, which onestage refuses in a line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import yaml
from support.tiny import TINY, make_tokenizer, write_rows

from onestage.runfolder import read_metrics

PLAIN = {"compute_environment": "LOCAL_MACHINE", "use_cpu": True, "num_machines": 1}
PLAIN |= {"num_processes": 2, "machine_rank": 0, "mixed_precision": "no", "main_process_port": 0}
FSDP = {"fsdp_version": 2, "fsdp_reshard_after_forward": True, "fsdp_offload_params": False}
FILES: dict[str, dict[str, Any]] = {
    "accelerate, FSDP2": {**PLAIN, "distributed_type": "FSDP", "fsdp_config": FSDP},
    "accelerate, MULTI_GPU on the CPU": {**PLAIN, "distributed_type": "MULTI_GPU"},
    "accelerate, MULTI_CPU": {**PLAIN, "distributed_type": "MULTI_CPU"},
}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CLOSE = 1e-6


def recipe(root: Path) -> Path:
    make_tokenizer().save_pretrained(root / "tokenizer")
    rows = [
        {"prompt": f"Q {n}?", "chosen": " the red moon", "rejected": f" {n}"} for n in range(24)
    ]
    data = [{"name": "pairs", "path": str(write_rows(root / "pairs.jsonl", rows))}]
    model = {"config": {"model_type": "llama", **TINY}, "tokenizer": str(root / "tokenizer")}
    train = {"max_steps": 10, "batch_size": 8, "max_length": 64, "logging_steps": 1}
    content = {"model": model, "data": data, "objective": "dpo", "train": train}
    (file := root / "recipe.yaml").write_text(yaml.safe_dump(content))
    return file


def commands(root: Path) -> dict[str, list[str]]:
    """What stands before `-m onestage train`, by what it is called."""
    found = {"one process": [], "torchrun": TORCHRUN}
    for number, (name, content) in enumerate(FILES.items()):
        (file := root / f"{number}.yaml").write_text(yaml.safe_dump(content))
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(file)]
        found[name] = launch
    return found


def line(name: str, before: list[str], file: Path, alone: list[float] | None) -> dict[str, Any]:
    """What came of a run."""
    out = file.parent / name.replace(" ", "_").replace(",", "")
    command = [sys.executable, *before, "-m", "onestage", "train", str(file), "--out", str(out)]
    began = time.perf_counter()
    place = {"ONESTAGE_CACHE": str(file.parent / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **place}, timeout=600
    )
    found: dict[str, Any] = {"launcher": name, "exit": done.returncode}
    found["seconds"] = round(time.perf_counter() - began, 1)
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()
        return found | {"said": next((one for one in said if one.startswith("error:")), said[-1:])}
    losses = [one["loss"] for one in read_metrics(out) if "loss" in one]
    found["losses"] = losses
    if alone:
        found["loss_apart"] = max(abs(a - b) for a, b in zip(alone, losses, strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    results = Path(__file__).parent / "results" / "launchers.json"
    parser.add_argument("--out", type=Path, default=results)
    options = parser.parse_args()
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = recipe(Path(folder))
        for name, before in commands(Path(folder)).items():
            lines.append(line(name, before, file, lines[0]["losses"] if lines else None))
            print({k: v for k, v in lines[-1].items() if k != "losses"}, flush=True)
    missed = [one["launcher"] for one in lines if one.get("loss_apart", 0) > CLOSE]
    print(f"MISSED: {', '.join(missed)}" if missed else f"all losses within {CLOSE:g}")
    for one in lines:
        one.pop("losses", None)
    options.out.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
