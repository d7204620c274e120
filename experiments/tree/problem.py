"""A tree with one right leaf: what hints are for, without a model (hint_uft.md 1.9 and 1.10).

Solving is walking down from the root, B ways at each of H levels; only leaves pay, 1 for the right one
and 0.1 elsewhere. The policy is a softmax at every node. A hint puts the walk on the first l nodes of
the right path.

Of B^H nodes only the H on the right path are kept, which is exact and not an approximation: once a walk
has left the path its reward is 0.1 whatever it does, so logits off the path change nothing that is ever
measured (tests/experiments/test_tree.py walks the whole tree with the same random numbers and finds the
same). The right child is number 0 everywhere; a policy that starts uniform cannot tell.

Shapes: S seeds, all at once; N problems a step; G completions of a problem; H levels; B children.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestage.rollout.hints import Hint, make

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
RIGHT, WRONG = 1.0, 0.1


def softmax(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def passing(logits_SHB: Floats) -> Floats:
    """Exact pass@1 (S,) of one try without a hint."""
    return softmax(logits_SHB)[:, :, 0].prod(-1)


def hint_rule(name: str, depth: int, **options: float) -> Hint:
    """A rule of `rollout.hints` whose chunks are the levels of the tree."""
    return make({"name": name, "max_chunks": depth, **options})


def leaves_needed(
    depth: int,
    rule: Hint,
    likelihood: bool,
    seeds: int,
    seed: int = 0,
    children: int = 4,
    limit: int = 10**6,
) -> Whole:
    """Leaves (S,) that UFT's algorithm 2 explores until pass@1 is one half.

    A walk starts where the hint ends. At every node it visits, one fresh walk through each child
    estimates that child's value Q, and logits move by eta (Q - E_pi Q - beta (theta - theta_ref)),
    eta = 1. `likelihood` adds eta beta / pi to the right child's logit at nodes of the hint. beta is
    theorem 4.3's. `limit`: iterations after which a run counts as never.
    """
    rng, hinting = np.random.default_rng(seed).spawn(2)
    beta = (RIGHT - WRONG) / (12 * (depth + 1) ** 2 * math.log(children))
    logits, leaves = np.zeros((seeds, depth, children)), np.zeros(seeds, np.int64)
    levels, active = np.arange(depth), np.ones(seeds, bool)
    for step in range(limit):
        policy = softmax(logits)
        right = policy[:, :, 0]
        active &= right.prod(-1) < 0.5
        if not active.any():
            return leaves
        hint = np.array([rule.length(step, depth, hinting, {}) for _ in range(seeds)])
        own = levels >= hint[:, None]
        stays = rng.random((seeds, depth)) < right
        wrong = own & ~stays
        visited = own & (wrong.cumsum(-1) - wrong == 0)
        # a walk through the right child of level h succeeds if it is right at all later levels
        later = np.cumprod(right[:, ::-1], -1)[:, ::-1] / right
        value = np.full_like(logits, WRONG)
        value[:, :, 0] = np.where(rng.random((seeds, depth)) < later, RIGHT, WRONG)
        gain = value - (policy * value).sum(-1, keepdims=True) - beta * logits
        change = visited[..., None] * gain
        if likelihood:
            change[:, :, 0] += ~own * beta / right
        logits += active[:, None, None] * change
        leaves += active * (children * (depth - hint) + 1)
    raise RuntimeError(f"pass@1 of one half was not reached in {limit} iterations")


@dataclass(frozen=True)
class Training:
    """GRPO as UFT uses it, on the tree."""

    depth: int
    bias: float = 0.0
    """The right child starts with logit -bias: pretraining does not know it."""
    steps: int = 500
    problems: int = 8
    group: int = 4
    rate: float = 10.0
    """Step size of plain gradient steps."""
    children: int = 4

    def run(self, rule: Hint, likelihood: float, seeds: int, seed: int = 0) -> Floats:
        """Exact pass@1 without a hint (T + 1, S), before each step and at the end.

        Advantages are (R - mean) / (std + 1e-6) within the group that shares a hint, the loss is the
        mean over the group and the levels left to it, and `likelihood` is the coefficient of the mean
        log-likelihood of the hint's levels.
        """
        rng, hinting = np.random.default_rng(seed).spawn(2)
        logits = np.zeros((seeds, self.depth, self.children))
        logits[:, :, 0] = -self.bias
        states: list[Mapping[str, float]] = [{} for _ in range(seeds)]
        found = [passing(logits)]
        for step in range(self.steps):
            lengths = [
                rule.length(step, self.depth, hinting, state)
                for state in states
                for _ in range(self.problems)
            ]
            hint_SN = np.array(lengths).reshape(seeds, self.problems)
            slope, success_SN = self.slope(logits, hint_SN, likelihood, rng)
            logits = logits + self.rate * slope
            for which, (hints, right) in enumerate(zip(hint_SN, success_SN, strict=True)):
                for length, success in zip(hints.tolist(), right.tolist(), strict=True):
                    states[which] = rule.advance(states[which], length, self.depth, success)
            found.append(passing(logits))
        return np.array(found)

    def slope(
        self, logits_SHB: Floats, hint_SN: Whole, likelihood: float, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Gradient of a step's objective (S, H, B), and the part of each group that was right."""
        policy = softmax(logits_SHB)
        own = np.arange(self.depth) >= hint_SN[..., None]  # S, N, H
        size = (*hint_SN.shape, self.group, self.depth)
        edges = policy.cumsum(-1)[:, None, None, :, :-1]
        choice = (rng.random(size)[..., None] > edges).sum(-1)  # S, N, G, H
        wrong = (choice != 0) & own[:, :, None]
        visited = own[:, :, None] & (wrong.cumsum(-1) - wrong == 0)
        right = ~wrong.any(-1)
        advantage = advantages(np.where(right, RIGHT, WRONG))
        left = np.maximum(self.depth - hint_SN, 1)[..., None, None]
        weight = advantage[..., None] * visited / (self.group * left)
        slope = -weight.sum((1, 2))[..., None] * policy
        for child in range(self.children):
            slope[..., child] += (weight * (choice == child)).sum((1, 2))
        if likelihood:
            taught = (~own / np.maximum(hint_SN, 1)[..., None]).sum(1)  # S, H
            slope -= likelihood * taught[..., None] * policy
            slope[..., 0] += likelihood * taught
        return slope / self.problems, right.mean(-1)


def advantages(rewards: Floats) -> Floats:
    """GRPO's, over the last axis: the standard deviation is the unbiased one."""
    spread = rewards.std(-1, ddof=1, keepdims=True)
    return (rewards - rewards.mean(-1, keepdims=True)) / (spread + 1e-6)
