"""The H-step lock: a problem whose success falls off exponentially with the length of its solution.

A prompt shows H cues and the action that was done last. The right action of a step depends on its cue
and on the action before, by a table that nobody prints; only the whole right sequence opens the lock. A
base pretrained on people's attempts knows the table and does not act by it: whatever the action before
was, the next one is right with probability .3, a habit with .55 and something else with .15. So it
opens a lock with .3^H, and the greedy answer is wrong. That is the setting of Liu et al. 2025 (arXiv
2505.16984, section 4): rewards at leaves alone need a number of samples exponential in H, hints need a
polynomial one.

Of each pair of cue and action before, the habit is drawn for itself, so what is learnt of one pair
tells little of another: few solutions do not give the pairs that they lack. `solved` says how many of
the training problems have a worked solution; of the others only the answer is known, which no method
trains on and only the reward sees. `evaluate_lock` asks for locks that nobody trained on, without hints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise, starmap
from pathlib import Path
from typing import Any

import numpy as np

from onestage.data.kinds import Kind
from onestage.data.tokenize import prompt_ids
from onestage.randomness import generator
from onestage.rollout.engines import Completion, Decoding, Request
from onestage.rollout.engines.transformers import Transformers
from onestage.studies.lab import ground
from onestage.studies.worlds import Metric

CUES = ("red", "blue", "green", "gold", "white", "black")
ACTIONS = ("push", "pull", "turn", "lift")
OPEN, NONE, THEN = "lock:", " -", "\nopen:"
WIDTH = 12
"""The longest horizon, unless a world has more places. Every prompt has so many places for cues, so that
the cue of a step stands as far before its action whatever the horizon is, and one base serves all."""
MOST = 24
"""Places at most: the base has 64 positions for prompt and response."""
SHORTEST = 4
"""Below it there are too few locks for three splits."""
ENOUGH = 6
"""Below it too few locks have one pair of cues for a test of its own."""
RIGHT, HABIT = 0.3, 0.55
SPLITS = {"train": 256, "validation": 128, "test": 256}
"""Locks of each; none is in two."""
KINDS: tuple[Kind, ...] = ("check", "demonstration")


@dataclass(frozen=True, slots=True)
class Lock:
    """A problem."""

    cues: tuple[int, ...]
    before: int
    """The action before the first."""
    actions: tuple[int, ...]
    """The right ones."""
    places: int = WIDTH
    """For cues, in the prompt."""

    @property
    def prompt(self) -> str:
        return prompt_of(self.cues, self.before, self.places)

    @property
    def steps(self) -> list[str]:
        """The worked solution, an action a step; joined they are the response."""
        return [f" {ACTIONS[action]}" for action in self.actions]

    @property
    def answer(self) -> str:
        return "".join(self.steps).strip()


@dataclass(frozen=True)
class LockWorld:
    """Locks of one horizon. The table is a function of the seed alone, and so is the base."""

    seed: int
    horizon: int
    solved: int | None = None
    """How many training problems have a worked solution; None: all."""
    places: int = WIDTH
    """For cues, in every prompt: the longest horizon. The base is another for another number."""
    unseen: int = 0
    """Ordered pairs of cues that never follow each other in a problem that is trained or tuned on. Every
    problem of the test has such a pair: it composes what is known in a way that is not."""

    def __post_init__(self) -> None:
        if not SHORTEST <= self.places <= MOST:
            raise ValueError(f"places must be from {SHORTEST} to {MOST}, got {self.places}")
        if not SHORTEST <= self.horizon <= self.places:
            raise ValueError(
                f"horizon must be from {SHORTEST} to {self.places} (places), got {self.horizon}"
            )
        if not 0 <= self.unseen <= len(CUES):
            raise ValueError(f"unseen must be from 0 to {len(CUES)}, got {self.unseen}")
        if self.unseen and self.horizon < ENOUGH:
            raise ValueError(f"unseen takes a horizon of {ENOUGH} at least, got {self.horizon}")
        most = SPLITS["train"]
        if self.solved is not None and not 0 <= self.solved <= most:
            raise ValueError(f"solved must be from 0 to {most}, or None, got {self.solved}")

    @cached_property
    def table(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Right action and habit of a cue and the action before: (cues, actions, 2). The right actions
        of a cue are a permutation, so all pairs are met equally often."""
        draw = generator(f"lock/{self.seed}/table")
        right = np.stack([draw.permutation(len(ACTIONS)) for _ in CUES])
        # Never the right action itself.
        habit = (right + draw.integers(1, len(ACTIONS), size=right.shape)) % len(ACTIONS)
        return np.stack([right, habit], axis=-1)

    def right(self, cue: int, before: int) -> int:
        return int(self.table[cue, before, 0])

    def lock(self, cues: tuple[int, ...], before: int) -> Lock:
        """The problem, solved."""
        actions = [before]
        for cue in cues:
            actions.append(self.right(cue, actions[-1]))
        return Lock(cues, before, tuple(actions[1:]), self.places)

    @cached_property
    def withheld(self) -> set[tuple[int, int]]:
        """The pairs of neighbouring cues that only the test has."""
        drawn = generator(f"lock/{self.seed}/withheld").permutation(len(CUES) ** 2)[: self.unseen]
        return {divmod(int(one), len(CUES)) for one in drawn}

    @cached_property
    def locks(self) -> dict[str, list[Lock]]:
        """The problems of each split: different sequences of cues."""
        draw = generator(f"lock/{self.seed}/{self.horizon}/cues")
        found: dict[tuple[int, ...], int] = {}
        while len(found) < sum(SPLITS.values()):
            last = len(found) >= sum(SPLITS.values()) - SPLITS["test"]
            cues = tuple(draw.integers(len(CUES), size=self.horizon).tolist())
            if self.unseen and last == self.withheld.isdisjoint(pairwise(cues)):
                continue
            found[cues] = int(draw.integers(len(ACTIONS)))
        every = starmap(self.lock, found.items())
        return {split: list(islice(every, count)) for split, count in SPLITS.items()}

    def rows(self, kind: str, split: str) -> list[dict[str, Any]]:
        """`check` (with a `solution` where training has one) or `demonstration` rows of a split."""
        locks, solved = self.locks[split], self.solved if split == "train" else None
        if kind == "demonstration":
            known = locks[:solved]
            return [{"prompt": lock.prompt, "completion": "".join(lock.steps)} for lock in known]
        rows: list[dict[str, Any]] = [
            {"prompt": lock.prompt, "answer": lock.answer} for lock in locks
        ]
        if split == "train":
            for row, lock in zip(rows, locks[:solved], strict=False):
                row["solution"] = lock.steps
        return rows

    def attempts(self, count: int) -> Iterator[dict[str, str]]:
        """What the base learns from: locks of every horizon and what people did with them, right or
        not. Depends on the seed and on nothing else of this world."""
        draw = generator(f"lock/{self.seed}/attempts")
        for _ in range(count):
            cues = draw.integers(len(CUES), size=draw.integers(1, self.places + 1))
            first = before = int(draw.integers(len(ACTIONS)))
            done = []
            for cue in cues:
                odds = np.full(len(ACTIONS), (1 - RIGHT - HABIT) / (len(ACTIONS) - 2))
                odds[self.table[cue, before]] = RIGHT, HABIT
                before = int(draw.choice(len(ACTIONS), p=odds))
                done.append(f" {ACTIONS[before]}")
            prompt = prompt_of(tuple(cues.tolist()), first, self.places)
            yield {"prompt": prompt, "completion": "".join(done)}


