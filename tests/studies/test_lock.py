"""The H-step lock: its laws, its files, its base and its exam, without pretraining."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _pool as pool
from onestage.rollout.rewards.match import Match
from onestage.studies.lab.lock import (
    ACTIONS,
    BEYOND,
    CUES,
    HABIT,
    METRICS,
    RIGHT,
    SHORTEST,
    SPLITS,
    WIDTH,
    Lock,
    LockWorld,
    evaluate_lock,
    right_steps,
    write_rows,
)
from onestage.studies.lab.lock_base import lock_tokenizer, make_lock_base
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

QUICK = {"attempts": 64, "train": {"max_steps": 2, "batch_size": 8}}


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def base(cache: Path) -> Path:
    return make_lock_base(LockWorld(3, 4), cache, quiet, **QUICK)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.integers(SHORTEST, WIDTH))
def test_locks_are_different_and_their_answers_right(seed: int, horizon: int) -> None:
    world = LockWorld(seed, horizon)
    every = [lock for split in SPLITS for lock in world.locks[split]]
    assert {split: len(world.locks[split]) for split in SPLITS} == SPLITS
    assert len({lock.prompt for lock in every}) == len(every)
    for lock in every[::50]:
        before = lock.before
        for cue, action in zip(lock.cues, lock.actions, strict=True):
            assert action == world.table[cue, before, 0] != world.table[cue, before, 1]
            before = action
        assert len(lock.cues) == horizon
        assert right_steps(world, lock, lock.answer) == 1
        answers = [Answer(lock.prompt, text, {"answer": lock.answer}) for text in _near(lock)]
        assert [Match().judge(answer) for answer in answers] == [1, 0, 0]
    again = LockWorld(seed, horizon)
    assert [lock.prompt for lock in again.locks["test"]] == [
        lock.prompt for lock in world.locks["test"]
    ]


def cues_of(prompt: str) -> list[str]:
    return prompt.removeprefix("lock:").partition("\nopen:")[0].split()


def test_only_the_test_has_what_is_withheld() -> None:
    """By hand: which cues follow each other in the prompts."""
    world = LockWorld(3, 6, unseen=2)
    assert len(world.withheld) == 2
    held = {tuple(CUES[cue] for cue in pair) for pair in world.withheld}
    for split, locks in world.locks.items():
        assert len(locks) == SPLITS[split]
        for lock in locks:
            met = {pair for pair in pairwise(cues_of(lock.prompt)) if "-" not in pair} & held
            assert bool(met) == (split == "test")
    assert LockWorld(3, 6).locks == LockWorld(3, 6, unseen=0).locks


def test_more_places_are_another_prompt_and_another_base() -> None:
    wide = LockWorld(1, 16, places=16)
    lock = wide.locks["train"][0]
    assert len(lock.cues) == len(cues_of(lock.prompt)) == 16
    lengths = set()
    for row in wide.attempts(500):
        assert len(cues_of(row["prompt"])) == 16
        lengths.add(len(row["completion"].split()))
    assert max(lengths) == 16


def _near(lock: Lock) -> list[str]:
    steps = lock.steps
    return ["".join(steps), "".join(steps[:-1]), "".join([*steps, steps[-1]])]


def test_another_seed_is_another_table_and_another_horizon_is_not() -> None:
    assert (LockWorld(0, 4).table == LockWorld(0, 12).table).all()
    assert not (LockWorld(0, 4).table == LockWorld(1, 4).table).all()


def test_all_pairs_are_met_equally_often() -> None:
    world = LockWorld(4, 12)
    for cue in range(len(CUES)):
        assert sorted(world.table[cue, :, 0]) == list(range(len(ACTIONS)))


def test_people_act_as_they_should() -> None:
    """Right action .3, habit .55, over all pairs, counted; every horizon is there."""
    world, rows = LockWorld(1, 4), list(LockWorld(1, 4).attempts(1500))
    assert rows == list(LockWorld(1, 9).attempts(1500))
    counts, lengths = [0, 0, 0], set()
    for row in rows:
        shown, _, last = row["prompt"].removeprefix("lock:").partition("\nopen:")
        shown, last = shown.split(), ACTIONS.index(last.strip())
        cues = [CUES.index(word) for word in shown if word != "-"]
        actions = [ACTIONS.index(word) for word in row["completion"].split()]
        assert len(shown) == WIDTH
        assert len(cues) == len(actions)
        lengths.add(len(cues))
        for cue, action, before in zip(cues, actions, [last, *actions], strict=False):
            right, habit = world.table[cue, before]
            counts[0 if action == right else 1 if action == habit else 2] += 1
    assert lengths == set(range(1, WIDTH + 1))
    total = sum(counts)
    assert counts[0] / total == pytest.approx(RIGHT, abs=0.02)  # 4 sd
    assert counts[1] / total == pytest.approx(HABIT, abs=0.02)


@pytest.mark.parametrize("solved", [None, 0, 5])
def test_rows(solved: int | None, tmp_path: Path) -> None:
    world = LockWorld(2, 5, solved)
    known = SPLITS["train"] if solved is None else solved
    files = write_rows(world, tmp_path)
    read = {
        name: [json.loads(line) for line in file.read_text().splitlines()]
        for name, file in files.items()
    }
    assert set(files) == {f"{k}.{s}" for k in ("check", "demonstration") for s in SPLITS}
    assert all(file == tmp_path / f"{name}.jsonl" for name, file in files.items())
    train = read["check.train"]
    assert len(train) == SPLITS["train"]
    assert sum("solution" in row for row in train) == known == len(read["demonstration.train"])
    for row, worked in zip(train[:known], read["demonstration.train"], strict=True):
        assert "".join(row["solution"]) == worked["completion"] == " " + row["answer"]
        assert row["prompt"] == worked["prompt"]
    assert [row["prompt"] for row in train] == [lock.prompt for lock in world.locks["train"]]
    assert not any("solution" in row for row in read["check.test"] + read["check.validation"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": SHORTEST - 1}, rf"horizon must be from {SHORTEST} to {WIDTH} \(places\), got"),
        ({"horizon": WIDTH + 1}, "horizon must be from"),
        ({"horizon": 9, "places": 8}, r"horizon must be from 4 to 8 \(places\), got 9"),
        ({"horizon": 4, "places": 25}, "places must be from 4 to 24"),
        ({"horizon": 5, "unseen": 1}, "unseen takes a horizon of 6 at least, got 5"),
        ({"horizon": 4, "unseen": 7}, "unseen must be from 0 to 6"),
        ({"horizon": 4, "solved": -1}, "solved must be from 0 to 256, or None, got -1"),
        ({"horizon": 4, "solved": 257}, "solved must be"),
    ],
)
def test_bad_worlds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LockWorld(0, **options)


def test_the_tokenizer_has_a_token_a_word() -> None:
    tokenizer, lock = lock_tokenizer(), LockWorld(0, 7).locks["train"][0]
    prompt = tokenizer(lock.prompt).input_ids
    assert len(prompt) == 1 + 1 + WIDTH + 2  # BOS, lock:, cues, open:, the action before
    assert tokenizer.unk_token_id not in prompt
    ids = tokenizer("".join(lock.steps), add_special_tokens=False).input_ids
    assert len(ids) == 7
    assert tokenizer(lock.prompt + "".join(lock.steps)).input_ids == prompt + ids
    assert tokenizer.decode(prompt + ids, skip_special_tokens=True) == lock.prompt + "".join(
        lock.steps
    )
    assert tokenizer.decode(ids[2:]) == "".join(lock.steps[2:])


def test_the_base_is_made_once(base: Path, cache: Path) -> None:
    assert base.parent == cache / "lab" / "bases"
    said: list[str] = []
    for horizon, solved in ((4, None), (12, 3)):
        world = LockWorld(3, horizon, solved)
        assert make_lock_base(world, cache, said.append, **QUICK) == base
    assert all(line.startswith("base of the locks found") for line in said)
    assert [file.name for file in base.parent.iterdir()] == [base.name]  # no draft is left
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokenizer("lock: red").input_ids == lock_tokenizer()("lock: red").input_ids
    assert AutoModelForCausalLM.from_pretrained(base).config.vocab_size == len(tokenizer)


def test_a_base_that_cannot_be_made_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_steps"):
        make_lock_base(LockWorld(0, 4), tmp_path, quiet, train={"max_steps": -3})
    assert list((tmp_path / "lab" / "bases").iterdir()) == []


def test_the_exam_tells_right_from_wrong(base: Path) -> None:
    """A model taught one lock by heart: that one opens, and what is counted agrees with its text."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    world = LockWorld(3, 4)
    lock = world.locks["validation"][7]
    ids = torch.tensor([[*tokenizer(lock.prompt + "".join(lock.steps)).input_ids, 2]])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    model.train()
    metrics, answers = evaluate_lock(model, tokenizer, world, "validation")
    assert model.training
    assert list(metrics) == list(METRICS)
    assert len(answers) == SPLITS["validation"]
    assert answers[7]["right"]
    assert answers[7]["response"].split() == lock.answer.split()
    locks = world.locks["validation"]
    right = [a["response"].split() == k.answer.split() for a, k in zip(answers, locks, strict=True)]
    assert metrics["success"] == sum(right) / len(right) < 1
    steps = [right_steps(world, k, a["response"]) for a, k in zip(answers, locks, strict=True)]
    assert metrics["right_steps"] == pytest.approx(sum(steps) / len(steps))
    assert 1 <= metrics["length"] <= WIDTH + BEYOND
    assert evaluate_lock(model, tokenizer, world, "validation")[0] == metrics


