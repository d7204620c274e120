"""Log-probabilities of given responses under a model: `onestage score`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.data.reading import read
from onestage.data.record import Refusal
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.models.policy import Policy
from onestage.models.yardstick import not_finite
from onestage.runfolder import write_text

BLOCK = 256


def score_records(
    policy: Policy, records: Iterable[Encoded], tokens_per_row: int
) -> Iterator[dict[str, Any]]:
    """One line a response: the record's `id`, the number of the `response` in it (chosen is 0,
    rejected 1), `logp` (the sum over its tokens, in nats) and `tokens`."""
    source = iter(records)
    with policy.evaluating():
        while block := list(islice(source, BLOCK)):
            batch = pack_records(block, tokens_per_row)
            sums = [0.0] * sum(len(record.scores) for record in block)
            tokens = [0] * len(sums)
            for row in batch.rows:
                logp_K = policy(row).cpu().double().tolist()
                for number, logp in zip(row.tree.response_K.tolist(), logp_K, strict=True):
                    sums[number] += logp
                    tokens[number] += 1
            for record, first in zip(block, batch.first, strict=True):
                for response in range(len(record.scores)):
                    yield {
                        "id": record.id,
                        "response": response,
                        "logp": sums[first + response],
                        "tokens": tokens[first + response],
                    }


def score_file(
    policy: Policy, tokenizer: Any, stream: Stream, out: Path, max_length: int
) -> tuple[int, list[Refusal]]:
    """Score every record of a stream into a JSON Lines file, written whole or not at all.

    Returns the number of lines and the rows that could not be scored. Raises `ValueError` where none
    could.
    """
    refused: list[Refusal] = []
    # What a model says of a response does not depend on who judged it.
    stream = stream.model_copy(update={"unlabelled": "demonstration"})

    def usable() -> Iterator[Encoded]:
        for item in Encoder(tokenizer, max_length).encode_responses(read(stream)):
            if isinstance(item, Refusal):
                refused.append(item)
            else:
                yield item

    broken = not_finite(policy.model)
    if broken:
        raise ValueError(f"{broken}: what it would say is no number; {out} is not written")
    lines = [json.dumps(line) for line in score_records(policy, usable(), max(max_length, 2048))]
    if not lines:
        first = f" ({refused[0].where}: {refused[0].reason})" if refused else ""
        raise ValueError(
            f"{stream.path}: no response is left to score{first}; {out} is not written"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(line + "\n" for line in lines))
    return len(lines), refused
