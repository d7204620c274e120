"""All that is measured on a GPU, in one command: first that it is right, then how fast it is.

    python bench/gpu.py --name h100           # at most 8 minutes; writes bench/results/gpu-h100.md
    python bench/gpu.py --only laws flex
    python bench/gpu.py --tiny                # seconds, on the CPU too: that the bench itself runs

A part is a file of `on_gpu/`, run in a process of its own, so that one that crashes takes no other with
it; what it prints stands in the page whole, its failures first. Data are those of `../shared/data`
(`--data`), the tokenizer is trained on them unless `--tokenizer` names one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from on_gpu import (  # noqa: E402
    PARTS,
    Given,
    machine,
    page,
    run_part,
    tokenizer_folder,
)


def main() -> int:
    """Run the parts and write their page; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", help="of the results file: gpu-NAME.md")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--tiny", action="store_true", help="seconds, of whatever device there is")
    parser.add_argument("--quick", action="store_true", help="TRL at its best settings only")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--tokenizer", type=Path, help="folder; default: one trained on the data")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part begins later")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        given = Given(asked.work, asked.data, asked.tokenizer, asked.tiny, asked.quick)
        print("\n" + json.dumps(run_part(asked.part, given)), flush=True)
        return 0
    began, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        work = Path(folder)
        tokenizer = asked.tokenizer or tokenizer_folder(work / "tokenizer", asked.data, asked.tiny)
        for part in asked.only:
            left = asked.minutes * 60 - (time.monotonic() - began)
            if left < 20:
                found[part] = {"failed": ["not begun: the time was over"]}
                continue
            found[part] = in_a_process(part, work, asked, tokenizer, left)
            print(page({part: found[part]}, {}), flush=True)
    text = page(found, {**machine(), "date": f"{datetime.now(UTC):%Y-%m-%d}"})
    if asked.name:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / f"gpu-{asked.name}.md").write_text(text)
    failed = {part: one["failed"] for part, one in found.items() if one.get("failed")}
    print(f"{len(found)} parts in {time.monotonic() - began:.0f} s; failed: {failed or 'nothing'}")
    return 1 if failed else 0


def in_a_process(
    part: str, work: Path, asked: argparse.Namespace, tokenizer: Path, seconds: float
) -> dict[str, Any]:
    """What a part found; what ended it, where it did not end by itself."""
    given = ["--part", part, "--work", str(work), "--tokenizer", str(tokenizer)]
    given += ["--data", str(asked.data), *(["--tiny"] if asked.tiny else [])]
    given += ["--quick"] if asked.quick else []
    command = [sys.executable, str(HERE / "gpu.py"), *given]
    began, wrong = time.monotonic(), []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        said = done.stdout
        if done.returncode:
            sys.stderr.write(done.stderr[-3000:])
            last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            wrong = [f"ended by {last[0][:300]}"]
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode() if isinstance(late.stdout, bytes) else (late.stdout or "")
        wrong = [f"stopped after {seconds:.0f} s"]
    told = [json.loads(line) for line in said.splitlines() if line.startswith('{"title"')]
    found = told[-1] if told else {"failed": []}
    return {**found, "failed": found["failed"] + wrong, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    sys.exit(main())
