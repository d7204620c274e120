"""SDFT by hand, against TRL's loss of sampled tokens, and a run whose teacher plain transformers is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.objective_batches import NAN, scored
from support.tiny import make_tokenizer, write_rows

from onestage.config import RecipeError
from onestage.objectives import ROLE
from onestage.objectives.sdft import SDFT
from onestage.training.build import build
from onestage.training.recipe import parse_recipe

OWN, TAUGHT = ROLE["response"], ROLE["taught"]


def answered(**kept: list[float]):
    batch = scored([("check", [0.0])], lengths=[2], roles=[OWN], seed=1)
    logp_K = torch.tensor([-1.0, -3.0], requires_grad=True)
    return replace(
        batch, logp_K=logp_K, remembered={name: torch.tensor(x) for name, x in kept.items()}
    )


def test_by_hand() -> None:
    """Tokens at -1 and -3, the teacher's -2 and -1: (1)(-1), (-2)(-3), and slopes 1 and -2."""
    batch = answered(teacher=[-2.0, -1.0], taught=[1.0, 1.0])
    loss = SDFT()(batch)
    assert loss.loss_U.tolist() == [-1.0, 6.0]
    (slope_K,) = torch.autograd.grad(loss.loss_U.sum(), batch.logp_K)
    assert slope_K.tolist() == [1.0, -2.0]
    assert loss.reported.value_M.tolist() == [-0.5]  # a token is by half a nat less likely


def test_used_again_a_token_weighs_its_ratio_up_to_the_clip() -> None:
    """e^.5 = 1.65 times as likely as when it was sampled, and e^2 times, of which 2 is left."""
    batch = answered(teacher=[-2.0, -1.0], taught=[1.0, 1.0], old=[-1.5, -5.0])
    assert SDFT()(batch).loss_U.tolist() == pytest.approx([-math.exp(0.5), 12.0])
    assert SDFT(clip=None)(batch).loss_U[1].item() == pytest.approx(6 * math.exp(2), rel=1e-5)


def test_each_answer_is_told_what_was_read_of_it() -> None:
    """Two answers of a problem with a solution, and one of a problem without."""
    records = [("check", [0.0, 1.0, NAN, NAN]), ("check", [0.0])]
    roles = [OWN, OWN, TAUGHT, TAUGHT, OWN]
    batch = scored(records, lengths=[1, 2, 1, 2, 1], roles=roles, seed=1)
    batch = replace(batch, logp_K=torch.arange(7.0), ref_logp_K=10 + torch.arange(7.0))
    found = SDFT().remember(batch, again=True)
    assert found["teacher"].tolist() == [13, 14, 15, 13, 14, 15, 16]
    assert found["taught"].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert found["old"].tolist() == list(range(7))
    live = SDFT(teacher="policy")
    assert live.remember(batch, again=False)["teacher"].tolist() == [3, 4, 5, 3, 4, 5, 6]
    assert live.asks(again=False) == {"logp"}
    assert SDFT().asks(again=False) == frozenset()


def test_trl_says_the_same() -> None:
    """Its loss on the sampled tokens, from logits; value and gradient."""
    theirs = pytest.importorskip("trl.experimental.sdft.loss_utils")
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 2, 9, generator=draw) for _ in range(2))
    student.requires_grad_()
    said = torch.tensor([[3, 7]])
    other = theirs.compute_sampled_token_self_distillation_loss(
        student, teacher, said, distillation_alpha=1.0
    )
    logp, read = (x.log_softmax(-1)[0].gather(1, said.T)[:, 0] for x in (student, teacher))
    batch = replace(
        answered(taught=[1.0, 1.0]),
        logp_K=logp,
        remembered={"teacher": read.detach(), "taught": torch.ones(2)},
    )
    mine = SDFT()(batch).loss_U
    torch.testing.assert_close(mine, other[0])
    mine_S, other_S = (
        torch.autograd.grad(x.sum(), student, retain_graph=True)[0] for x in (mine, other)
    )
    torch.testing.assert_close(mine_S, other_S)


