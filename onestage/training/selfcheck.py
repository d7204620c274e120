"""The step-0 laws, checked on the run's own data before the first step. Seconds, and a verdict each.

1. The policy equals the reference, so implicit rewards are 0 and every loss is its start value.
   Where the recipe names another reference, the verdict says how far off it is, and where it starts.
2. The packed forest gives each response the log-probabilities it has alone in the plain model.
3. The chunked head equals full logits, in values and gradients.
4. Changing a response changes no other response's log-probabilities.
5. Beginnings and ends are as the chat template or tokenizer writes them, in every row of the data.

Of a reward model, 2 and 4 are about its rewards (2 compares with its own classifier at the end of each
response), 1 holds for want of a reference, and 3 says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onestage.data.encoded import Encoded
from onestage.data.kinds import FEEDBACK
from onestage.data.packing import Batch, pack_records
from onestage.data.template import NO_END, dialect
from onestage.data.trees import TokenPath
from onestage.models.head import head_difference
from onestage.models.policy import TOLERANCE
from onestage.training.forward import reference_of

if TYPE_CHECKING:
    from onestage.training.run import Run


@dataclass(frozen=True, slots=True)
class Verdict:
    law: str
    holds: bool
    detail: str


class SelfCheckError(RuntimeError):
    """A law does not hold on this model and data."""


def sample(records: Sequence[Encoded], each: int = 2, tokens: int = 4096) -> list[Encoded]:
    """A few short records of each stream and kind, `tokens` at most beyond the first of each."""
    chosen: list[Encoded] = []
    seen: dict[tuple[str, str], int] = {}
    for record in sorted(records, key=lambda record: record.tokens):
        place = (record.source, record.kind)
        spent = sum(other.tokens for other in chosen)
        if place not in seen or (seen[place] < each and spent + record.tokens <= tokens):
            chosen.append(record)
            seen[place] = seen.get(place, 0) + 1
    return chosen


def check_laws(
    run: Run, records: Sequence[Encoded], tokenizer: Any, other: str | None = None
) -> list[Verdict]:
    """Verdicts on a sample of records; nothing is trained. Raises nothing: see `require`.

    `other`: the reference, where it is not the model the run starts from.
    """
    if not records:
        return [Verdict("1-5", True, "there is no response to try them on before the first step")]
    batch = pack_records(records, run.options.row_budget)
    tolerance = TOLERANCE[run.policy.dtype]
    if run.accelerator.mixed_precision != "no":
        tolerance = max(tolerance, TOLERANCE[torch.bfloat16])
    with run.policy.evaluating(), run.accelerator.autocast():
        verdicts = [
            _starts_at_reference(run, batch, tolerance, other),
            _forest_is_naive(run, batch, tolerance),
        ]
    if "logp" in run.policy.gives:
        with run.accelerator.autocast():
            verdicts.append(_head_is_exact(run, batch, tolerance))
    with run.policy.evaluating(), run.accelerator.autocast():
        verdicts.append(_responses_are_separate(run, records, tolerance))
    return [*verdicts, _ends_are_right(run, records, tokenizer)]


def require(verdicts: Sequence[Verdict]) -> None:
    """Raise `SelfCheckError` naming every law that does not hold."""
    broken = [f"{verdict.law}: {verdict.detail}" for verdict in verdicts if not verdict.holds]
    if broken:
        raise SelfCheckError(
            "the step-0 self-check failed (--no-self-check skips it):\n" + "\n".join(broken)
        )


def _starts_at_reference(run: Run, batch: Batch, tolerance: float, other: str | None) -> Verdict:
    name = "1 policy = reference"
    if "reference" not in run.terms.needs:
        return Verdict(name, True, "no objective of this run uses a reference")
    weights, worst, start, now = run.schedule.share, 0.0, 0.0, 0.0
    counts = run.terms.count(batch.records)
    for row in batch.rows:
        known = run.policy.look(row, run.terms.needs_of(*(batch.records[n] for n in row.records)))
        logp_K = known["logp"]
        ref_K = reference_of(run, row, batch, logp_K)
        wanted = np.concatenate(
            [
                np.full(record.scored, "reference" in run.terms.needs_of(record))
                for record in (batch.records[number] for number in row.records)
            ]
        )
        gap_K = (logp_K - ref_K).abs()[torch.from_numpy(wanted).to(logp_K.device)]
        worst = max(worst, gap_K.max().item() if len(gap_K) else 0.0)
        for value, at in ((logp_K, "now"), (ref_K, "start")):
            losses = run.terms.losses(row, batch, {**known, "logp": value, "reference": ref_K})
            part = sum(
                weights[term] / counts[term] * loss.loss_U.sum().item()
                for term, loss in losses.items()
                if counts[term] and "reference" in run.terms.objectives[term].needs
            )
            now, start = (now + part, start) if at == "now" else (now, start + part)
    instead = f"the reference is another model, {other}: " if other else ""
    return Verdict(
        name,
        math.isfinite(worst) if other else worst <= tolerance,
        f"{instead}largest |log-ratio| of a token {worst:.1e}; "
        f"loss {now:.6f}, at zero reward {start:.6f}",
    )


def _forest_is_naive(run: Run, batch: Batch, tolerance: float) -> Verdict:
    worst = 0.0
    for row in batch.rows:
        packed_K = run.policy(row)
        alone_K = torch.cat([run.policy.alone(path, chunked=False) for path in row.paths])
        worst = max(worst, (packed_K - alone_K).abs().max().item())
    layout = run.policy.fit.layout
    return Verdict(
        "2 forest = naive", worst <= tolerance, f"{layout}: differs by {worst:.1e} a token"
    )


def _head_is_exact(run: Run, batch: Batch, tolerance: float) -> Verdict:
    if not run.policy.fit.chunked_head:
        return Verdict("3 chunked head = full logits", True, "the model's own logits are used")
    values, gradients = head_difference(run.policy.base, batch.rows[0].paths[0])
    return Verdict(
        "3 chunked head = full logits",
        max(values, gradients) <= tolerance,
        f"values differ by {values:.1e}, gradients by {gradients:.1e} of their size",
    )


def _responses_are_separate(run: Run, records: Sequence[Encoded], tolerance: float) -> Verdict:
    """Change the last token of the first record's first response; look at all the others."""
    name = "4 responses are separate"
    # In one row, where responses could disturb each other.
    one_row = max(run.options.row_budget, sum(record.tokens for record in records))
    batch = pack_records(records, one_row)
    if sum(len(record.scores) for record in records) < 2:
        return Verdict(name, True, "the sample has one response only")
    changed = [_with_other_end(records[0]), *records[1:]]
    other = pack_records(changed, one_row)
    before, after = (torch.cat([run.policy(row) for row in found.rows]) for found in (batch, other))
    same_K = torch.cat([torch.from_numpy(row.tree.response_K != 0) for row in batch.rows]).to(
        before.device
    )
    same_K &= ~torch.cat(
        [torch.from_numpy(_after_first(records[0], row.tree.response_K)) for row in batch.rows]
    ).to(before.device)
    moved = (before - after).abs()[same_K]
    worst = moved.max().item() if len(moved) else 0.0
    return Verdict(name, worst <= tolerance, f"the others move by {worst:.1e}")


