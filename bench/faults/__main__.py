"""Faults on purpose: runs killed, files damaged, inputs that are none, disks that are full.

    python -m bench.faults                                  # some minutes, of each sort a few
    python -m bench.faults kills --most 1000 --seed 1
    python -m bench.faults damage inputs recipes disk --most 300

One file of this folder is one sort of fault. Of every trial the result must be the one that it has
without the fault, bit for bit (with a line that says what was made anew), or one `error:` line and
nothing lost.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import transformers

FEW = {"kills": 40, "damage": 30, "inputs": 60, "recipes": 200, "disk": 20}


def main() -> int:
    """Print what came of all faults; 1 where something was lost or told badly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sorts", nargs="*", choices=list(FEW), default=list(FEW))
    parser.add_argument("--most", type=int, help="trials of each; default a few")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    well = True
    for name in asked.sorts:
        with tempfile.TemporaryDirectory() as root:
            module = importlib.import_module(f"bench.faults.{name}")
            told, wrong = module.faults(asked.most or FEW[name], asked.seed, Path(root))
        for line in wrong:
            print(f"FAULT {line}")
        print(f"{name}: {told}; {len(wrong)} faults", flush=True)
        well = well and not wrong
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
