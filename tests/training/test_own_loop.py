"""A loop of one's own gives every objective what training gives it, so the loss is the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import write_rows

import onestage as one
from onestage import objectives
from onestage.data.encoded import Encoded
from onestage.data.strangers import with_strangers
from onestage.models.beside import Beside
from onestage.models.policy import Policy
from onestage.objectives import CODE, Objective
from onestage.training.build import build
from onestage.training.forward import row_loss
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run
from onestage.training.terms import Terms

Make = Callable[..., dict[str, Any]]
OPTIONS: dict[str, dict[str, Any]] = {"kto": {"baseline": "mismatched"}}
"""Where the default needs less than the objective can."""
PROBLEMS = [
    {"prompt": f"say {word}", "answer": word, "solution": f" {word}. yes."}
    for word in ("one", "two")
]
quiet = lambda line: None  # noqa: E731


class Longer(one.rewards.Reward):
    """The more an answer says, the better."""

    def __call__(self, answers: Any) -> list[Any]:
        return [float(len(answer.completion) % 7) for answer in answers]


def made(name: str) -> Objective:
    return objectives.make({"name": name, **OPTIONS.get(name, {})}, 4)


NAMES = sorted(objectives.names())
OFFLINE = [
    name for name in NAMES if made(name).kinds - {"check"} and "reward" not in made(name).needs
]
ONLINE = [
    name for name in NAMES if "check" in made(name).kinds and "reward" not in made(name).needs
]


@pytest.fixture
def session(recipe_of: Make, tmp_path: Path) -> Run:
    """Of every kind, with a policy that has moved since the start."""
    run = build(parse_recipe(recipe_of()), tmp_path / "out", say=quiet)
    run.fill_reference()
    return run


@pytest.fixture
def start(session: Run) -> Policy:
    """The reference, and then the policy moves off it."""
    found = Policy(
        type(session.policy.model)(session.policy.model.config), session.policy.tokenizer
    )
    found.load_state_dict(session.policy.state_dict())
    with torch.no_grad():
        for weight in session.policy.parameters():
            weight += 0.02 * torch.randn_like(weight)
    session.policy.add_value_head()
    assert session.policy.value_head is not None
    torch.nn.init.normal_(session.policy.value_head.weight)
    session.policy.beside = Beside(partial(nullcontext, found))
    return found


def of_training(run: Run, objective: Objective, records: list[Encoded]) -> float:
    """The loss of a step, as the loop of a run adds it up."""
    terms = Terms({"o": objective}, {(r.source, r.kind): "o" for r in records})
    run.plan = replace(run.plan, terms=terms)
    run.policy.ask_with(objective.numbers)
    batch, counts = run.devices.pack(records, 96), run.terms.count(records)
    return sum(row_loss(run, row, batch, {"o": 1.0}, counts)[0].item() for row in batch.rows)


def stored(run: Run, objective: Objective) -> Iterator[Encoded]:
    for source in run.data.train.values():
        some = [record for record in source if record.kind in objective.kinds - {"check"}][:4]
        for number, record in enumerate(some):
            strange = "stranger" in objective.needs and record.kind == "label"
            yield with_strangers(record, some[number - 1]) if strange else record


def test_every_objective_of_given_responses(session: Run, start: Policy) -> None:
    found = {}
    for name in OFFLINE:
        objective = made(name)
        records = list(stored(session, objective))
        assert session.reference is not None
        session.reference.fill(start, [path for record in records for path in record.paths], 256)
        session.reference.reload()
        wanted = of_training(session, objective, records)
        beside, session.policy.beside = session.policy.beside, None
        batch = one.pack(records, tokens_per_row=160)
        loss = objective(one.score(session.policy, batch, start, objective)).mean()
        assert session.policy.beside is None
        session.policy.beside = beside
        found[name] = (loss.item(), wanted)
        assert loss.requires_grad
    wrong = {
        name: pair for name, pair in found.items() if pair[0] != pytest.approx(pair[1], rel=1e-5)
    }
    assert not wrong
    assert len({round(mine, 6) for mine, _ in found.values()}) > 0.8 * len(found)


def test_every_objective_of_sampled_answers(session: Run, start: Policy) -> None:
    policy, how = session.policy, one.Decoding(max_completion_length=4)
    problems = list(one.encode(one.read(PROBLEMS, kind="check"), session.loaded.tokenizer))
    policy.tokenizer = session.loaded.tokenizer
    wrong = {}
    for name in ONLINE:
        objective = made(name)
        records = one.answer(policy, problems, Longer(), objective, start, how, count=4, seed=3)
        assert {CODE[record.kind] for record in records} == {CODE["check"]}
        wanted = of_training(session, objective, records)
        batch = one.pack(records, tokens_per_row=160)
        loss = objective(one.score(policy, batch, start, objective)).mean().item()
        if loss != pytest.approx(wanted, rel=1e-5, abs=1e-7):
            wrong[name] = (loss, wanted)
    assert not wrong
    assert {"grpo", "rloo", "ppo", "sdft", "luffy"} <= set(ONLINE)
    assert set(OFFLINE) | set(ONLINE) | {"bradley_terry"} == set(NAMES)


def test_groups_that_cannot_teach_are_refused_as_a_run_refuses_them() -> None:
    nobody: Any = object()
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        one.answer(nobody, [], Longer(), made("reinforce"), count=0)
    greedy = one.Decoding(temperature=0.0)
    for options in ({"count": 1}, {"how": greedy}):
        with pytest.raises(ValueError, match="grpo compares the answers to a problem with each ot"):
            one.answer(nobody, [], Longer(), made("grpo"), **options)  # type: ignore


def test_answers_are_those_of_a_rollout(recipe_of: Make, tmp_path: Path) -> None:
    """Greedily, so that no random number has a say."""
    recipe = recipe_of("pair", objective="dpo")
    file = tmp_path / "problems.jsonl"
    write_rows(file, PROBLEMS)
    recipe["data"] = [{"name": "p", "path": str(file), "kind": "check", "reward": "length"}]
    recipe["objective"] = "reinforce"
    decoding = {"max_completion_length": 4, "temperature": 0.0, "num_generations": 2}
    run = build(parse_recipe({**recipe, "rollout": decoding}), tmp_path / "run", say=quiet)
    run.policy.tokenizer = run.loaded.tokenizer
    problems = list(run.data.train["p"])
    assert run.answers is not None
    theirs = run.answers.answering([*problems], [0] * len(problems), "")
    reward = next(judge for _, _, judge in run.answers.answering.problems["p"].rewards)
    greedy = one.Decoding(max_completion_length=4, temperature=0.0)
    mine = one.answer(run.policy, problems, reward, made("reinforce"), run.policy, greedy, count=2)
    for ours, other in zip(mine, theirs, strict=True):
        assert [p.ids.tolist() for p in ours.paths] == [p.ids.tolist() for p in other.paths]
        assert ours.scores == other.scores
        assert ours.sampled.kept.keys() == other.sampled.kept.keys()


def test_a_reward_model_in_a_loop_of_ones_own(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("pair", objective="bradley_terry")
    recipe["model"] = {**recipe["model"], "task": "reward"}
    run = build(parse_recipe(recipe), tmp_path / "out", say=quiet)
    objective, records = made("bradley_terry"), list(run.data.train["pairs"])[:4]
    wanted = of_training(run, objective, records)
    batch = one.pack(records, tokens_per_row=160)
    assert objective(
        one.score(run.policy, batch, objective=objective)
    ).mean().item() == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(
        ValueError, match="sft needs log-probabilities, and a reward model has none"
    ):
        one.score(run.policy, batch, objective=made("sft"))


def test_what_is_missing_is_said(session: Run, start: Policy) -> None:
    policy = session.policy
    policy.value_head = None

    def said(name: str, kind: str, *given: Any) -> str:
        objective = made(name)
        batch = one.pack(list(session.data.train[kind])[:2], tokens_per_row=256)
        asked = objective if not given else None
        with pytest.raises(ValueError, match=re.escape(name)) as told:
            objective(one.score(policy, batch, objective=asked))
        return str(told.value)

    assert "compares with a reference; give reference=" in said("dpo", "pairs")
    assert "trains reward models" in said("bradley_terry", "pairs")
    assert "cannot learn from demonstration records; it takes pair" in said(
        "simpo", "demonstrations"
    )
    for name, needed in (("eaft", "top_entropy"), ("tdpo", "forward_kl"), ("ift", "mixed_logp")):
        kind = "pairs" if name == "tdpo" else "demonstrations"
        assert f"{name} needs {needed} of every token, which this batch does not hold" in said(
            name, kind, "without"
        )
    batch = one.pack(list(session.data.train["scores"])[:2], tokens_per_row=256)
    with pytest.raises(ValueError, match=r"dro needs what a value head expects; .*add_value_head"):
        one.score(policy, batch, start, made("dro"))
    labels = one.pack(list(session.data.train["labels"])[:2], tokens_per_row=256)
    with pytest.raises(ValueError, match="kto looks at answers behind prompts"):
        one.score(policy, labels, start, made("kto"))
    problems = list(one.encode(one.read(PROBLEMS, kind="check"), session.loaded.tokenizer))
    with pytest.raises(ValueError, match="grpo learns from answered problems; `answer`"):
        one.score(policy, one.pack(problems, tokens_per_row=99), objective=made("grpo"))
