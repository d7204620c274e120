"""A million rows of mixed kinds: how fast they are read and checked, and in how much memory.

    python bench/million.py --rows 1000000

Writes synthetic rows to one Parquet file in a temporary folder (every row has every column, most of
them null, as in a real mixed file), then does what a run does before its first step: reads and checks
each row, encodes it into a store on disk, looks for repeated records as `onestage check` does, and
draws an epoch of shuffled batches. Prints rows a second and the largest memory of the process after
each part. Target: under 2 GB at a million rows.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from onestage.data.inspect import examine
from onestage.data.kinds import KINDS
from onestage.data.mixture import MixedStream, Mixture
from onestage.data.reading import read
from onestage.data.record import Refusal
from onestage.data.store import Store, write
from onestage.data.tokenize import Encoder

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


def write_parquet(path: Path, rows: int) -> None:
    """Writes `rows` synthetic rows, never holding more than a batch of them."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, WRITTEN_AT_ONCE):
            batch = [synthetic_row(i) for i in range(start, min(rows, start + WRITTEN_AT_ONCE))]
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def count_kinds(path: Path) -> Iterator[str]:
    """The kind of every record, in order; a refused row ends the bench."""
    for record in read(path):
        if isinstance(record, Refusal):
            raise SystemExit(f"{record.where} was refused: {record.reason}")
        yield record.kind


def peak_megabytes() -> float:
    """Largest resident memory of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tokenizer_of(path: Path) -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer with a chat template, trained on the first rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<s>", "</s>"], show_progress=False
    )
    texts = (str(synthetic_row(index)) for index in range(2000))
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return wrapped


def timed(what: str, rows: int, work: Callable[[], object]) -> object:
    """Do something and print its speed and the memory peak so far."""
    began = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - began
    print(
        f"{what:<34} {seconds:7.1f} s  {rows / seconds:10,.0f} rows/s  peak {peak_megabytes():,.0f} MiB",
        flush=True,
    )
    return result


def draw_epoch(store: Store, batch: int) -> int:
    """Draw every record once, in shuffled batches; returns their number."""
    mixture = Mixture([MixedStream("million", store, float(batch))], 0, {"million": len(store)})
    return sum(len(mixture.draw(step)) for step in range(-(-len(store) // batch)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.parquet"
        timed("write the Parquet file", rows, lambda: write_parquet(path, rows))
        kinds = timed("read and check", rows, lambda: Counter(count_kinds(path)))
        encoder = Encoder(tokenizer_of(path), 512)
        items = encoder.encode_all(read(path))
        store = timed(
            "read, check and encode", rows, lambda: write(items, "million", Path(folder) / "store")
        )
        assert isinstance(store, Store)
        timed(
            "look for repeats and overlap",
            rows,
            lambda: examine({"million": store}, {}, {}, encoder),
        )
        drawn = timed("draw a shuffled epoch", rows, lambda: draw_epoch(store, 64))
    print(f"{drawn:,} records, {store.table.tokens:,} tokens; {dict(kinds)}")  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
