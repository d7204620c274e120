"""A million rows of mixed kinds: how fast they are read and checked, and in how much memory.

    python bench/million.py --rows 1000000

Writes synthetic rows to one Parquet file in a temporary folder (every row has every column, most of
them null, as in a real mixed file), then reads and checks each of them. Prints rows a second and
the largest memory of the process, measured before and after reading: the two must be close.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onestage.records.columns import Columns
from onestage.records.reading import Source, read
from onestage.records.record import KINDS, Refusal

WRITTEN_AT_ONCE = 20_000
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        *(("id", pa.int64()), ("weight", pa.float64())),
        *((name, pa.string()) for name in ("prompt", "completion", "chosen", "rejected", "text")),
        *(("score", pa.float64()), ("label", pa.bool_()), ("messages", MESSAGES)),
        *(("completions", pa.list_(pa.string())), ("scores", pa.list_(pa.float64()))),
    ]
)


def synthetic_row(index: int) -> dict[str, object]:
    """Row number `index`: its kind goes round the six, its texts are of some 40 to 200 letters."""
    prompt = f"Question {index}: what follows from {index * 7919 % 1009} and {index % 13}? "
    answer = f"Answer {index}: " + "therefore it holds, " * (1 + index % 8)
    other = f"Answer {index}: I would rather not say."
    row: dict[str, object] = {"id": index, "prompt": prompt}
    kind = KINDS[index % len(KINDS)]
    if kind == "demonstration":
        turns = [("user", prompt), ("assistant", answer), ("user", "Why?"), ("assistant", other)]
        return {"id": index, "messages": [{"role": r, "content": c} for r, c in turns]}
    if kind == "score":
        return {**row, "completion": answer, "score": index % 11 / 10, "weight": 2.0}
    if kind == "label":
        return {**row, "completion": answer, "label": index % 12 < 6}
    if kind == "pair":
        return {**row, "chosen": answer, "rejected": other}
    if kind == "group":
        return {**row, "completions": [answer, other, "No."], "scores": [0.9, 0.2, 0.0]}
    return {"id": index, "text": prompt + answer}


def write(path: Path, rows: int) -> None:
    """Writes `rows` synthetic rows, never holding more than a batch of them."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, WRITTEN_AT_ONCE):
            batch = [synthetic_row(i) for i in range(start, min(rows, start + WRITTEN_AT_ONCE))]
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def count_kinds(path: Path) -> Iterator[str]:
    """The kind of every record, in order; a refused row ends the bench."""
    for record in read(Source(str(path), Columns("million"))):
        if isinstance(record, Refusal):
            raise SystemExit(f"{record.where} was refused: {record.reason}")
        yield record.kind


def peak_megabytes() -> float:
    """Largest resident memory of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.parquet"
        began = time.perf_counter()
        write(path, rows)
        size = path.stat().st_size / 2**20
        print(f"wrote   {rows:,} rows, {size:.0f} MiB, in {time.perf_counter() - began:.1f} s")
        before, began = peak_megabytes(), time.perf_counter()
        kinds = Counter(count_kinds(path))
        seconds = time.perf_counter() - began
    print(
        f"checked {kinds.total():,} rows in {seconds:.1f} s: {kinds.total() / seconds:,.0f} rows/s"
    )
    print(f"peak memory {before:.0f} MiB before reading, {peak_megabytes():.0f} MiB after")
    print(", ".join(f"{kind} {number:,}" for kind, number in kinds.items()))


if __name__ == "__main__":
    main()
