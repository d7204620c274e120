"""Problems answered by a policy and judged, for loops of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext

from onestage.data.encoded import Encoded
from onestage.data.record import Refusal
from onestage.models.policy import Policy
from onestage.objectives import Objective, called
from onestage.rollout.engines import Decoding
from onestage.rollout.engines.transformers import Transformers
from onestage.rollout.group import Group, choose_hint
from onestage.rollout.hints import Hint
from onestage.rollout.hints.none import NoHint
from onestage.rollout.parcel import answered_with
from onestage.rollout.problems import judged
from onestage.rollout.rewards import Failure, Reward
from onestage.training.sampled import Remembering
from onestage.training.score import require
from onestage.training.terms import Terms

TOKENS_PER_ROW = 2048


def answer(
    policy: Policy,
    problems: Iterable[Encoded | Refusal],
    reward: Reward,
    objective: Objective,
    reference: Policy | None = None,
    how: Decoding = Decoding(),  # noqa: B008 - it is frozen
    *,
    count: int = 8,
    hint: Hint = NoHint(),  # noqa: B008 - it is frozen
    step: int = 0,
    again: bool = False,
    seed: int = 0,
) -> list[Encoded]:
    """Problems with the policy's answers and their rewards, to be packed and scored:

        problems = one.encode(one.read("problems.jsonl", kind="check"), policy.tokenizer)
        answered = one.answer(policy, problems, one.rewards.Countdown(), objective)
        objective(one.score(policy, one.pack(answered), objective=objective)).mean()

    objective: who will learn from them; what it keeps of them from before the first update (advantages,
    log-probabilities) is kept, over all of `problems` at once. count: answers to each. hint: what is
    given away of a worked solution at a step. again: whether the policy is updated before the last use.
    seed: give another one at each step, or a problem is answered as before.

    Raises `ValueError` for records that are no problems, where a reward could not be found, and where
    something is missing that the objective needs.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if objective.relative and (count < 2 or how.temperature == 0):
        raise ValueError(
            f"{called(objective)} compares the answers to a problem with each other: give a count of at "
            f"least 2 and a temperature above 0, got {count} and {how.temperature:g}"
        )
    tokenizer, asked = policy.tokenizer, _problems(problems)
    if tokenizer is None:
        raise ValueError("the policy has no tokenizer of its own: load it with one")
    require(objective, policy, reference)
    groups = [_group(record, hint, step, f"{seed}/{n}", count) for n, record in enumerate(asked)]
    engine = Transformers(policy.model, tokenizer)
    with policy.evaluating():
        drawn = iter(engine([request for group in groups for request in group.requests], how))
    for remark in engine.remarks:
        warnings.warn(remark, stacklevel=2)
    for group in groups:
        group.drawn = [next(drawn) for _ in group.requests]
        worked, taught = ("worked" in objective.needs), ("taught" in objective.needs)
        group.read(tokenizer, worked=worked, taught=taught)
    _judge(groups, reward)
    records = [answered_with(group.record, *group.responses()) for group in groups]
    terms = Terms({"own": objective}, {(one.source, one.kind): "own" for one in records})
    other = None if reference is None else (lambda: nullcontext(reference))
    return Remembering(policy, terms, other, None, TOKENS_PER_ROW)(records, again=again)


def _problems(given: Iterable[Encoded | Refusal]) -> list[Encoded]:
    found = []
    for one in given:
        if isinstance(one, Refusal):
            raise ValueError(f"{one.where}: {one.reason}")
        if not one.is_problem:
            raise ValueError(
                f"{one.id} is no problem to be answered but a {one.kind} record; read(..., "
                'kind="check") reads prompts as problems'
            )
        found.append(one)
    return found


def _group(record: Encoded, hint: Hint, step: int, key: str, count: int) -> Group:
    chosen = choose_hint(hint, record, step, f"{key}/hint", {})
    return Group.of(record, chosen, hint, key, count)


def _judge(groups: Sequence[Group], reward: Reward) -> None:
    answers = [answer for group in groups for answer in group.answers]
    found = iter(judged(type(reward).__name__.lower(), reward, answers))
    for group in groups:
        totals = []
        for value in (next(found) for _ in group.answers):
            if isinstance(value, Failure):
                raise ValueError(f"{group.record.id}: no reward was found ({value.reason})")
            totals.append(value)
        group.totals = totals
