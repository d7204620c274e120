"""The step-0 laws, checked on the run's own data before the first step. Seconds, and a verdict each.

1. The policy equals the reference, so implicit rewards are 0 and every loss is its start value.
   Where the recipe names another reference, the verdict says how far off it is, and where it starts.
2. The packed forest gives each response the log-probabilities it has alone in the plain model: the one
   that transformers loads, in its own attention. In half precision its first layers are compared in
   float32, too.
3. The chunked head equals full logits, in values and gradients.
4. Changing the last token of a response changes no other response's log-probabilities, and none of its
   own earlier tokens.
5. Beginnings and ends are as the chat template or tokenizer writes them, in every row of the data.

A difference is forgiven where it is the model's own rounding (`models/yardstick`), and never where it is
no number.

Of a reward model, 2 and 4 are about its rewards (2 compares with its own classifier at the end of each
response), 1 holds for want of a reference, and 3 says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onestage.data.encoded import Encoded
from onestage.data.kinds import FEEDBACK
from onestage.data.packing import Batch, pack_records
from onestage.data.template import NO_END, dialect
from onestage.data.trees import TokenPath
from onestage.models.excerpt import excerpt_of
from onestage.models.head_law import head_difference, head_rounding
from onestage.models.head_ways import OURS
from onestage.models.probe import trial_paths
from onestage.models.sharding import opened
from onestage.models.yardstick import TOLERANCE, Rounding, largest, not_finite, plain, spread
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
    run: Run,
    records: Sequence[Encoded],
    tokenizer: Any,
    other: str | None = None,
    longest: Encoded | None = None,
) -> list[Verdict]:
    """Verdicts on a sample of records; nothing is trained. Raises nothing: see `require`.

    `other`: the reference, where it is not the model the run starts from; `longest`: a record that only
    the first layers are asked about, for what a model does no earlier than in a long text.
    """
    if not records:
        return [Verdict("1-5", True, "there is no response to try them on before the first step")]
    batch = pack_records(records, run.options.row_budget)
    with run.policy.evaluating(), run.accelerator.autocast():
        rounding = _rounding(run, [path for row in batch.rows for path in row.paths])
        verdicts = [
            _starts_at_reference(run, batch, rounding, other),
            _forest_is_naive(run, batch, rounding, longest),
        ]
    if "logp" in run.policy.gives:
        with opened(run.policy), run.accelerator.autocast():
            verdicts.append(_head_is_exact(run, batch.rows[0].paths[0], rounding))
    with run.policy.evaluating(), run.accelerator.autocast():
        verdicts.append(_responses_are_separate(run, records, rounding))
    return [*_with_what_is_broken(run, verdicts), _ends_are_right(run, records, tokenizer)]


def require(verdicts: Sequence[Verdict]) -> None:
    """Raise `SelfCheckError` naming every law that does not hold."""
    broken = [f"{verdict.law}: {verdict.detail}" for verdict in verdicts if not verdict.holds]
    if broken:
        raise SelfCheckError(
            "the step-0 self-check failed (--no-self-check skips it):\n" + "\n".join(broken)
        )


def head_verdict(run: Run, records: Sequence[Encoded]) -> Verdict:
    """Law 3 alone, of the head as it is now; on a text where there is no record yet."""
    batch = pack_records(sample(records), run.options.row_budget) if records else None
    path = batch.rows[0].paths[0] if batch else trial_paths(run.policy)[0]
    with run.policy.evaluating(), run.accelerator.autocast():
        rounding = _rounding(run, [path])
    with opened(run.policy), run.accelerator.autocast():
        return _head_is_exact(run, path, rounding)


def _rounding(run: Run, paths: Sequence[TokenPath]) -> Rounding:
    """What is forgiven: the model's own rounding, in the precision in which it is run."""
    floor = TOLERANCE[run.policy.dtype]
    if run.accelerator.mixed_precision != "no":
        floor = max(floor, TOLERANCE[torch.bfloat16])
    return Rounding(floor, lambda: spread(run.policy, paths), at_once=bool(run.policy.sharded))


