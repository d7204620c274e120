"""The tree: against a walk of the whole tree, against closed forms, and its claims on small cases."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.tables import Table
from experiments.tree import bench as tree_bench
from experiments.tree.__main__ import app
from experiments.tree.bench import METHODS, Claim, ends
from experiments.tree.problem import Training, advantages, hint_rule, leaves_needed, passing


def whole_tree(
    training: Training, name: str, likelihood: float, seeds: int, seed: int
) -> list[float]:
    """GRPO on all nodes, stored as they are met, one walk at a time: pass@1 of each seed at the end.

    Uses the numbers that `Training.run` draws, so that both must agree to rounding.
    """
    rng, hinting = np.random.default_rng(seed).spawn(2)
    rule = hint_rule(name, training.depth)
    children, group, depth = training.children, training.group, training.depth
    start = [0.0] * children
    logits: list[dict[tuple[int, ...], list[float]]] = [{} for _ in range(seeds)]
    for of_seed in logits:
        for level in range(depth):
            of_seed[(0,) * level] = [-training.bias, *start[1:]]

    def policy(of_seed: dict[tuple[int, ...], list[float]], node: tuple[int, ...]) -> list[float]:
        odds = [math.exp(x) for x in of_seed.get(node, start)]
        return [x / sum(odds) for x in odds]

    for step in range(training.steps):
        hints = [
            [rule.length(step, depth, hinting, {}) for _ in range(training.problems)]
            for _ in logits
        ]
        drawn = rng.random((seeds, training.problems, group, depth))
        for which, of_seed in enumerate(logits):
            change: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0] * children)

            def push(
                node: tuple[int, ...], chosen: int, weight: float, of=of_seed, to=change
            ) -> None:
                for child, odds in enumerate(policy(of, node)):
                    to[node][child] += weight * ((child == chosen) - odds)

            for problem, hint in enumerate(hints[which]):
                walks = []
                for member in range(group):
                    node = (0,) * hint
                    for level in range(hint, depth):
                        edges = np.cumsum(policy(of_seed, node))[:-1]
                        node += (int((drawn[which, problem, member, level] > edges).sum()),)
                    walks.append(node)
                rewards = np.array([0.1 if any(node) else 1.0 for node in walks])
                spread = math.sqrt(((rewards - rewards.mean()) ** 2).sum() / (group - 1))
                for node, reward in zip(walks, rewards, strict=True):
                    weight = (reward - rewards.mean()) / (spread + 1e-6) / group
                    for level in range(hint, depth):
                        push(node[:level], node[level], weight / (depth - hint))
                for level in range(hint):
                    push((0,) * level, 0, likelihood / hint)
            for node, by in change.items():
                now = of_seed.setdefault(node, list(start))
                scale = training.rate / training.problems
                of_seed[node] = [x + scale * d for x, d in zip(now, by, strict=True)]
    assert max(len(of_seed) for of_seed in logits) > depth  # it has been off the path
    return [
        math.prod(policy(of_seed, (0,) * level)[0] for level in range(depth)) for of_seed in logits
    ]


@pytest.mark.parametrize(
    ("name", "likelihood", "bias"),
    [("none", 0.0, 0.0), ("uniform", 0.0, 1.0), ("cosine", 0.1, 1.0)],
)
def test_nodes_off_the_path_change_nothing(name: str, likelihood: float, bias: float) -> None:
    training = Training(3, bias=bias, steps=40, problems=3, children=3)
    whole = whole_tree(training, name, likelihood, seeds=2, seed=5)
    path = training.run(hint_rule(name, 3), likelihood, seeds=2, seed=5)[-1]
    assert path == pytest.approx(whole, rel=1e-6)
    assert min(whole) > 3.0**-3  # it has learnt


def leaves_of_walks(depth: int, hinted: bool, likelihood: bool, seed: int) -> int:
    """Algorithm 2 as it is written, one walk after another, over the whole tree."""
    random = np.random.default_rng(seed)
    beta = 0.9 / (12 * (depth + 1) ** 2 * math.log(4))
    logits: dict[tuple[int, ...], np.ndarray] = {}
    leaves = 0

    def policy(node: tuple[int, ...]) -> np.ndarray:
        odds = np.exp(logits.get(node, np.zeros(4)))
        return odds / odds.sum()

    def walk(node: tuple[int, ...]) -> list[tuple[int, ...]]:
        found = [node]
        while len(node) < depth:
            node = (*node, int(random.choice(4, p=policy(node))))
            found.append(node)
        return found

    while math.prod(policy((0,) * level)[0] for level in range(depth)) < 0.5:
        hint = int(random.integers(depth + 1)) if hinted else 0
        visited = walk((0,) * hint)
        leaves += 1
        changes = {}
        for node in visited[:-1]:
            value = np.array([0.1 if any(walk((*node, a))[-1]) else 1.0 for a in range(4)])
            leaves += 4
            gain = value - policy(node) @ value
            changes[node] = gain - beta * logits.get(node, np.zeros(4))
        if likelihood:
            for level in range(hint):
                pull = np.eye(4)[0] * beta / policy((0,) * level)[0]
                changes[(0,) * level] = pull
        for node, change in changes.items():
            logits[node] = logits.get(node, np.zeros(4)) + change
    return leaves


@pytest.mark.parametrize(("rule", "likelihood"), [("none", False), ("uniform", True)])
def test_algorithm_2_explores_as_many_leaves_as_one_walk_at_a_time(
    rule: str, likelihood: bool
) -> None:
    slow = [leaves_of_walks(2, rule == "uniform", likelihood, seed) for seed in range(60)]
    fast = leaves_needed(2, hint_rule(rule, 2), likelihood, seeds=2000)
    error = np.std(slow, ddof=1) / len(slow) ** 0.5
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=4 * error)


def test_uniform_policy_by_hand() -> None:
    assert passing(np.zeros((2, 3, 4))) == pytest.approx([4.0**-3] * 2)
    assert passing(np.log([[[3.0, 1.0], [1.0, 1.0]]])) == pytest.approx([0.75 * 0.5])


@pytest.mark.parametrize(
    ("rewards", "golden"),
    [
        ([1, 0.1, 0.1, 0], [1.4924, -0.4264, -0.4264, -0.6396]),
        ([1, 1, 1, 0.1], [0.5, 0.5, 0.5, -1.5]),
        ([0.1] * 4, [0.0] * 4),
    ],
)
def test_golden_advantages(rewards: list[float], golden: list[float]) -> None:
    assert advantages(np.array(rewards, dtype=float)) == pytest.approx(golden, abs=2e-4)


def test_a_whole_hint_teaches_only_by_its_likelihood() -> None:
    """Nothing is left to explore: reward 1 for all, no advantage; the likelihood's gradient by hand."""
    training = Training(4, steps=1)
    hints = np.full((1, 8), 4)
    for likelihood in (0.0, 0.5):
        slope, success = training.slope(
            np.zeros((1, 4, 4)), hints, likelihood, np.random.default_rng(0)
        )
        by_hand = likelihood / 4 * (np.eye(4)[0] - 0.25)
        assert slope == pytest.approx(np.tile(by_hand, (1, 4, 1)))
        assert success == pytest.approx(1.0)