def test_right_steps_by_hand() -> None:
    """A step counts by the action that was taken before it, not by the one that should have been."""
    world = LockWorld(0, 4)
    lock = world.locks["train"][0]
    assert right_steps(world, lock, "") == 0
    assert right_steps(world, lock, " ".join(lock.answer.split()[:3])) == 0.75
    assert right_steps(world, lock, "lock: " + lock.answer) == 0
    before, taken = lock.before, []
    for cue in lock.cues:  # the habit first, then what is right behind it
        before = int(world.table[cue, before, 0 if taken else 1])
        taken.append(before)
    assert right_steps(world, lock, " ".join(ACTIONS[action] for action in taken)) == 0.75


def test_locks_without_a_solution_are_played_without_a_hint(base: Path, tmp_path: Path) -> None:
    """The plumbing of a hinted run in which few problems have a solution."""
    files = write_rows(LockWorld(3, 4, 128), tmp_path / "data")
    stream = {"name": "locks", "path": str(files["check.train"]), "kind": "check"}
    recipe = {
        "model": {"name": str(base)},
        "data": [{**stream, "reward": "match", "hint": {"name": "cosine", "hint_steps": 10**6}}],
        "objective": {"name": "hinted"},
        "rollout": {"num_generations": 2, "max_completion_length": 6},
        "train": {"max_steps": 3, "batch_size": 8, "max_length": 32, "logging_steps": 1},
        "cache_dir": str(tmp_path / "cache"),
    }
    run = carry_out(parse_recipe(recipe), tmp_path / "run", say=quiet, self_check=False)
    pool.close_shared()
    metrics = [json.loads(line) for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
    bare = [line["locks/without_solution"] for line in metrics if "locks/without_solution" in line]
    given = [line["locks/hint_length"] for line in metrics if "locks/hint_length" in line]
    assert len(bare) == len(given) == 3
    assert 0 < sum(bare) / 3 < 1
    for none, length in zip(bare, given, strict=True):
        assert 3 * (1 - none) <= length <= 4 * (1 - none)  # nearly whole, or none
