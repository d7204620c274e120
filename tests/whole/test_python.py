"""`onestage.train` and its neighbours as a notebook uses them: names, rows, data sets, loaded models."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from support.tiny import ROOT, make_tokenizer, tiny_llama

import onestage as one
from onestage.config import RecipeError

ROWS = [{"prompt": f"say {w}", "completion": f" {w}"} for w in ("sea", "moon", "wind", "poem")]
PAIRS = [{"prompt": f"say {w}", "chosen": f" {w}", "rejected": " no"} for w in ("sea", "moon")]
SHORT = {"max_steps": 2, "batch_size": 2, "max_length": 64, "logging_steps": 1}


def quiet(line: str) -> None:
    """Says nothing."""


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, Any]:
    return {"cache_dir": str(tmp_path / "cache"), "say": quiet}


def test_names_rows_and_sections(model_folder: Path, tmp_path: Path, cache: dict[str, Any]) -> None:
    run = one.train(
        model=one.Model(name=str(model_folder), lora=one.Lora(r=2)),
        data={"chat": ROWS, "prefs": one.Stream(PAIRS, weight=2)},
        objective={"demonstration": "sft", "pair": one.objectives.DPO(beta=0.2)},
        schedule=one.schedules.Mix(weights={"sft": 1, "dpo": 1}),
        train=SHORT,
        out=tmp_path / "run",
        **cache,
    )
    assert run.done
    assert (run.model / "adapter_config.json").is_file()
    assert [line["step"] for line in run.metrics] == [1, 2]
    assert run.policy.gives >= {"logp"}


def test_a_recipe_with_sections_laid_over_it(
    model_folder: Path, tmp_path: Path, cache: dict[str, Any]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": " b"}\n')
    (tmp_path / "recipe.yaml").write_text(
        f"model: {model_folder}\ndata: {{mine: {tmp_path / 'rows.jsonl'}}}\nobjective: sft\n"
        "train: {max_steps: 9, batch_size: 1, seed: 5}\n"
    )
    run = one.train(tmp_path / "recipe.yaml", out=tmp_path / "run", train={"max_steps": 1}, **cache)
    told = one.training.recipe.load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (told.train.max_steps, told.train.seed) == (1, 5)
    assert [line["step"] for line in run.metrics] == [1]


def test_a_data_set_and_a_list_are_the_same_data(
    model_folder: Path, tmp_path: Path, cache: dict[str, Any]
) -> None:
    found = []
    for name, data in (("list", ROWS), ("set", datasets.Dataset.from_list(ROWS))):
        run = one.train(
            model=str(model_folder),
            data=data,
            objective="sft",
            train=SHORT,
            out=tmp_path / name,
            **cache,
        )
        found.append(load_file(run.model / "model.safetensors"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["whole", "adapter"])
def test_a_loaded_model_trains_like_its_folder(
    lora: Any, model_folder: Path, tmp_path: Path, cache: dict[str, Any]
) -> None:
    how = {"data": PAIRS, "objective": "dpo", "train": SHORT}
    named = one.train(
        model={"name": str(model_folder), "lora": lora}, out=tmp_path / "named", **how, **cache
    )
    with pytest.raises(RecipeError, match="needs its tokenizer"):
        one.train(model=tiny_llama(), out=tmp_path / "no", **how, **cache)
    loaded = one.train(
        model=tiny_llama(),
        lora=lora,
        tokenizer=make_tokenizer(),
        out=tmp_path / "loaded",
        **how,
        **cache,
    )
    file = "adapter_model.safetensors" if lora else "model.safetensors"
    first, second = (load_file(run.model / file) for run in (named, loaded))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert loaded.policy.gives >= {"logp"}  # its base is where the adapter says


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["whole", "adapter"])
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "fails"])
def test_a_loaded_model_is_given_back_as_it_was(
    lora: Any, ends: bool, tmp_path: Path, cache: dict[str, Any]
) -> None:
    """All but weights and adapters, whether the run ends or not: what plain modules hold, by name."""

    class Fail(one.Callback):
        def step(self, run: Any, loss: float) -> None:
            assert any(module._forward_hooks for module in model.modules())
            assert model.config._attn_implementation == "onestage_forest"
            if not ends:
                raise KeyError("somebody else's")

    def held() -> dict[str, Any]:
        plain = {"training", "p", "attention_dropout", "gradient_checkpointing", "forward"}
        found: dict[str, Any] = {"attention": model.config._attn_implementation}
        for name, module in model.named_modules():
            if "lora_" not in name and "base_layer" not in name:
                own = {k: v for k, v in vars(module).items() if k in plain or ("hooks" in k and v)}
                found[name] = own
        return found

    model = tiny_llama(attention_dropout=0.1)
    model.train()
    model.model.layers[0].eval()
    was = held()

    def train(**more: Any) -> None:
        how = {"objective": {"demonstration": "sft", "pair": "dpo"}, "train": SHORT, **cache}
        given = {"model": model, "tokenizer": make_tokenizer(), "data": [*ROWS, *PAIRS]}
        one.train(lora=lora, **how, **given, **more)

    with nullcontext() if ends else pytest.raises(KeyError):
        train(out=tmp_path / "run", callbacks=[Fail()])
    assert held() == was
    assert all(parameter.grad is None for parameter in model.parameters())
    assert any("lora_" in name for name, _ in model.named_parameters()) == (lora is not None)
    if lora:  # in its layers, and it is no model of PEFT's
        with pytest.raises(ValueError, match="load it anew"):
            train(out=tmp_path / "again")


@pytest.mark.parametrize(
    "more", [{"stages": [{"name": "a"}, {"name": "b"}]}, {"optimum": {"steps": 1}}]
)
def test_a_loaded_model_is_trained_once(
    more: dict[str, Any], tmp_path: Path, cache: dict[str, Any]
) -> None:
    how = {"data": PAIRS, "objective": "dpo", "train": SHORT, "out": tmp_path / "run", **more}
    with pytest.raises(RecipeError, match="save it and name its folder"):
        one.train(model=tiny_llama(), tokenizer=make_tokenizer(), **how, **cache)


def test_a_stopped_run_is_resumed_from_python(
    model_folder: Path, tmp_path: Path, cache: dict[str, Any]
) -> None:
    class Stop(one.Callback):
        def step(self, run: Any, loss: float) -> None:
            run.stop = run.step == 1

    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": " b"}\n' * 4)
    how = {"model": str(model_folder), "data": str(tmp_path / "rows.jsonl"), "objective": "sft"}
    how |= {"train": {**SHORT, "max_steps": 3}}
    whole = one.train(**how, out=tmp_path / "whole", **cache)
    cut = one.train(**how, out=tmp_path / "cut", callbacks=[Stop()], **cache)
    assert not cut.done
    assert cut.policy.gives >= {"logp"}  # of the checkpoint
    again = cut.resume(say=quiet)
    assert again.done
    first, second = (load_file(run.model / "model.safetensors") for run in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_check_says_what_train_would_refuse(model_folder: Path, cache: dict[str, Any]) -> None:
    how = {"model": str(model_folder), "data": ROWS, "train": SHORT, **cache}
    (good,) = one.check(**how, objective="sft")
    assert good.good
    assert good.cost is not None
    (bad,) = one.check(**how, objective="dpo")
    assert not bad.good
    assert any("cannot use demonstration records" in line for line in bad.findings.errors)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"objectve": "sft"}, "did you mean 'objective'"),
        ({"train": {"learning_rte": 1}}, "did you mean 'learning_rate'"),
        ({"out": None}, "say in which folder"),
        ({"data": None}, "data"),
    ],
)
def test_bad_arguments_are_told_like_bad_recipes(
    given: dict[str, Any], told: str, model_folder: Path, tmp_path: Path, cache: dict[str, Any]
) -> None:
    how = {"model": str(model_folder), "data": ROWS, "train": SHORT, "out": tmp_path / "run"}
    with pytest.raises(RecipeError, match=told):
        one.train(**{**how, **given}, **cache)


def test_a_reward_and_a_hint_made_in_python(
    model_folder: Path, tmp_path: Path, cache: dict[str, Any]
) -> None:
    rows = [{"prompt": "1 + 1 =", "answer": "2", "solution": ["1 + 1 is 2.\n"]}]
    asked = one.Stream(
        rows, name="sums", kind="check", reward=one.rewards.Match(), hint=one.hints.Uniform()
    )
    run = one.train(
        model=str(model_folder),
        data=[asked],
        objective="grpo",
        rollout=one.Rollout(num_generations=2, max_completion_length=4),
        train={**SHORT, "max_steps": 1, "batch_size": 1},
        out=tmp_path / "run",
        **cache,
    )
    assert run.done
    told = (run.out / "recipe.yaml").read_text()
    assert "onestage.rollout.rewards.match:Match" in told


def test_dir_and_types_know_every_name() -> None:
    assert set(one.__all__) <= set(dir(one))
    for name in one.__all__:
        assert getattr(one, name) is not None
    for room in (one.objectives, one.schedules, one.rewards, one.hints):
        assert any(name[0].isupper() for name in dir(room))
    assert "DPO" in dir(one.objectives)


def test_import_takes_nothing_along() -> None:
    code = (
        "import sys, onestage; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_type_checker_knows_the_names(tmp_path: Path) -> None:
    """mypy, as a user would run it on a script that uses the package; it need not look into torch and
    its like, which costs most of a minute."""
    options = tmp_path / "mypy.ini"
    others = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy")
    options.write_text(
        "[mypy]\nignore_missing_imports = true\n"
        + "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in others)
    )
    script = tmp_path / "mine.py"
    script.write_text(
        "import onestage as one\n"
        "run: one.Trained = one.train(model='m', data={'a': 'b.jsonl'}, out='r')\n"
        "lora = one.Lora(r=8)\n"
        "loss = one.objectives.PLUGINS\n"
        "one.trian()\n"
        "one.Lora(rank=3)\n"
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent"]
    command += ["--config-file", str(options), "--cache-dir", str(tmp_path / "cache"), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    problems = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(problems) == 2, done.stdout
    assert 'has no attribute "trian"' in problems[0]
    assert '"rank"' in problems[1]
