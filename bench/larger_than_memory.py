"""A stream that is larger than memory: what the process holds while it is read, encoded and drawn from.

    python bench/larger_than_memory.py                               # 20,000 and 80,000 rows
    python bench/larger_than_memory.py --rows 30000 --beside 20000 --most 1000    # 0.6 and 2.5 GB
    python bench/larger_than_memory.py --rows 400 --out /tmp/found.json      # seconds

Writes a file of JSON Lines, and one of four times the rows, and has each read, encoded into a store,
opened and drawn from at random by a process of its own, as a run does before and while it trains. What
is counted is memory of its own (RssAnon): what the system keeps of files goes when room is needed. With
`--most` the system gives a process no more than so many MB of it (RLIMIT_DATA).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from million import tokenizer_of

from onestage.data.mixture import MixedStream, Mixture
from onestage.data.store import open_store
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder

TIMES = (1, 4)
STEPS, BATCH = 200, 64
WORDS = "the sea is red and what follows holds for every one of us "


def row(number: int, beside: int) -> dict[str, str]:
    """A demonstration of some 400 letters, and as many in a column that nobody reads as asked for."""
    made = {
        "prompt": f"Question {number}: {WORDS * 2}?",
        "completion": f" Answer {number * 7919 % 100_003}: {WORDS * (2 + number % 5)}",
    }
    return {**made, "notes": "x" * beside} if beside else made


def write_rows(path: Path, rows: int, beside: int) -> None:
    with path.open("w") as file:
        for number in range(rows):
            file.write(json.dumps(row(number, beside)) + "\n")


def own_megabytes() -> float:
    """What this process holds of its own now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's own memory (Linux does)")


@contextmanager
def watched(found: dict[str, Any], what: str) -> Iterator[None]:
    """Seconds, and the most memory of its own, of what is inside."""
    most, done, began = [own_megabytes()], threading.Event(), time.perf_counter()

    def watch() -> None:
        while not done.wait(0.02):
            most.append(own_megabytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:  # else a process that was given too little would never end
        done.set()
        thread.join()
    seconds = time.perf_counter() - began
    found[what] = {"seconds": round(seconds, 2), "own_mb": round(max(most), 1)}


def one(path: Path, cache: Path, most: int) -> dict[str, Any]:
    """What a run does with a stream, in this process."""
    found: dict[str, Any] = {"rows": 0, "file_mb": round(path.stat().st_size / 1e6, 1)}
    stream = Stream(str(path), name="large", columns={})
    encoder = Encoder(tokenizer_of(path), 512)
    if most:
        resource.setrlimit(resource.RLIMIT_DATA, (most << 20, most << 20))
    with watched(found, "encode"):
        open_store(stream, encoder, cache)
    with watched(found, "draw"):
        store, known = open_store(stream, encoder, cache)
        mixture = Mixture([MixedStream("large", store, float(BATCH))], 0)
        drawn = sum(len(mixture.draw(step)) for step in range(STEPS))
    assert known
    assert drawn == STEPS * BATCH
    return {**found, "rows": len(store), "tokens": store.table.tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--beside", type=int, default=0, help="letters a row that nobody reads")
    parser.add_argument("--most", type=int, default=0, help="MB that a process may have of its own")
    parser.add_argument("--out", type=Path, help="a file for the figures")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(*asked.one, asked.most)))
        return
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for times in TIMES:
            path = Path(folder) / f"{times}.jsonl"
            write_rows(path, asked.rows * times, asked.beside)
            command = [sys.executable, __file__, "--most", str(asked.most), "--one"]
            done = subprocess.run([*command, path, Path(folder) / "cache"], stdout=subprocess.PIPE)
            if done.returncode:
                raise SystemExit(f"{path.stat().st_size / 1e6:,.0f} MB could not be read")
            runs.append(json.loads(done.stdout))
            print(runs[-1], flush=True)
            path.unlink()
    rows = runs[1]["rows"] - runs[0]["rows"]
    grown = {
        what: round((runs[1][what]["own_mb"] - runs[0][what]["own_mb"]) * 2**20 / rows, 1)
        for what in ("encode", "draw")
    }
    print("bytes a row:", grown)
    if asked.out:
        asked.out.write_text(json.dumps({"runs": runs, "bytes_a_row": grown}, indent=1) + "\n")


if __name__ == "__main__":
    main()
