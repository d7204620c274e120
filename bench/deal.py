"""How much of many ranks' time is work: rows of real records, dealt to them.

    python bench/deal.py                  # seconds; no model is run

A step ends when the rank with the most to do is done, so useful work is

    nodes that one process would compute / (ranks * nodes of the busiest rank)

and, where weights lie in parts and ranks wait for each other at every row, the same with the longest
row of each pass, summed over passes. Steps of 32 records in a shuffled order, of the data sets of
`../shared/data`, tokens by the tokenizer of `--tokenizer` (default: trained on them), at most 1,024 a
record. `before`: rows packed for one process and dealt one after another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from on_gpu import tokenizer_folder

from onestage.data.deal import deal
from onestage.data.encoded import Encoded
from onestage.data.mixture import order
from onestage.data.packing import EMPTY, Row, pack_records
from onestage.data.reading import read
from onestage.data.tokenize import Encoder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("hh_harmless_pairs", "gpteacher_roleplay", "alpaca_eval_scored")
BATCH, LONGEST = 32, 1024


def useful(rows: Sequence[Row], ranks: int, alone: int) -> tuple[float, float]:
    """Useful work where ranks wait for each other once a step, and at every row."""
    short = -len(rows) % ranks
    whole = [*rows, *[EMPTY] * short]
    mine = [[len(row) for row in deal(whole, rank, ranks)] for rank in range(ranks)]
    passes = sum(map(max, zip(*mine, strict=True)))
    return alone / (ranks * max(map(sum, mine))), alone / (ranks * passes)


def main() -> None:
    """Print a line for each data set and number of ranks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--budget", type=int, nargs="+", default=[1024, 4096])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        named = asked.tokenizer or tokenizer_folder(Path(folder) / "t", asked.data, tiny=False)
        print("records, budget, ranks: useful work a step (before); at every row (before)")
        for name in SETS:
            encoder = encoder_of(named)
            file = asked.data / f"{name}.train.jsonl.gz"
            records = [
                r for r in encoder.encode_all(read(file, name=name)) if isinstance(r, Encoded)
            ]
            for budget in asked.budget:
                for ranks in (2, 4, 8, 16):
                    print(line(name, records, budget, ranks, asked.steps), flush=True)


def encoder_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return Encoder(AutoTokenizer.from_pretrained(folder), LONGEST)


def line(name: str, records: Sequence[Encoded], budget: int, ranks: int, steps: int) -> str:
    """The medians over some steps."""
    turn = order(42, name, 0, len(records))[: steps * BATCH]
    found: dict[str, list[tuple[float, float]]] = {"now": [], "before": []}
    for at in range(0, len(turn), BATCH):
        step = [records[int(number)] for number in turn[at : at + BATCH]]
        plain = pack_records(step, budget).rows
        alone = sum(map(len, plain))
        found["before"].append(useful(plain, ranks, alone))
        found["now"].append(useful(pack_records(step, budget, ranks=ranks).rows, ranks, alone))
    middle = {
        key: [statistics.mean(each) for each in zip(*values, strict=True)]
        for key, values in found.items()
    }
    (once, every), (was_once, was_every) = middle["now"], middle["before"]
    where = f"{name}, {budget}, {ranks}:"
    return f"{where:38} {once:.2f} ({was_once:.2f}); {every:.2f} ({was_every:.2f})"


if __name__ == "__main__":
    main()
