"""How well a model opens locks, on those that nobody trained on and without hints."""

from __future__ import annotations

from typing import Any, Literal

from onestage.lab.lock import ACTIONS, WIDTH, Lock, LockWorld
from onestage.rollout.samplers.contract import Completion, Decoding, Request
from onestage.rollout.samplers.transformers import Transformers
from onestage.streams.checks import prompt_ids

Better = Literal["higher", "lower"] | None

METRICS: dict[str, tuple[str, Better, str]] = {
    "success": ("opens a lock it has never seen, greedily", "higher", "locks"),
    "success_sampled": ("opens it with an answer drawn at temperature 1", "higher", "locks"),
    "right_steps": (
        "part of the actions that are right for their cue and the action before",
        "higher",
        "locks",
    ),
    "length": ("tokens of a greedy answer", None, "answers"),
    "stops": ("part of the greedy answers that end by themselves", "higher", "answers"),
}
"""Metric -> what it says, which way is better, group."""

SAMPLES = 4
LIMIT = WIDTH + 4
"""Tokens of an answer at most."""
BATCH = 512
"""Answers under way at once."""


def evaluate_lock(
    model: Any, tokenizer: Any, world: LockWorld, split: str
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """All of METRICS on a split, and the greedy answers ({prompt, response, metric, right}). What is
    sampled depends on the world's seed and a problem's place. The model's mode comes back as it was."""
    locks = world.locks[split]
    training = model.training
    model.eval()
    try:
        greedy = _drawn(model, tokenizer, locks, 1, 0.0, world.seed)
        sampled = _drawn(model, tokenizer, locks, SAMPLES, 1.0, world.seed)
    finally:
        model.train(training)
    first = [one for (one,) in greedy]
    said = [_text(tokenizer, one) for one in first]
    right = [_opens(text, lock) for text, lock in zip(said, locks, strict=True)]
    drawn = [
        _opens(_text(tokenizer, one), lock)
        for some, lock in zip(sampled, locks, strict=True)
        for one in some
    ]
    steps = [right_steps(world, lock, text) for text, lock in zip(said, locks, strict=True)]
    metrics = {
        "success": _mean(right),
        "success_sampled": _mean(drawn),
        "right_steps": _mean(steps),
        "length": _mean([len(one.ids) for one in first]),
        "stops": _mean([one.ended for one in first]),
    }
    answers = [
        {"prompt": lock.prompt, "response": text, "metric": "success", "right": good}
        for lock, text, good in zip(locks, said, right, strict=True)
    ]
    return metrics, answers


def right_steps(world: LockWorld, lock: Lock, response: str) -> float:
    """Part of a lock's steps whose action is right, given the action that was taken before."""
    before, count = lock.before, 0
    for cue, word in zip(lock.cues, response.split(), strict=False):
        if word not in ACTIONS:
            break
        action = ACTIONS.index(word)
        count += action == world.right(cue, before)
        before = action
    return count / len(lock.cues)


def _drawn(
    model: Any, tokenizer: Any, locks: list[Lock], count: int, temperature: float, seed: int
) -> list[list[Completion]]:
    requests = [
        Request(prompt_ids(tokenizer, lock.prompt, special=True), count, f"lock/{seed}/{number}")
        for number, lock in enumerate(locks)
    ]
    how = Decoding(max_completion_length=LIMIT, temperature=temperature)
    return Transformers(model, tokenizer, BATCH)(requests, how)


def _text(tokenizer: Any, one: Completion) -> str:
    return str(tokenizer.decode(one.ids, skip_special_tokens=True))


def _opens(response: str, lock: Lock) -> bool:
    return response.split() == lock.answer.split()


def _mean(values: list[Any]) -> float:
    return float(sum(values) / len(values))
