"""What became of faults that were made on purpose: a part of what `python -m bench.faults` tries.

python -m bench.trust faults
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date

TRIED = {"kills": 40, "damage": 40, "inputs": 60, "recipes": 100, "disk": 20}
WHAT = {
    "kills": "runs of four sorts killed at random moments",
    "damage": "files of checkpoints, caches, models, runs, studies damaged",
    "inputs": "rows, files, studies, folders that are none",
    "recipes": "recipes with values that do not belong there",
    "disk": "places where a run or study writes, the disk full",
}


def table() -> str:
    """One line a sort of fault; some minutes."""
    lines = [
        f"{os.cpu_count()} cores, CPU, {date.today()}:",
        "",
        "| fault | trials | what came of them | faults of ours |",
        "|---|---|---|---|",
    ]
    for name, most in TRIED.items():
        words = [sys.executable, "-m", "bench.faults", name, "--most", str(most)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        *_, last = done.stdout.rstrip().split("\n")
        found = re.fullmatch(rf"{name}: (.*); (\d+) faults", last)
        if not found:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        told = re.sub(r"^\d+ [\w ]+: |[{}']", "", found[1])
        lines.append(f"| {WHAT[name]} | {most} | {told} | {found[2]} |")
    return "\n".join(lines)
