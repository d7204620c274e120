"""The suite of one's own problems: by hand, and against transformers' own generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import make_tokenizer, tiny_llama, write_rows

from onestage.models.policy import Policy
from onestage.rollout import suites
from onestage.rollout.suites import Subject, measure, scored

ROWS = [{"prompt": "Say red.", "answer": "red"}, {"prompt": "Say blue.", "answer": "blue"}]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(write_rows(tmp_path / "problems.jsonl", ROWS))


def make(path: str, **options: Any) -> suites.Suite:
    return suites.make({"name": "problems", "path": path, "reward": "match", **options})


def test_a_problem_is_worth_the_mean_of_its_answers(path: str) -> None:
    """Two answers to each: red is right in both, blue in one of two; lengths 1 to 4."""
    suite = make(path, samples=2, temperature=1.0)
    items = suite.items(chat=False)
    assert [item.prompt for item in items] == ["Say red.", "Say blue."]
    said = {
        "0": [("red", 1, True), (" red ", 2, True)],
        "1": [("blue", 3, True), ("red", 4, False)],
    }
    found = scored(
        suite,
        items,
        {
            key: {
                "asked": "",
                "answers": [{"completion": c, "tokens": t, "ended": e} for c, t, e in answers],
            }
            for key, answers in said.items()
        },
    )
    assert {name: one.value for name, one in found.metrics.items()} == {
        "reward": 0.75,
        "length": 2.5,
        "ended": 0.75,
    }
    assert found.headline.value == 0.75


def test_answers_are_those_of_transformers(path: str) -> None:
    tokenizer = make_tokenizer()
    model = tiny_llama(len(tokenizer))
    found = measure(
        make(path, max_completion_length=5, chat=False),
        Subject.of(Policy(model, tokenizer=tokenizer)),
    )
    for item in found.items:
        ids = torch.tensor([tokenizer(item.prompt)["input_ids"]])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False
        )
        said = tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
        assert found.answers[item.id]["completion"] == said


def test_what_was_cut_and_what_ran_into_the_limit_is_counted(tmp_path: Path) -> None:
    """Each said so of its answers alone, and nobody looked there."""
    rows = [{"prompt": "Say red. " * 40, "answer": "red"}, {"prompt": "Say it.", "answer": "red"}]
    model = tiny_llama()
    model.config.max_position_embeddings = 64
    found = measure(
        make(str(write_rows(tmp_path / "p.jsonl", rows)), max_completion_length=4, chat=False),
        Subject.of(Policy(model, tokenizer=make_tokenizer())),
    )
    assert (found.count("cut"), found.unfinished) == (1, 2)
    assert len(found.remarks()) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reward": None}, "needs a reward; known: .*match"),
        ({"reward": "mach"}, "did you mean 'match'"),
        ({"samples": 2}, "all alike; set temperature: 1"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"path": None}, "set its option path"),
        ({"path": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_asked_is_said(options: dict[str, Any], says: str, path: str) -> None:
    with pytest.raises((ValueError, OSError), match=says):
        suites.make({"name": "problems", "path": path, "reward": "match", **options}).items(
            chat=False
        )


def test_rows_without_what_the_reward_needs_are_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Say red.", "other": "red"}])
    with pytest.raises(ValueError, match="answer"):
        make(str(path)).items(chat=False)


def test_plain_prompts_are_asked_as_a_stream_asks_them(path: str) -> None:
    """Plain text, with a chat template too; messages where that, or a system message, is asked for."""
    wrapped = [
        ({"role": "user", "content": "Say red."},),
        ({"role": "user", "content": "Say blue."},),
    ]
    for options, expected in (
        ({}, ["Say red.", "Say blue."]),
        ({"chat": True}, wrapped),
        ({"system": "Be kind."}, wrapped),
    ):
        items = make(path, **options).items(chat=True)
        assert [item.prompt for item in items] == expected
