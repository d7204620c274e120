"""Runs that learn from whole distributions, from entropies and from a value head, on data from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.acting import At, crash, quiet
from support.tiny import make_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM

import onestage as one
from onestage.config import RecipeError
from onestage.objectives.ift import IFT
from onestage.objectives.sft import SFT
from onestage.runfolder import read_metrics
from onestage.training import build
from onestage.training.terms import Terms, numbers_of

PROMPTS = ["What is the capital of France?", "Write about the sea.", "Count."]
ANSWERS = [" The capital is Paris.", " The wind and the moon.", " one two three four"]
ROWS = [{"prompt": p, "completion": a} for p, a in zip(PROMPTS, ANSWERS, strict=True)]
SCORED = [{**row, "score": s} for row, s in zip(ROWS, (0.9, 0.1, 0.6), strict=True)]
PAIRS = [
    {"prompt": p, "chosen": a, "rejected": " No."} for p, a in zip(PROMPTS, ANSWERS, strict=True)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student and its teacher."""
    made = []
    for seed, name in enumerate(("student", "teacher")):
        folder = tmp_path_factory.mktemp(name)
        tiny_llama(seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        made.append(folder)
    return made[0], made[1]


def train(folder: Path, out: Path, rows: list[dict[str, Any]], **more: Any) -> Any:
    settings = {
        **{
            "max_steps": 6,
            "batch_size": 3,
            "learning_rate": 2e-2,
            "tokens_per_row": 64,
            "max_length": 64,
        },
        **{"lr_scheduler_type": "constant", "logging_steps": 1, "save_steps": 2},
        **more.pop("train", {}),
    }
    model = {"name": str(folder), "dtype": "float32", "lora": {"r": 8}}
    return one.train(model=model, data={"mine": rows}, train=settings, out=out, say=quiet, **more)


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out) if "loss" in line]


def test_a_student_nears_its_teacher(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The first loss is KL(teacher || student) a token by plain transformers, and it falls."""
    student, teacher = folders
    out = tmp_path / "run"
    train(student, out, ROWS, objective="distill", reference=str(teacher))
    tokenizer = make_tokenizer()
    now, old = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    total = count = 0.0
    for row in ROWS:
        start = len(tokenizer(row["prompt"]).input_ids)
        ids = [*tokenizer(row["prompt"] + row["completion"]).input_ids, 1]
        with torch.no_grad():
            p, q = (
                m(torch.tensor([ids])).logits[0, start - 1 : -1].log_softmax(-1) for m in (now, old)
            )
        total, count = total + float((q.exp() * (q - p)).sum()), count + len(p)
    told = losses(out)
    assert told[0] == pytest.approx(total / count, rel=1e-4)
    assert told[-1] < 0.8 * told[0]


@pytest.mark.parametrize(("objective", "rows"), [("tdpo", PAIRS), ("eaft", ROWS), ("dro", SCORED)])
def test_a_run_that_was_killed_ends_the_same(
    objective: str, rows: list[dict[str, Any]], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    train(folders[0], tmp_path / "whole", rows, objective=objective)
    with pytest.raises(MemoryError):
        train(folders[0], tmp_path / "cut", rows, objective=objective, callbacks=[At(3, crash)])
    train(folders[0], tmp_path / "cut", rows, objective=objective, resume=True)
    told = losses(tmp_path / "whole")
    assert told[-1] < told[0]
    name = "model/adapter_model.safetensors"
    ours, theirs = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_guesses_and_rivals_in_one_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The policy is asked with each one's number, and the gauges see the answer that is read twice:
    with nothing mixed in its gradient is SFT's."""
    first = {}
    for name, shown in {
        "plain": {"name": "ift", "mix": 0.0, "gamma": 0.0},
        "mixed": {"name": "ift", "mix": 0.9, "gamma": 0.0},
        "sft": {"name": "sft"},
    }.items():
        one.train(
            model={"name": str(folders[0]), "dtype": "float32", "lora": {"r": 8}},
            data={"shown": ROWS[:1], "judged": PAIRS},
            objective={"demonstration": shown, "pair": "cringe"},
            train={"max_steps": 1, "batch_size": 4, "logging_steps": 1, "max_length": 64},
            out=tmp_path / name,
            say=quiet,
        )
        first[name] = next(line for line in read_metrics(tmp_path / name) if "shown/loss" in line)
    plain, mixed, sft = (first[name] for name in ("plain", "mixed", "sft"))
    assert plain["shown/guessing_cost"] == pytest.approx(0.0, abs=1e-5)
    assert mixed["shown/loss"] == pytest.approx(
        plain["shown/loss"] + mixed["shown/guessing_cost"], rel=1e-5
    )
    assert abs(mixed["shown/guessing_cost"]) > 1e-3
    assert plain["shown/loss"] == pytest.approx(sft["shown/loss"], rel=1e-5)
    assert plain["gauge/grad_norm/ift"] == pytest.approx(sft["gauge/grad_norm/sft"], rel=1e-3)
    for line in first.values():
        assert line["judged/loss"] == pytest.approx(sft["judged/loss"], rel=1e-5)


def test_other_numbers_of_the_same_are_refused() -> None:
    terms = Terms({"a": IFT(mix=0.2), "b": SFT(), "c": IFT(mix=0.3)}, {})
    with pytest.raises(RecipeError, match=r"a asks the policy for mixed_logp with 0\.2 .* 0\.3"):
        numbers_of(terms)
    assert numbers_of(Terms({"a": IFT(gamma=0.5), "c": IFT()}, {})) == {"mixed_logp": 0.2}


def test_weights_in_parts_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As several ranks would be: one process alone is refused before, for want of others."""
    monkeypatch.setattr(build, "require_ranks", lambda section, ranks: None)
    with pytest.raises(RecipeError, match="tdpo compares whole distributions"):
        train(
            folders[0], tmp_path / "run", PAIRS, objective="tdpo", distributed={"sharding": "full"}
        )