def _after_first(record: Encoded, response_K: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Later turns of the changed conversation do depend on it: they are not looked at."""
    later = {number for number in record.paths[0].responses if number}
    return np.isin(response_K, sorted(later))


def _with_other_end(record: Encoded) -> Encoded:
    path = record.paths[0]
    ids = path.ids.copy()
    last = path.spans[0][1] - 1
    ids[last] = ids[last] - 1 if ids[last] else 1
    return replace(record, paths=(TokenPath(ids, path.spans, path.responses), *record.paths[1:]))


def _ends_are_right(run: Run, records: Sequence[Encoded], tokenizer: Any) -> Verdict:
    """Ends are looked at in the sample, and were counted for every row when it was encoded."""
    known = dialect(tokenizer)
    # A tool call may end on another added token than a reply.
    ends = {tokenizer.eos_token_id, *tokenizer.added_tokens_decoder}
    problems = []
    for record in records:
        prompted = record.sampled is None and FEEDBACK[record.kind].layout != "windows"
        for path in record.paths if prompted else ():
            for start, stop in path.spans:
                ids = path.ids[start:stop]
                if int(ids[-1]) not in ends and not _says(tokenizer, ids, known.marker):
                    problems.append(f"{record.id}: a response does not end with an end marker")
                elif len(ids) > 1 and ids[-1] == ids[-2]:
                    problems.append(f"{record.id}: a response ends with two end tokens")
    counts = [(name, store.table.notes) for name, store in run.data.named()]
    unended = sum(notes.get(NO_END, 0) for _, notes in counts)
    if unended:
        problems.insert(
            0,
            f"{unended} records: {NO_END}, so the model would never learn to stop; let "
            "model.chat_template write {{ eos_token }} or the model's own end-of-turn token there",
        )
    seen = [f"{name}: {n} records: {note}" for name, notes in counts for note, n in notes.items()]
    detail = "; ".join(problems[:5]) or "; ".join(
        ["one beginning, one end marker a response", *seen[:5]]
    )
    return Verdict("5 beginnings and ends", not problems, detail)


def _says(tokenizer: Any, ids: Any, marker: str) -> bool:
    return bool(marker) and tokenizer.decode(ids).endswith(marker)
