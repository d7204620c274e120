"""HelpSteer2 as pairs and as labels, for the DPO and KTO baselines.

    python recipes/prepare_helpsteer2.py data/helpsteer2 [--source nvidia/HelpSteer2]

Rows with the same prompt are compared by UNA's score, (0.65 helpfulness + 0.8 correctness + 0.45
coherence) / 7.6. The authors' scripts take rows 2i and 2i + 1 for one prompt without looking, and train
on ties as if the second row had won; here prompts are compared, and ties are left out and counted.
Writes pairs.jsonl (`prompt`, `chosen`, `rejected` and both scores) and labels.jsonl.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

from onestage.data.reading import read
from onestage.data.record import Record
from onestage.data.stream import Stream

RATINGS = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45}


def scored_source(path: str) -> Stream:
    """HelpSteer2's rows as score records."""
    return Stream(
        path,
        name="helpsteer2",
        columns={"completion": "response"},
        ratings=RATINGS,
        score_range=(0, 4),
    )


def pairs_of(records: Iterable[Record]) -> tuple[list[dict[str, Any]], int]:
    """All pairs of responses to one prompt that differ in score, and the number that do not."""
    by_prompt: dict[str, list[tuple[str, float]]] = {}
    for record in records:
        answer = (str(record.completions[0]), record.scores[0])
        by_prompt.setdefault(str(record.prompt), []).append(answer)
    pairs, ties = [], 0
    for prompt, answers in by_prompt.items():
        for one, other in combinations(answers, 2):
            if one[1] == other[1] or one[0] == other[0]:
                ties += 1
                continue
            better, worse = (one, other) if one[1] > other[1] else (other, one)
            pairs.append(
                {
                    "prompt": prompt,
                    "chosen": better[0],
                    "rejected": worse[0],
                    "chosen_score": better[1],
                    "rejected_score": worse[1],
                }
            )
    return pairs, ties


def labels_of(pairs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each pair as a thumb up and a thumb down."""
    return [
        {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
        for pair in pairs
        for side in ("chosen", "rejected")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", default="nvidia/HelpSteer2")
    options = parser.parse_args()
    read_rows = list(read(scored_source(options.source)))
    pairs, ties = pairs_of(row for row in read_rows if isinstance(row, Record))
    refused = sum(not isinstance(row, Record) for row in read_rows)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pairs", pairs), ("labels", labels_of(pairs))):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (options.out / f"{name}.jsonl").write_text(text)
    print(f"{len(pairs):,} pairs, {ties:,} ties left out, {refused:,} rows refused")


if __name__ == "__main__":
    main()