def _with_what_is_broken(run: Run, verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """Verdicts with the tensor named that breaks them, where weights are no numbers."""
    broken = "" if all(one.holds for one in verdicts) else not_finite(run.policy)
    for one in verdicts:
        said = f"{one.detail}; {broken}" if broken and not one.holds else one.detail
        yield replace(one, detail=said)


def _starts_at_reference(run: Run, batch: Batch, rounding: Rounding, other: str | None) -> Verdict:
    name = "1 policy = reference"
    if "reference" not in run.terms.needs:
        return Verdict(name, True, "no objective of this run uses a reference")
    weights, gaps, start, now = run.schedule.share, [], 0.0, 0.0
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
        gaps.append((logp_K - ref_K)[torch.from_numpy(wanted).to(logp_K.device)])
        for value, at in ((logp_K, "now"), (ref_K, "start")):
            losses = run.terms.losses(row, batch, {**known, "logp": value, "reference": ref_K})
            part = sum(
                weights[term] / counts[term] * loss.loss_U.sum().item()
                for term, loss in losses.items()
                if counts[term] and "reference" in run.terms.objectives[term].needs
            )
            now, start = (now + part, start) if at == "now" else (now, start + part)
    instead = f"the reference is another model, {other}: " if other else ""
    gap_K = torch.cat(gaps)
    worst = largest(gap_K)
    same = math.isfinite(worst) if other else rounding.covers(gap_K)
    return Verdict(
        name,
        same and math.isfinite(now) and math.isfinite(start),
        f"{instead}largest |log-ratio| of a token {worst:.1e}; "
        f"loss {now:.6f}, at zero reward {start:.6f}",
    )


def _forest_is_naive(
    run: Run, batch: Batch, rounding: Rounding, longest: Encoded | None
) -> Verdict:
    gap_K = torch.cat([run.policy(row) - plain(run.policy, row.paths) for row in batch.rows])
    exact, closer = _first_layers_agree(run, batch, longest)
    return Verdict(
        "2 forest = naive",
        exact and rounding.covers(gap_K),
        f"{run.policy.fit.layout}: differs by {largest(gap_K):.1e} a token{closer}",
    )


def _first_layers_agree(run: Run, batch: Batch, longest: Encoded | None) -> tuple[bool, str]:
    """Whether rows are exact in float32: all, where the run's own precision could hide that they are
    not, and the longest."""
    policy = run.policy
    full = policy.dtype in (torch.float32, torch.float64)
    rows = () if full and run.accelerator.mixed_precision == "no" else batch.rows
    if longest is not None:
        rows = (*rows, *pack_records([longest], longest.tokens).rows)
    rows = tuple(row for row in rows if policy.packs(row))
    excerpt = excerpt_of(policy) if rows else None
    if excerpt is None:
        return True, ""
    attention = policy.base.config._attn_implementation
    try:
        found = [excerpt.apart(row, attention) for row in rows]
    except (RuntimeError, NotImplementedError) as error:  # kernels that have no such precision
        return True, f", its first layers do not run in float32 ({type(error).__name__})"
    worst = largest(torch.tensor([gap for _, gap in found]))
    return all(holds for holds, _ in found), f", its first layers in float32 by {worst:.1e}"


def _head_is_exact(run: Run, path: TokenPath, rounding: Rounding) -> Verdict:
    if not run.policy.fit.chunked_head:
        return Verdict("3 chunked head = full logits", True, "the model's own logits are used")
    base, way = run.policy.base, run.policy.readout.way
    values, gradients = head_difference(base, path, way, weights=run.policy.sharded is None)
    whose = "" if way == OURS else f"{way}'s: "
    by_row = Rounding(
        rounding.floor,
        lambda: [torch.tensor([head_rounding(base, path)])],
        at_once=bool(run.policy.sharded),
    )
    return Verdict(
        "3 chunked head = full logits",
        rounding.covers(torch.tensor([values])) and by_row.covers(torch.tensor([gradients])),
        f"{whose}values differ by {values:.1e}, gradients by {gradients:.1e} of their size",
    )


def _responses_are_separate(run: Run, records: Sequence[Encoded], rounding: Rounding) -> Verdict:
    """Change the last token of the first record's first response; look at all that comes before it, and
    at all the others."""
    name = "4 responses are separate"
    # In one row, where responses could disturb each other.
    one_row = max(run.options.row_budget, sum(record.tokens for record in records))
    batch = pack_records(records, one_row)
    if sum(len(record.scores) for record in records) < 2:
        return Verdict(name, True, "the sample has one response only")
    changed = [_with_other_end(records[0]), *records[1:]]
    other = pack_records(changed, one_row)
    before, after = (torch.cat([run.policy(row) for row in found.rows]) for found in (batch, other))
    same_K = torch.cat(
        [torch.from_numpy(~_depends(records[0], row.tree.response_K)) for row in batch.rows]
    )
    moved = (before - after)[same_K.to(before.device)]
    return Verdict(name, rounding.covers(moved), f"the others move by {largest(moved):.1e}")


def _depends(record: Encoded, response_K: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which scored entries (K) the changed token may move: itself, and what comes after it in the
    conversation it ends a turn of."""
    path = record.paths[0]
    start, end = path.spans[0]
    own_N = np.flatnonzero(response_K == path.responses[0])
    depends_K = np.isin(response_K, sorted({*path.responses} - {path.responses[0]}))
    depends_K[own_N[end - start - 1 :]] = True
    return depends_K


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
    told = _few(problems) or ["one beginning, one end marker a response", *_few(seen)]
    detail = "; ".join(told)
    return Verdict("5 beginnings and ends", not problems, detail)


def _few(lines: Sequence[str]) -> list[str]:
    return [*lines[:5], *([f"and {len(lines) - 5} more"] if len(lines) > 5 else [])]


def _says(tokenizer: Any, ids: Any, marker: str) -> bool:
    return bool(marker) and tokenizer.decode(ids).endswith(marker)
