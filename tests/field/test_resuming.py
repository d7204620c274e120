"""A run that goes on with another recipe: refused with the difference, or applied where allowed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file
from support.acting import At, crash, quiet
from support.tiny import write_recipe, write_rows
from typer.testing import CliRunner

from onestage.cli import app
from onestage.config import RecipeError
from onestage.runfolder import read_metrics
from onestage.runfolder.seal import SEAL, seal
from onestage.schedules import PLUGINS
from onestage.training.callbacks import Callback
from onestage.training.checkpoints import Checkpoints
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.resuming import Changes, bears, differences, is_free, told_apart
from onestage.training.run import Run
from onestage.training.same_run import CheckpointError

Make = Callable[..., dict[str, Any]]


def stop(run: Run) -> None:
    run.stop = True


def go(recipe: Mapping[str, Any], out: Path, **more: Any) -> list[dict[str, Any]]:
    carry_out(parse_recipe(recipe), out, **{"say": quiet, "self_check": False, **more})
    return read_metrics(out)


@pytest.fixture
def recipe(recipe_of: Make, model_folder: Path) -> dict[str, Any]:
    found = recipe_of("demonstration", "pair", objective={"name": "uft", "beta": 0.1})
    found["model"] = {"name": str(model_folder), "lora": {"r": 2}}
    return found


@pytest.fixture
def cut(recipe: dict[str, Any], tmp_path: Path) -> Path:
    """A run that was stopped after step 2 of 4."""
    go(recipe, tmp_path / "cut", callbacks=[At(2, stop)])
    return tmp_path / "cut"


def changed(recipe: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(recipe))
    *sections, last = key.split(".")
    target = found
    for name in sections:
        if isinstance(target, list):
            target = next(one for one in target if one["name"] == name)
        else:
            target = target.setdefault(name, {})
    target[last] = value
    return found


REFUSED = {
    "train.learning_rate": (2e-2, "0.01 -> 0.02"),
    "train.lr_scheduler_type": ("linear", "constant -> linear"),
    "train.batch_size": (5, "6 -> 5"),
    "train.seed": (7, "42 -> 7"),
    "train.weight_decay": (0.1, "0.0 -> 0.1"),
    "train.max_grad_norm": (0.5, "1.0 -> 0.5"),
    "train.max_length": (100, "128 -> 100"),
    "train.num_train_epochs": (2.0, "None -> 2.0"),
    "objective.beta": (0.2, "0.1 -> 0.2"),
    "objective.name": ("dpo", "uft -> dpo"),
    "schedule": ({"name": "mix", "lambda": 0.5}, "schedule.name: proportional -> mix"),
    "model.lora.alpha": (8, r"\(not given\) -> 8"),
    "data.pairs.weight": (2.0, r"\(not given\) -> 2.0"),
    "rollout.temperature": (0.7, "1.0 -> 0.7"),
    "optimum": ({"given": {"uft": 0.0}}, "optimum.given"),
}


def test_every_difference_that_changes_the_run_is_refused_with_both_values(
    recipe: dict[str, Any], cut: Path
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in cut.rglob("*"))
    for key, (value, shown) in REFUSED.items():
        other = changed(recipe, key, value)
        if key == "train.num_train_epochs":
            del other["train"]["max_steps"]
        place = key if "->" in shown and ":" not in shown else ""
        with pytest.raises(CheckpointError, match=rf"{place}.*{shown}") as caught:
            go(other, cut, resume=True)
        assert f"--allow-changed {key}" in str(caught.value)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in cut.rglob("*"))


CANNOT = {
    "train.optim": ("sgd", "adamw_torch_fused -> sgd"),
    "train.average": ("ema", "none -> ema"),
    "model.lora.r": (4, "2 -> 4"),
    "model.lora.target_modules": (["q_proj"], r"\(not given\) -> \['q_proj'\]"),
    "model.lora": (None, "'r': 2"),
    "model.dtype": ("bfloat16", r"\(not given\) -> bfloat16"),
}


def test_what_cannot_be_applied_is_refused_in_one_sentence(
    recipe: dict[str, Any], cut: Path
) -> None:
    for key, (value, shown) in CANNOT.items():
        with pytest.raises(CheckpointError, match=rf"{key} cannot change .*{shown}") as caught:
            go(changed(recipe, key, value), cut, resume=True, allow_changed=[key, "train", "model"])
        assert "\n" not in str(caught.value)
    for objective in ({"demonstration": "sft", "pair": "dpo"}, "dpo"):
        other = {**recipe, "objective": objective}
        other["data"] = recipe["data"][1:] if objective == "dpo" else recipe["data"]
        with pytest.raises(CheckpointError, match=r"does not fit the recipe: its terms \['uft'\]"):
            go(other, cut, resume=True, allow_changed=["objective", "data"])


def test_what_changes_no_number_may_change_and_the_run_stays_the_same(
    recipe: dict[str, Any], cut: Path, tmp_path: Path
) -> None:
    go(recipe, tmp_path / "whole")
    moved = tmp_path / "moved" / "demonstration.jsonl"
    moved.parent.mkdir()
    Path(recipe["data"][0]["path"]).rename(moved)
    free = {
        "data.demonstrations.path": str(moved),
        "description": "the same",
        "train.logging_steps": 2,
        "train.save_steps": 1,
        "train.save_total_limit": 1,
        "probe": {"steps": 2, "gradients": False},
        "guard": [{"measure": "task/uft/kl", "above": 1e9}],
        "cache_dir": str(tmp_path / "elsewhere"),
        "rollout.alarm_after": 3,
        "objective": {"name": "uft", "beta": 0.1},
    }
    for key, value in free.items():
        recipe = changed(recipe, key, value)
    said: list[str] = []
    go(recipe, cut, resume=True, say=said.append)
    assert "changed since: train.save_steps: None -> 1" in said
    assert not [line for line in said if "data" in line and "changed since" in line]
    whole, mine = (
        load_file(f / "model" / "adapter_model.safetensors") for f in (tmp_path / "whole", cut)
    )
    assert all((whole[name] == mine[name]).all() for name in whole)


def test_what_is_allowed_is_applied_and_recorded(recipe: dict[str, Any], cut: Path) -> None:
    """Also where the run is killed again before a checkpoint knows of it."""
    recipe["train"] |= {"learning_rate": 0.5, "lr_scheduler_type": "linear", "weight_decay": 0.25}
    recipe["objective"]["beta"] = 0.3
    keys = ["train.learning_rate", "train.lr_scheduler_type", "train.weight_decay", "objective"]
    groups: list[tuple[float, float]] = []

    def look(run: Run) -> None:
        groups.extend((group["lr"], group["weight_decay"]) for group in run.optimizer.param_groups)
        crash(run)

    with pytest.raises(MemoryError):
        go(recipe, cut, resume=True, allow_changed=keys, callbacks=[At(3, look)])
    assert groups == [(pytest.approx(0.5 / 4), 0.25)]  # before step 4 of 4
    facts = json.loads((cut / "manifest.json").read_text())
    (entry,) = facts["changed"]
    assert entry["step"] == 2
    assert entry["keys"]["train.learning_rate"] == ["0.01", "0.5"]
    assert set(entry["keys"]) == {*keys[:3], "objective.beta"}
    assert facts["versions"]
    assert yaml.safe_load((cut / "recipe.yaml").read_text())["objective"]["beta"] == 0.3
    again = go(recipe, cut, resume=True)  # what was allowed stays allowed
    rates = {line["step"]: line["learning_rate"] for line in again}
    assert rates == pytest.approx({1: 0.01, 2: 0.01, 3: 0.125, 4: 0.0})
    recipe["objective"]["beta"] = 0.1  # and no more than that
    with pytest.raises(CheckpointError, match=r"objective.beta: 0.3 -> 0.1"):
        go(recipe, cut, resume=True)
    assert len(json.loads((cut / "manifest.json").read_text())["changed"]) == 1


def test_changed_data_is_refused_or_gone_on_with(recipe: dict[str, Any], cut: Path) -> None:
    write_rows(
        Path(recipe["data"][0]["path"]),
        [{"prompt": f"a {n}", "completion": " b"} for n in range(9)],
    )
    with pytest.raises(
        CheckpointError, match=r"other data: \['demonstrations'\].*--allow-changed data.dem"
    ):
        go(recipe, cut, resume=True)
    lines = go(recipe, cut, resume=True, allow_changed=["data.demonstrations"])
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    (entry,) = json.loads((cut / "manifest.json").read_text())["changed"]
    assert list(entry["keys"]) == ["data.demonstrations"]


def test_an_unchanged_run_has_nothing_to_say(recipe: dict[str, Any], cut: Path) -> None:
    said: list[str] = []
    go(recipe, cut, resume=True, say=said.append, allow_changed=["train.learning_rate"])
    assert not [line for line in said if "changed since" in line or "wrote it" in line]
    assert "changed" not in json.loads((cut / "manifest.json").read_text())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("0.1", "0.9", 1),
        lambda text: "".join(text.splitlines(keepends=True)[1:]),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        None,
    ],
    ids=["another number", "a line gone", "cut", "empty", "missing"],
)
def test_metrics_that_are_not_as_they_were_written_are_told(
    damage: Callable[[str], str] | None, recipe: dict[str, Any], cut: Path
) -> None:
    """A line that is gone, or says another number, is no damaged line: the checkpoint knows the file."""
    file, said = cut / "metrics.jsonl", list[str]()
    before = file.read_text()
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage(before))
        assert file.read_text() != before
    go(recipe, cut, resume=True, say=said.append)
    told = [line for line in said if "metrics.jsonl is not as this run wrote it" in line]
    assert len(told) == 1


def test_checkpoints_of_earlier_versions_are_compared_with_the_recipe_in_the_folder(
    recipe: dict[str, Any], cut: Path
) -> None:
    (newest,) = Checkpoints(cut).all()
    progress = json.loads((newest / "progress.json").read_text())
    del progress["recipe"]
    (newest / "progress.json").write_text(json.dumps(progress))
    (newest / SEAL).unlink()
    seal(newest)
    with pytest.raises(CheckpointError, match=r"train.seed: 42 -> 7"):
        go(changed(recipe, "train.seed", 7), cut, resume=True)
    (cut / "recipe.yaml").write_text("{")
    with pytest.raises(CheckpointError, match="says how the run was begun and cannot be read"):
        go(recipe, cut, resume=True)


def test_a_longer_run_is_the_same_run_only_where_no_step_asks_how_long_it_is() -> None:
    for told, free in (
        ({"train": {"lr_scheduler_type": "constant"}}, True),
        ({"train": {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3}}, True),
        ({"train": {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.1}}, False),
        ({"train": {"lr_scheduler_type": "constant", "average": "tail"}}, False),
        ({"train": {"lr_scheduler_type": "inverse_sqrt"}}, True),
        ({"train": {"lr_scheduler_type": "constant"}, "keep": [{"what": "kl"}]}, True),
        ({"train": {"lr_scheduler_type": "constant"}, "keep": [{"what": "gsm8k"}]}, False),
        ({"train": {"lr_scheduler_type": "constant"}, "schedule": "sequential"}, False),
        ({}, False),
    ):
        assert is_free("train.max_steps", told, told) == free, told
    # Who is refused, and who goes on all the same, is told why.
    assert bears("train.max_steps", {}, {}).startswith(
        " (it bears on the learning rate of each step"
    )
    allowed = Changes({}, ["train"], {"train.max_steps": (3, 6)})
    assert "3 -> 6; not the steps of one run of that length" in allowed.lines()[0]
    # Of our schedules one alone reads how many steps there will be.
    constant = {"train": {"lr_scheduler_type": "constant"}}
    told_of = {name: constant | {"schedule": name} for name in PLUGINS.built_in()}
    bound = [n for n, told in told_of.items() if not is_free("train.max_steps", told, told)]
    assert "sequential" in bound
    assert not {"proportional", "mix", "alright", "maxright", "chord", "gac"} & {*bound}


def test_recipes_are_compared_by_what_they_mean() -> None:
    streams = [{"name": "a", "path": "a"}, {"name": "b", "path": "b"}]
    same = [
        ({"objective": "dpo"}, {"objective": {"name": "dpo"}}),
        ({}, {"objective": "uft", "train": {"seed": 42}}),
        ({"data": streams}, {"data": [dict(one) for one in streams]}),
    ]
    for was, now in same:
        assert not list(differences(was, now))
    assert (
        told_apart({"data": streams}, {"data": streams[::-1]}) == "data: ['a', 'b'] -> ['b', 'a']"
    )
    guard = {"probe": {"steps": 5}, "guard": [{"then": "raise", "term": "a"}]}
    assert "probe.steps: 5 -> 6" in told_apart(guard, {**guard, "probe": {"steps": 6}})
    assert "guard" in told_apart(guard, {"probe": {"steps": 5}})


def test_by_command(recipe: dict[str, Any], cut: Path, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe)
    words = ["train", str(file), "--out", str(cut), "--no-self-check"]
    more = ["--set", "train.learning_rate=0.02"]
    refused = CliRunner().invoke(app, [*words, "--resume", *more])
    assert refused.exit_code == 1
    assert "train.learning_rate: 0.01 -> 0.02" in refused.output
    allowing = [*words, *more, "--allow-changed", "train.learning_rate"]
    assert "add --resume" in CliRunner().invoke(app, allowing).output
    odd = CliRunner().invoke(app, [*words, "--resume", "--allow-changed", "train.lerning_rate"])
    assert "did you mean 'train.learning_rate'" in odd.output
    done = CliRunner().invoke(app, [*allowing, "--resume"])
    assert done.exit_code == 0, done.output
    assert "changed since: train.learning_rate: 0.01 -> 0.02" in done.output


def test_a_stage_goes_on_by_the_same_rules(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe |= {"stages": [{"name": "a"}, {"name": "b", "adapter": "same", "reference": "start"}]}
    begun = 0

    class Second(Callback):
        def begin(self, run: Run) -> None:
            nonlocal begun
            begun += 1

        def step(self, run: Run, loss: float) -> None:
            run.stop = begun == 2 and run.step == 2

    out = tmp_path / "out"
    carry_out(parse_recipe(recipe), out, say=quiet, callbacks=[Second()], self_check=False)
    free = changed(recipe, "train.save_steps", 1)
    whole = changed(free, "train.batch_size", 4)
    with pytest.raises(CheckpointError, match=r"stage a .* is done.*\(train.batch_size: 6 -> 4\)"):
        carry_out(parse_recipe(whole), out, say=quiet, resume=True, self_check=False)
    free["stages"][1]["train"] = {"batch_size": 4}
    with pytest.raises(
        CheckpointError, match=r"2-b was begun with another.*\n.*batch_size: 6 -> 4"
    ):
        carry_out(parse_recipe(free), out, say=quiet, resume=True, self_check=False)
    allowed = {"resume": True, "allow_changed": ["train.batch_size"], "say": quiet}
    assert carry_out(parse_recipe(free), out, **allowed).name == "model"
    with pytest.raises(RecipeError, match=r"no key 'train\.bach_size'"):
        go(recipe | {"stages": None}, out / "2-b", resume=True, allow_changed=["train.bach_size"])


def test_settings_that_were_edited_since_are_told(
    recipe: dict[str, Any], model_folder: Path, tmp_path: Path
) -> None:
    """The weights are the same, and what they say is not: the reference is asked anew, too."""
    base = Path(shutil.copytree(model_folder, tmp_path / "base"))
    recipe = changed(recipe, "model.name", str(base))
    go(recipe, tmp_path / "out", callbacks=[At(2, stop)])
    file = base / "config.json"
    plain = json.loads(file.read_text())
    told = {**plain["rope_parameters"], "rope_theta": 17.0}
    file.write_text(json.dumps({**plain, "rope_parameters": told}))
    said: list[str] = []
    go(recipe, tmp_path / "out", resume=True, say=said.append)
    for what in ("model", "reference"):
        line = f"changed since: the settings of the {what} (config.json, or how it is read)"
        assert said.count(line) == 1
