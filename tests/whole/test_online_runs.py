"""Runs in which the policy answers: the whole way from a recipe to a trained model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.endpoint import says
from support.ranks import train_on_two_ranks
from support.tiny import ROOT, write_recipe, write_rows

from onestage.config import RecipeError
from onestage.data.record import ROLES
from onestage.rollout.problems import RewardFailedError
from onestage.rollout.rewards import _pool as pool
from onestage.runfolder import read_metrics
from onestage.training.build import build
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

STEPS = ["the sea, ", "the wind, ", "the moon, ", "the end."]


@pytest.fixture(scope="module", autouse=True)
def workers():
    yield
    pool.close_shared()


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_rows(
        tmp_path / "problems.jsonl",
        [
            {"prompt": f"say {n}: ", "answer": str(n), "solution": STEPS[: 1 + n % 4]}
            for n in range(12)
        ],
    )


@pytest.fixture
def online(recipe_of: Callable[..., dict[str, Any]], problems: Path) -> Callable[..., dict]:
    """A recipe with problems, beside streams of the given kinds."""

    def make(*kinds: str, reward: Any = "support.judged:vowels", **changes: Any) -> dict[str, Any]:
        stream: dict[str, Any] = {"name": "problems", "path": str(problems), "kind": "check"}
        named = {"name": "function", "path": reward} if isinstance(reward, str) else reward
        stream |= {"reward": named, **changes.pop("stream", {})}
        recipe = recipe_of(*kinds, **changes) if kinds else recipe_of("pair", **changes)
        recipe["data"] = [*(recipe["data"] if kinds else []), stream]
        if not kinds:
            recipe.setdefault("objective", "grpo")
        rollout = {"num_generations": 3, "max_completion_length": 8}
        recipe["rollout"] = rollout | recipe.get("rollout", {})
        return recipe

    return make


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def run(recipe: dict[str, Any], out: Path, **how: Any) -> Path:
    return carry_out(parse_recipe(recipe), out, say=lambda line: None, **how)


def test_a_run_learns_what_is_rewarded(online, tmp_path: Path) -> None:
    recipe = online(objective="grpo", train__max_steps=25, train__learning_rate=5e-3)
    run(recipe, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    rewards = [line["problems/reward"] for line in lines]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1
    assert lines[0]["loss"] == pytest.approx(-rewards[0])  # what is told is minus the mean reward
    assert lines[0]["problems/completion_length"] <= 8
    first = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert len(first["completions"]) == len(first["rewards"]) == 3


@pytest.mark.parametrize("rollout", [{}, {"steps_per_generation": 2, "num_iterations": 2}])
def test_killed_and_resumed_is_bit_for_bit_the_same(online, tmp_path: Path, rollout) -> None:
    recipe = online(
        objective={"name": "grpo", "beta": 0.05},
        rollout=rollout,
        stream={"hint": {"name": "adaptive"}},
        train__max_steps=7,
        train__save_steps=3,
    )
    run(recipe, tmp_path / "whole")
    session = build(parse_recipe(recipe), tmp_path / "cut", say=lambda line: None)
    session.plan = replace(session.plan, steps=3)  # stops where the first checkpoint is
    session.fill_reference()
    session.train()
    again = build(parse_recipe(recipe), tmp_path / "cut", resume=True, say=lambda line: None)
    again.go(self_check=False)
    whole, cut = (weights_of(tmp_path / name / "model") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    ends = [read_metrics(tmp_path / name)[-1] for name in ("whole", "cut")]
    for key in ("problems/reward", "problems/logp", "loss"):
        assert ends[0][key] == ends[1][key]


class Crashes(Callback):
    def step(self, run: Any, loss: float) -> None:
        if run.step == 4:
            raise KeyboardInterrupt


def test_a_line_of_metrics_tells_all_that_was_sampled_for_it(online, tmp_path: Path) -> None:
    """Also where the run was killed between its steps; only time is another."""
    recipe = online(objective="grpo", train__max_steps=6, train__save_steps=3)
    recipe["train"]["logging_steps"] = 2
    run(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "cut", callbacks=[Crashes()])
    run(recipe, tmp_path / "cut", resume=True)
    for left, right in zip(*(read_metrics(tmp_path / n) for n in ("whole", "cut")), strict=True):
        assert {k for k in left if left[k] != right[k] and "second" not in k} == set()


def test_responses_are_used_as_often_as_the_recipe_says(online, tmp_path: Path) -> None:
    recipe = online(
        objective="grpo",
        rollout={"steps_per_generation": 2, "num_iterations": 2},
        train__batch_size=3,
    )
    feeds = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None).feeds
    drawn = [feeds.draw(["grpo"]) for _ in range(8)]
    names = [[record.id for record in records] for records in drawn]
    assert names[0] == names[2] != names[1] == names[3]
    assert names[4] == names[6] != names[5] == names[7]
    assert drawn[0][0] is drawn[2][0]  # the same responses
    assert "old_logp" in drawn[0][0].sampled.kept
    assert not set(names[0] + names[1]) & set(names[4] + names[5])  # an epoch has 12


def test_used_once_nothing_is_kept_of_the_old_policy(online, tmp_path: Path) -> None:
    run = build(parse_recipe(online(objective="grpo")), tmp_path / "run", say=lambda line: None)
    (record, *_) = run.feeds.draw(["grpo"])
    assert set(record.sampled.kept) == {"advantage"}
    assert not run.answers.contents()


def test_temperature_does_not_reach_the_losses(online, tmp_path: Path) -> None:
    """Kept log-probabilities are the policy's own at temperature 1, whatever was sampled with."""
    recipe = online(
        objective={"name": "grpo", "beta": 0.1},
        rollout={"temperature": 0.3, "top_p": 0.7, "num_iterations": 2},
    )
    session = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    (record, *_) = session.feeds.draw(["grpo"])
    policy = session.policy
    with policy.evaluating():
        for number, path in enumerate(record.paths):
            own = policy.alone(path, chunked=False).numpy()
            assert record.sampled.kept["old_logp"][number] == pytest.approx(own, abs=1e-4)
            assert record.sampled.kept["reference"][number] == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_the_reference_of_sampled_responses_is_where_the_run_started(
    online, tmp_path: Path, lora, model_folder: Path
) -> None:
    recipe = online(objective={"name": "grpo", "beta": 0.1}, train__max_steps=3)
    recipe["model"] = {"name": str(model_folder), "lora": lora}
    session = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    start = {n: p.detach().clone() for n, p in session.policy.named_parameters()}
    session.train()
    (record, *_) = session.feeds.draw(["grpo"])
    trained = {n: p.detach().clone() for n, p in session.policy.named_parameters()}
    assert any(not torch.equal(start[n], trained[n]) for n in start)
    with torch.no_grad():
        for name, parameter in session.policy.named_parameters():
            parameter.copy_(start[name])
    with session.policy.evaluating():
        for number, path in enumerate(record.paths):
            first = session.policy.alone(path, chunked=False).numpy()
            assert record.sampled.kept["reference"][number] == pytest.approx(first, abs=1e-4)