@pytest.mark.parametrize("chat", [False, True])
@torch.no_grad()
def test_the_teacher_reads_the_solution(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path, chat: bool
) -> None:
    """What is kept of each token is what the start model says of it behind problem and solution."""
    question, solution = "how much is 2 + 3?", "2 and 3 are 5."
    prompt: Any = [{"role": "user", "content": question}] if chat else question
    rows = [{"prompt": prompt, "solution": solution, "answer": "5"}]
    recipe = recipe_of("pair", objective={"check": "sdft"}, schedule="mix")
    stream = {"name": "problems", "path": str(write_rows(tmp_path / "p.jsonl", rows))}
    reward = {"name": "function", "path": "support.judged:vowels"}
    recipe["data"] = [{**stream, "kind": "check", "reward": reward}]
    recipe["rollout"] = {"num_generations": 2, "max_completion_length": 6}
    recipe["train"] |= {"batch_size": 1}
    run = build(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    (record,) = run.feeds.draw(["sdft"])
    assert record.sampled is not None
    assert record.sampled.roles == (OWN, OWN)
    assert len(record.paths) == len(record.scores) == 2
    tokenizer, model = run.policy.tokenizer, run.policy.model
    if chat:
        turns = [{"role": "user", "content": f"{question}\n\n{solution}"}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        taught = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        taught = tokenizer(f"{question}\n\n{solution}")["input_ids"]
    for number, path in enumerate(record.paths):
        said = path.ids[path.opening :].tolist()
        told = model(torch.tensor([taught + said])).logits[0].float().log_softmax(-1)
        want = [float(told[len(taught) - 1 + n, token]) for n, token in enumerate(said)]
        assert record.sampled.kept["teacher"][number].tolist() == pytest.approx(want, abs=1e-4)
        assert record.sampled.kept["taught"][number].tolist() == [1.0] * len(said)


def test_what_a_teacher_reads_is_no_longer_than_a_path_may_be(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Of a model of learned positions, which would end in an error in the middle of a run."""
    recipe = recipe_of("pair", objective={"check": "sdft"}, schedule="mix")
    question, solution = "how much is 2 + 3?", "2 and 3 are 5."
    rows = [{"prompt": question, "solution": solution, "answer": "5"}]
    stream = {"name": "problems", "path": str(write_rows(tmp_path / "p.jsonl", rows))}
    reward = {"name": "function", "path": "support.judged:vowels"}
    recipe["data"] = [{**stream, "kind": "check", "reward": reward}]
    recipe["rollout"] = {"num_generations": 2, "max_completion_length": 6}
    longest = len(make_tokenizer()(f"{question}\n\n{solution}")["input_ids"]) + 6
    shape = {"model_type": "gpt2", "n_positions": longest, "n_embd": 16, "n_layer": 1, "n_head": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    recipe["model"]["config"] = {**shape, **ends, "vocab_size": len(make_tokenizer())}
    recipe["train"] |= {"batch_size": 1, "max_length": longest}
    run = build(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    (record,) = run.feeds.draw(["sdft"])
    assert record.sampled is not None
    assert record.sampled.kept["taught"][0].all()
    recipe["train"]["max_length"] -= 1
    told = (
        f"behind the prompt that holds its solution, as a teacher reads it, it has {longest} tokens"
    )
    with pytest.raises(RecipeError, match=told):
        build(parse_recipe(recipe), tmp_path / "error", say=lambda line: None)
    # Not cut: a teacher would read another problem. And where none reads, there is room.
    recipe["train"]["overflow"] = "truncate_prompt"
    with pytest.raises(RecipeError, match="no record is left"):
        build(parse_recipe(recipe), tmp_path / "none", say=lambda line: None)
    recipe |= {"objective": {"check": "reinforce"}}
    run = build(parse_recipe(recipe), tmp_path / "others", say=lambda line: None)
    assert len(run.data.train["problems"]) == 1