def test_theory_on_small_trees() -> None:
    table, claims = tree_bench.theory(tree_bench.Size(16, (2, 3, 4, 5), ()))
    assert all(claim.holds for claim in claims)
    bare, hinted = ([row[column] for row in table.rows] for column in (2, 4))
    assert bare[3] / bare[1] > 3 * hinted[3] / hinted[1]  # from depth 3 to 5
    for row in table.rows:  # within a factor of 2 of the reference's medians
        assert all(0.5 < ours / theirs < 2 for ours, theirs in zip(row[2:5], row[5:], strict=True))


def test_hints_and_their_likelihood_are_two_things() -> None:
    """Toy C at H = 4: at b = 2 any hint will do, at b = 6 only one whose likelihood is trained on."""
    for bias, learns in ((2, {"R3", "cosine", "UFT .01"}), (6, {"UFT .01"})):
        training = Training(4, bias=bias)
        for name in ("RFT", "R3", "cosine", "UFT .01"):
            found = ends(training, name, seeds=4)
            assert (found.min() > 0.9) if name in learns else (found.max() < 0.1), (bias, name)


def test_deeper_trees_need_hints() -> None:
    """Toy B at H = 7, where 4^7 leaves are as many as the walks of all 500 steps."""
    training = Training(7)
    assert ends(training, "RFT", seeds=4).mean() < 0.5
    assert ends(training, "UFT .001", seeds=4).min() > 0.98


def test_runs_are_functions_of_the_seed() -> None:
    training, rule = Training(3, steps=20), hint_rule("cosine", 3)
    once, again, other = (training.run(rule, 0.1, 3, seed) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert len(np.unique(once[-1])) == 3


def test_a_run_that_never_gets_there_says_so() -> None:
    with pytest.raises(RuntimeError, match="not reached in 3 iterations"):
        leaves_needed(4, hint_rule("none", 4), False, seeds=2, limit=3)


def test_command_fails_if_a_claim_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[2, 4, 60, 50, 50, 63, 53, 53]]
    table = Table("theory", "Toy A", ["H", "B^H/4", *tree_bench.LAWS, "a", "b", "c"], rows=rows)
    for holds in (True, False):
        claims = [Claim("A: water is wet", True), Claim("A: pigs fly", holds)]
        monkeypatch.setattr(
            tree_bench, "bench", lambda size, claims=claims: iter([(table, claims)])
        )
        runs = {key: {"R3": np.linspace(0, 1, 501)[:, None]} for key in ("deep", "unknown")}
        monkeypatch.setattr(tree_bench, "curves", lambda seeds, runs=runs: runs)
        result = CliRunner().invoke(app, ["--out", str(tmp_path)])
        assert result.exit_code == (0 if holds else 1), result.output
        assert "holds: A: water is wet" in result.output
        assert ("claims that do not hold: A: pigs fly" in result.output) is not holds
        numbers = json.loads((tmp_path / "tree.json").read_text())
        assert numbers["claims"] == {"A: water is wet": True, "A: pigs fly": holds}
    assert "| 2 | 4 | 60 |" in (tmp_path / "tree.md").read_text()
    assert "Toy C: GRPO" in (tmp_path / "tree.svg").read_text()


def test_every_method_has_a_rule() -> None:
    for name, (rule, likelihood) in METHODS.items():
        assert hint_rule(rule, 6).max_chunks == 6
        assert likelihood >= 0, name