def test_the_start_may_answer_while_another_model_is_the_reference(
    online, tmp_path: Path, model_folder: Path
) -> None:
    recipe = online(
        objective={"name": "grpo", "beta": 0.1},
        rollout={"policy": "start"},
        reference=str(model_folder),
        train__max_steps=3,
    )
    trained, fresh = (
        build(parse_recipe(recipe), tmp_path / name, say=lambda line: None)
        for name in ("trained", "fresh")
    )
    trained.train()
    fresh.feeds.drawn = dict(trained.feeds.drawn)
    found, expected = (one.feeds.draw(["grpo"]) for one in (trained, fresh))
    assert [r.scores for r in found] == [r.scores for r in expected]
    ids = [
        [path.ids.tolist() for r in records for path in r.paths] for records in (found, expected)
    ]
    assert ids[0] == ids[1]


def test_a_rule_may_keep_a_state_for_each_problem(online, tmp_path: Path) -> None:
    """Only what failed before is hinted at, and what each was given is in the checkpoint's state."""
    rule = {"name": "scaffold", "free_steps": 0}
    recipe = online(objective="grpo", stream={"hint": rule}, rollout={"success_at": 99.0})
    session = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    failed: set[str] = set()
    hinted = 0
    for _ in range(8):
        for record in session.feeds.draw(["grpo"]):
            has = ROLES.index("hint") in record.sampled.roles
            assert has == (record.id in failed)
            failed.add(record.id)
            hinted += has
    assert hinted
    state = session.answers.state()["hints"]
    assert set(state) == {f"problems/{name}" for name in failed}
    assert len({kept["failed"] for kept in state.values()}) > 1 or hinted >= len(failed)