def prompt_of(cues: tuple[int, ...], before: int, places: int) -> str:
    shown = "".join(f" {CUES[cue]}" for cue in cues)
    return f"{OPEN}{shown}{NONE * (places - len(cues))}{THEN} {ACTIONS[before]}"


def write_rows(world: LockWorld, folder: Path) -> dict[str, Path]:
    """The world's rows as a user's files, `KIND.SPLIT.jsonl`."""
    return ground.write_rows(world, folder, KINDS)


METRICS = {
    "success": Metric("opens a lock it has never seen, greedily", "higher", "locks"),
    "success_sampled": Metric("opens it with an answer drawn at temperature 1", "higher", "locks"),
    "right_steps": Metric(
        "part of the actions that are right for their cue and the action before",
        "higher",
        "locks",
    ),
    "length": Metric("tokens of a greedy answer", None, "answers"),
    "stops": Metric("part of the greedy answers that end by themselves", "higher", "answers"),
}
SAMPLES = 4
BEYOND = 4
"""Tokens that an answer may have beyond the places for cues."""
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
        greedy = _drawn(model, tokenizer, locks, 1, 0.0, world)
        sampled = _drawn(model, tokenizer, locks, SAMPLES, 1.0, world)
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
    model: Any, tokenizer: Any, locks: list[Lock], count: int, temperature: float, world: LockWorld
) -> list[list[Completion]]:
    requests = [
        Request(prompt_ids(tokenizer, lock.prompt), count, f"lock/{world.seed}/{number}")
        for number, lock in enumerate(locks)
    ]
    how = Decoding(max_completion_length=world.places + BEYOND, temperature=temperature)
    return Transformers(model, tokenizer, BATCH)(requests, how)


def _text(tokenizer: Any, one: Completion) -> str:
    return str(tokenizer.decode(one.ids, skip_special_tokens=True))


def _opens(response: str, lock: Lock) -> bool:
    return response.split() == lock.answer.split()


def _mean(values: list[Any]) -> float:
    return float(sum(values) / len(values))