def test_hints_are_for_training_and_shared_by_a_group(online, tmp_path: Path) -> None:
    recipe = online(objective="grpo", stream={"hint": "uniform", "eval_path": "PROBLEMS"})
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    session = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    hinted = 0
    for record in session.feeds.draw(["grpo"]):
        roles = [ROLES[role] for role in record.sampled.roles]
        assert roles.count("hint") <= 1
        assert roles.count("response") == 3
        if "hint" in roles:
            hinted += 1
            start, end = record.paths[0].spans[0]
            assert len({path.ids[:end].tobytes() for path in record.paths}) == 1
            text = session.loaded.tokenizer.decode(record.paths[0].ids[start:end])
            assert text.startswith(STEPS[0].rstrip())
            assert math.isnan(record.scores[0])
    assert hinted
    assert not list(session.visited())  # problems have no responses before somebody answers
    found, metrics = session.answers.evaluate(list(session.data.held_out["problems"]))
    assert all("hint" not in {ROLES[r] for r in one.sampled.roles} for one in found)
    assert metrics["eval/problems/completion_length"] <= 8


def test_two_processes_do_what_one_does(online, tmp_path: Path, monkeypatch) -> None:
    recipe = online(
        objective={"name": "grpo", "beta": 0.05},
        stream={"hint": "uniform"},
        rollout={"steps_per_generation": 2},
        train__max_steps=4,
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    run(recipe, tmp_path / "one")
    train_on_two_ranks(write_recipe(tmp_path / "recipe.yaml", recipe), tmp_path / "two")
    one, two = (weights_of(tmp_path / name / "model") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


def test_rewards_that_fail_are_counted_and_the_run_goes_on(online, tmp_path: Path) -> None:
    recipe = online(reward="support.judged:sometimes", objective="grpo", train__max_steps=4)
    run(recipe, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert sum(line["problems/failed"] for line in lines) > 0
    sorts = {key.rsplit("/", 1)[1] for line in lines for key in line if "/failed/" in key}
    assert sorts == {"raised", "value"}
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_or_stop_it_where_the_recipe_says_so(online, tmp_path: Path) -> None:
    recipe = online(
        reward="support.judged:sometimes", objective="grpo", rollout={"on_failure": "stop"}
    )
    with pytest.raises(RewardFailedError, match=r"problems\.jsonl.*a reward could not be found"):
        run(recipe, tmp_path / "run")


def test_equal_rewards_teach_nothing_and_raise_an_alarm(online, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = online(
        reward="support.judged:never",
        objective="grpo",
        rollout={"alarm_after": 3},
        train__max_steps=5,
    )
    session = build(parse_recipe(recipe), tmp_path / "run", say=said.append)
    before = {n: p.detach().clone() for n, p in session.policy.named_parameters()}
    session.train()
    after = dict(session.policy.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_metrics(tmp_path / "run")[0]["problems/frac_reward_zero_std"] == 1.0
    alarms = [line for line in said if line.startswith("ALARM")]
    assert len(alarms) == 1
    assert "no completion was right in 3 rollouts" in alarms[0]
    assert "data.problems.hint: cosine" in alarms[0]


def test_a_reward_that_always_fails_raises_an_alarm_at_once(online, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = online(reward="support.judged:fails", objective="grpo", train__max_steps=2)
    carry_out(parse_recipe(recipe), tmp_path / "run", say=said.append, self_check=False)
    (alarm,) = (line for line in said if line.startswith("ALARM"))
    assert "reward function could be found for no answer of a rollout" in alarm
    assert "I like none of them" in alarm


def test_completions_that_do_not_end_are_counted_and_may_cost(online, tmp_path: Path) -> None:
    recipe = online(
        reward="support.judged:never", objective="grpo", rollout={"missing_eos_penalty": 0.5}
    )
    run(recipe, tmp_path / "run")
    line = read_metrics(tmp_path / "run")[0]
    assert line["problems/truncated"] > 0.5
    assert line["problems/reward"] == pytest.approx(-0.5 * line["problems/truncated"])


def test_several_rewards_are_weighed_and_told_apart(online, tmp_path: Path) -> None:
    rewards = [
        {"name": "function", "path": "support.judged:vowels", "weight": 2.0},
        {"name": "function", "path": "support.judged:never"},
    ]
    run(online(reward=rewards, objective="grpo"), tmp_path / "run")
    line = read_metrics(tmp_path / "run")[0]
    assert line["problems/reward"] == pytest.approx(2 * line["problems/reward/function"])
    assert line["problems/reward/function2"] == 0.0


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "mix", "weights": {"sft": 1, "dpo": 1, "grpo": 1}},
        {"name": "maxright", "weights": {"sft": 1, "dpo": 10, "grpo": 20}, "decide": "ema"},
        {"name": "maxright", "weights": {"sft": 1, "dpo": 10, "grpo": 20}},
        {"name": "maxright", "weights": {"sft": 1, "dpo": 10, "grpo": 20}, "decide": "same_batch"},
        "proportional",
    ],
)
def test_one_run_holds_demonstrations_pairs_and_problems(online, tmp_path: Path, schedule) -> None:
    recipe = online(
        *("demonstration", "pair"),
        objective={"demonstration": "sft", "pair": "dpo", "check": "grpo"},
        schedule=schedule,
        probe={"steps": 3, "task_tokens": 64},
        optimum={"given": {"grpo": -1.0}},
        train__max_steps=6,
    )
    run(recipe, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    streams = {key.split("/")[0] for line in lines for key in line if key.endswith("/tokens")}
    assert "problems" in streams
    if schedule == "proportional" or schedule["name"] == "mix":
        assert streams == {"demonstrations", "pairs", "problems"}
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert any("task/grpo/kl" in line for line in lines)


def test_best_and_worst_answers_make_pairs(online, tmp_path: Path) -> None:
    recipe = online(
        objective={"name": "dpo", "beta": 0.1},
        stream={"feedback": "pair"},
        rollout={"policy": "start", "num_generations": 4},
        train__max_steps=4,
    )
    run(recipe, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[-1]["problems/margin"] != 0
    session = build(parse_recipe(recipe), tmp_path / "again", say=lambda line: None)
    for record in session.feeds.draw(["dpo"]):
        assert record.kind == "pair"
        assert record.scores[0] > record.scores[1]


def test_ties_leave_a_step_without_records(online, tmp_path: Path) -> None:
    recipe = online(reward="support.judged:never", objective="dpo", stream={"feedback": "pair"})
    run(recipe, tmp_path / "run")
    assert [line["tokens"] for line in read_metrics(tmp_path / "run")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": {"reward": "countdwn"}}, "did you mean 'countdown'"),
        ({"stream": {"reward": {"name": "countdown"}}}, "nums"),
        ({"stream": {"hint": "cosin"}}, "did you mean 'cosine'"),
        ({"stream": {"reward": None}}, "say what judges the answers"),
        ({"stream": {"kind": "demonstration"}}, "completion"),
        ({"objective": "dpo"}, "cannot use check records"),
        ({"rollout": {"engine": "vlm"}}, "unknown rollout engine"),
        ({"train__max_length": 20}, "longer than train.max_length"),
        (
            {"schedule": {"name": "maxright", "weights": {"grpo": 1}}},
            r"optimum: \{given: \{grpo: -1\}\}",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(online, tmp_path: Path, changes, message) -> None:
    recipe = online(**{"objective": "grpo", **changes})
    with pytest.raises((RecipeError, ValueError), match=message):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_judge_that_answers_nonsense_is_counted_with_what_it_cost(
    online,
    tmp_path: Path,
    endpoint,
) -> None:
    def act(handler: Any, number: int, text: str) -> None:
        says(handler, "Score: 7" if number % 3 else "I would rather not say.")

    endpoint.act = act
    judge = {"name": "judge", "model": "m", "base_url": endpoint.url, "retries": 0}
    recipe = online(reward={**judge, "price_in": 1.0}, objective="grpo", train__max_steps=2)
    run(recipe, tmp_path / "run", self_check=False)
    line = read_metrics(tmp_path / "run")[-1]
    assert line["problems/failed/nonsense"] > 0
    assert 0 < line["problems/reward"] < 0.7
    assert line["problems/reward/judge/requests"] == len(endpoint.seen)
    assert line["problems/reward/judge/money"] == pytest.approx(len(endpoint.seen) * 1e-4)
