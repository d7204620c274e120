"""Probes, guards, f* and gaps: what is measured is right, and measuring changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.ranks import train_on_two_ranks
from support.tiny import tiny_llama, token_path, write_recipe, write_rows

from onestage.config import RecipeError
from onestage.data.packing import pack, pack_records
from onestage.data.stream import Stream
from onestage.models.divergence import Anchor
from onestage.models.policy import Fit, Policy
from onestage.runfolder import read_metrics
from onestage.schedules import make
from onestage.training.build import Draft, build
from onestage.training.forward import row_loss
from onestage.training.monitor import Guarded, act
from onestage.training.optimum import DONE, _lowest, complete
from onestage.training.pipeline import carry_out
from onestage.training.plan import alone
from onestage.training.recipe import Guard, parse_recipe

Make = Callable[..., dict[str, Any]]
TWO = {"demonstration": "sft", "pair": "dpo"}


def quiet(line: str) -> None:
    return None


def go(recipe: dict[str, Any], out: Path, **options: Any) -> list[dict[str, Any]]:
    carry_out(parse_recipe(recipe), out, **{"say": quiet, "self_check": False, **options})
    return read_metrics(out)


@pytest.fixture
def probed(recipe_of: Make, rows: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """SFT and DPO mixed, watched on some text."""

    def make(**train: Any) -> dict[str, Any]:
        recipe = recipe_of("demonstration", "pair", objective=TWO, schedule="mix")
        recipe["train"] |= {"batch_size": 3, "max_steps": 6, **train}
        text = write_rows(tmp_path / "kept.jsonl", rows["text"])
        kept = [{"name": "kept", "path": str(text)}]
        recipe["probe"] = {"steps": 3, "retention": kept}
        return recipe

    return make


def rows_of_paths() -> list[Any]:
    first = token_path([0, 9, 8, 7, 6, 5, 1], (3, 7))
    second = token_path([0, 9, 8, 30, 31, 1], (3, 6), responses=(1,))
    third = token_path([0, 40, 41, 42], (1, 4), responses=(2,))
    return pack([[first, second], [third]], 64)


def kl_by_hand(start: Any, now: Any) -> float:
    total, count = 0.0, 0
    for ids, (a, b) in (
        ([0, 9, 8, 7, 6, 5, 1], (3, 7)),
        ([0, 9, 8, 30, 31, 1], (3, 6)),
        ([0, 40, 41, 42], (1, 4)),
    ):
        with torch.no_grad():
            old, new = (
                torch.log_softmax(m(input_ids=torch.tensor([ids])).logits[0, a - 1 : b - 1], -1)
                for m in (start, now)
            )
        total += torch.nn.functional.kl_div(new, old, reduction="sum", log_target=True).item()
        count += b - a
    return total / count


@pytest.mark.parametrize("layout", ["forest", "alone"])
@pytest.mark.parametrize("trained", ["all", "body"])
def test_kl_to_the_start_is_that_of_full_distributions(layout: Any, trained: str) -> None:
    start, now = tiny_llama(), tiny_llama()
    if trained == "body":
        now.get_output_embeddings().weight.requires_grad_(False)
    policy = Policy(now, fit=Fit(layout, True))
    watch = Anchor(policy, rows_of_paths())
    assert watch.measure(policy).kl == pytest.approx(0, abs=1e-6)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in now.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    moved = watch.measure(policy)
    assert moved.positions == 10
    assert moved.kl == pytest.approx(kl_by_hand(start, now), rel=1e-4)
    assert moved.kl > 0.01
    with policy.evaluating():
        logp = torch.cat([policy(row) for row in rows_of_paths()])
    assert moved.loss == pytest.approx(-logp.mean().item(), rel=1e-5)


def test_a_model_whose_head_is_not_linear_has_a_loss_but_no_kl() -> None:
    policy = Policy(tiny_llama(), fit=Fit("alone", False, "its own logits"))
    moved = Anchor(policy, rows_of_paths()).measure(policy)
    assert math.isnan(moved.kl)
    assert moved.loss > 0


def test_probes_never_change_training(probed: Make, tmp_path: Path) -> None:
    recipe = probed()
    recipe["model"]["lora"] = {"r": 2, "dropout": 0.3}
    watched = go(recipe, tmp_path / "watched")
    del recipe["probe"]
    plain = go(recipe, tmp_path / "plain")
    steps = [line for line in watched if "loss" in line]
    for left, right in zip(plain, steps, strict=True):
        left.pop("tokens_per_second"), right.pop("tokens_per_second")
        assert left == right
    name = "model/adapter_model.safetensors"
    mine, theirs = load_file(tmp_path / "plain" / name), load_file(tmp_path / "watched" / name)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_what_a_probe_writes(probed: Make, tmp_path: Path) -> None:
    lines = [line for line in go(probed(), tmp_path / "out") if "loss" not in line]
    assert [line["step"] for line in lines] == [0, 3, 6]
    first, _, last = lines
    assert first["retention/kept/kl"] == pytest.approx(0, abs=1e-6)
    assert first["retention/kept/loss_increase"] == 0
    assert last["retention/kept/kl"] > 0
    assert last["retention/kept/loss"] - first["retention/kept/loss"] == pytest.approx(
        last["retention/kept/loss_increase"], rel=1e-4
    )
    assert last["task/sft/kl"] > 0
    assert last["task/dpo/kl"] > 0
    for line in lines:
        shares = [line["probe/grad_share/sft"], line["probe/grad_share/dpo"]]
        assert sum(shares) == pytest.approx(1)
        assert -1 <= line["probe/cosine/sft/dpo"] <= 1
    norm = last["probe/grad_norm/sft"]
    assert norm / (norm + last["probe/grad_norm/dpo"]) == pytest.approx(
        last["probe/grad_share/sft"], rel=1e-4
    )


def test_gradients_of_a_probe_are_those_of_the_terms(probed: Make, tmp_path: Path) -> None:
    session = build(parse_recipe(probed()), tmp_path / "out", say=quiet)
    session.fill_reference()
    run, found = session, session.monitor.first()
    assert all(p.grad is None for p in run.policy.parameters())
    grads = {}
    for term in ("sft", "dpo"):
        records = run.feeds.probe([term], 0)
        batch, counts = pack_records(records, run.options.row_budget), run.terms.count(records)
        for row in batch.rows:
            row_loss(run, row, batch, {term: 1.0}, counts)[0].backward()
        grads[term] = torch.cat([p.grad.flatten() for p in run.policy.parameters()])
        run.policy.zero_grad()
    for term, grad in grads.items():
        assert found[f"probe/grad_norm/{term}"] == pytest.approx(grad.norm().item(), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(grads["sft"], grads["dpo"], dim=0).item()
    assert found["probe/cosine/sft/dpo"] == pytest.approx(cosine, abs=1e-5)


def test_probe_options(probed: Make, tmp_path: Path) -> None:
    recipe = probed()
    recipe["probe"] |= {"gradients": False, "task_tokens": 0, "steps": 4}
    lines = [line for line in go(recipe, tmp_path / "out") if "loss" not in line]
    assert [line["step"] for line in lines] == [0, 4, 6]
    assert {key.split("/")[0] for key in lines[-1]} == {"step", "retention"}


def test_probes_of_a_proportional_run(probed: Make, tmp_path: Path) -> None:
    lines = go({**probed(), "schedule": "proportional"}, tmp_path / "out")
    assert "probe/cosine/sft/dpo" in lines[-1]


def test_retention_options_that_would_do_nothing_are_refused(probed: Make) -> None:
    recipe = probed()
    recipe["probe"]["retention"][0]["weight"] = 2.0
    with pytest.raises(
        RecipeError, match=r"kept is never trained on, \['weight'\] would do nothing"
    ):
        parse_recipe(recipe)
    recipe = probed()
    recipe["probe"]["retention"] *= 2
    with pytest.raises(RecipeError, match="names must differ"):
        parse_recipe(recipe)


def guarded(probed: Make, **guard: Any) -> dict[str, Any]:
    recipe = probed()
    recipe["guard"] = [{"measure": "retention/kept/kl", "above": 1e-6, **guard}]
    return recipe


def test_a_guard_warns(probed: Make, tmp_path: Path) -> None:
    said: list[str] = []
    go(guarded(probed), tmp_path / "out", say=said.append)
    warnings = [line for line in said if line.startswith("guard: retention/kept/kl is ")]
    assert len(warnings) == 2  # after steps 3 and 6
    said.clear()
    go(guarded(probed, above=100.0), tmp_path / "calm", say=said.append)
    assert not [line for line in said if line.startswith("guard")]


def test_a_guard_stops_the_run_with_a_checkpoint(probed: Make, tmp_path: Path) -> None:
    recipe = guarded(probed, then="stop")
    lines = go(recipe, tmp_path / "out")
    assert lines[-1]["step"] == 3
    assert (tmp_path / "out" / "checkpoints" / "step-000003" / "model").is_dir()
    assert not (tmp_path / "out" / "model").exists()
    recipe["guard"] = []
    more = go(recipe, tmp_path / "out", resume=True)
    assert more[-1]["step"] == 6


def test_a_guard_raises_a_weight(probed: Make, tmp_path: Path) -> None:
    lines = go(guarded(probed, then="raise", term="sft", factor=3.0), tmp_path / "out")
    weights = {line["step"]: line["weight/sft"] for line in lines if "loss" in line}
    assert weights == pytest.approx({1: 0.5, 2: 0.5, 3: 0.5, 4: 0.75, 5: 0.75, 6: 0.75})


def test_a_raised_alright_term_has_its_references(probed: Make, tmp_path: Path) -> None:
    """Nobody knows how often a raised term is drawn: every record must have been prepared."""
    recipe = guarded(probed, then="raise", term="dpo", factor=1e6)
    recipe["schedule"] = {"name": "alright", "lambda": {"dpo": 0.02}}
    recipe["train"] |= {"max_steps": 12, "batch_size": 2}
    lines = [line for line in go(recipe, tmp_path / "out") if "loss" in line]
    assert all(line["weight/dpo"] == 1 for line in lines[6:])


BAD_GUARDS: dict[str, tuple[dict[str, Any], str]] = {
    "measure": ({"measure": "retention/kepd/kl"}, "did you mean 'retention/kept/kl'"),
    "term": ({"then": "raise", "term": "sfd"}, "no term 'sfd' to raise; did you mean 'sft'"),
    "no term": ({"then": "raise"}, "needs a term"),
    "term to warn": ({"term": "sft"}, "only it takes one"),
    "factor": ({"then": "raise", "term": "sft", "factor": 0.5}, "greater than 1"),
}


@pytest.mark.parametrize("case", BAD_GUARDS)
def test_a_guard_that_could_not_act_is_refused(case: str, probed: Make, tmp_path: Path) -> None:
    guard, message = BAD_GUARDS[case]
    with pytest.raises(ValueError, match=message):
        go(guarded(probed, **guard), tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_guard_on_a_schedule_without_weights_is_refused(probed: Make, tmp_path: Path) -> None:
    recipe = guarded(probed, then="raise", term="sft") | {"schedule": "sequential"}
    with pytest.raises(ValueError, match="no weight can be raised"):
        go(recipe, tmp_path / "out")
    recipe = guarded(probed)
    del recipe["probe"]
    with pytest.raises(RecipeError, match="add a probe section"):
        parse_recipe(recipe)


def test_guards_look_at_numbers_only() -> None:
    schedule = Guarded(make("mix").for_run({"a": 1, "b": 1}, 10, 0))
    guards = [
        Guard(measure="x", above=1.0),
        Guard(measure="y", above=1.0, then="raise", term="a", factor=4.0),
        Guard(measure="z", above=1.0, then="stop"),
    ]
    assert not act(guards, {"x": math.nan, "y": 0.5, "z": 1.0}, schedule, quiet)
    assert schedule.share["a"] == 0.5
    assert act(guards, {"x": 2, "y": 2, "z": 2}, schedule, quiet)
    assert schedule.share["a"] == pytest.approx(0.8)


def held_out(recipe: dict[str, Any]) -> dict[str, Any]:
    for stream in recipe["data"]:
        stream["eval_path"] = stream["path"]
    recipe["train"] |= {"eval_steps": 3}
    return recipe


def test_gaps_and_ideal_distance(probed: Make, tmp_path: Path) -> None:
    recipe = held_out(probed())
    recipe["optimum"] = {"given": {"sft": 1.0, "dpo": 0.1}}
    lines = [line for line in go(recipe, tmp_path / "out") if "ideal_distance" in line]
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert lines[0]["gap/dpo"] == pytest.approx(math.log(2) - 0.1, abs=1e-4)
    assert lines[0]["gap_normalised/dpo"] == lines[0]["gap_normalised/sft"] == 1
    last = lines[-1]
    assert last["gap/sft"] == pytest.approx(last["eval/terms/sft"] - 1.0, rel=1e-5)
    assert last["ideal_distance"] == pytest.approx(
        math.hypot(last["gap/sft"], max(last["gap/dpo"], 0.0)), rel=1e-6
    )
    assert last["gap_normalised/sft"] == pytest.approx(last["gap/sft"] / lines[0]["gap/sft"])


def test_f_star_is_measured_by_runs_of_one_term_and_cached(probed: Make, tmp_path: Path) -> None:
    recipe = held_out(probed())
    recipe["optimum"] = {"steps": 16, "given": {"dpo": 0.2}}
    recipe["schedule"] = {"name": "maxright", "refresh_steps": 3}
    said: list[str] = []
    lines = go(recipe, tmp_path / "one", say=said.append)
    told = next(line for line in said if "optimum of sft" in line)
    assert told.endswith("(measured in 16 steps)")
    files = list((tmp_path / "cache" / "optimum").glob("*/optimum.json"))
    assert len(files) == 1
    known = json.loads(files[0].read_text())
    value = known["held_out"]
    alone = [x["eval/terms/sft"] for x in read_metrics(files[0].parent) if "eval/terms/sft" in x]
    assert value == min(alone) < lines[0]["eval/terms/sft"]
    assert lines[0]["gap/sft"] == pytest.approx(lines[0]["eval/terms/sft"] - value, rel=1e-5)
    alone_losses = [x["loss"] for x in read_metrics(files[0].parent) if "loss" in x]
    told = parse_recipe(yaml.safe_load((tmp_path / "one" / "recipe.yaml").read_text())).optimum
    assert told.on_training == {"sft": known["training"]} == {"sft": min(alone_losses)}
    assert told.given == {"dpo": 0.2, "sft": value}
    said.clear()
    go(recipe, tmp_path / "two", say=said.append)
    assert any("optimum of sft" in line and "found in the cache" in line for line in said)
    recipe["train"]["learning_rate"] = 2e-2
    said.clear()
    go(recipe, tmp_path / "three", say=said.append)
    assert any("measured in 16 steps" in line for line in said)


def test_maxright_decides_by_the_f_star_of_training_rows(probed: Make, tmp_path: Path) -> None:
    recipe = held_out(probed())
    recipe["schedule"] = "maxright"
    recipe["optimum"] = {"given": {"sft": 1.0, "dpo": 0.1}, "on_training": {"sft": 0.5}}
    session = build(parse_recipe(recipe), tmp_path / "out", say=quiet)
    assert session.schedule.best == {"sft": 0.5, "dpo": 0.1}


def test_a_measurement_of_f_star_that_was_cut_off_is_not_taken(
    probed: Make, tmp_path: Path
) -> None:
    recipe = parse_recipe({**probed(), "optimum": {"steps": 5}})
    draft = Draft(recipe)
    draft.read()
    with pytest.raises(RecipeError, match=r"stopped while f\* of sft was measured"):
        complete(draft, lambda one, folder: folder / "checkpoints" / "last", quiet)
    assert not list((tmp_path / "cache" / "optimum").glob("*/optimum.json"))


def test_an_f_star_of_other_rows_may_be_above_the_start_by_chance(
    probed: Make, tmp_path: Path
) -> None:
    """Without held-out rows it is the mean of some training records, and the start's of a few others:
    SmolLM2's SFT alone ended at 2.03, and the four records of its start had 1.997."""
    said: list[str] = []

    def begun(recipe: dict[str, Any], sft: float) -> list[dict[str, Any]]:
        recipe["optimum"] = {"given": {"sft": sft, "dpo": 0.1}}
        return go(recipe, tmp_path / f"{len(list(tmp_path.iterdir()))}", say=said.append)

    def refused(recipe: dict[str, Any], sft: float) -> float:
        with pytest.raises(RecipeError, match=r"f\* of sft is .* starts with a loss of") as error:
            begun(recipe, sft)
        return float(str(error.value).split("a loss of ")[1].split(";")[0])

    start = refused(probed(), 100.0)
    last = begun(probed(), start + 0.01)[-1]
    (line,) = [line for line in said if "differ by more by chance" in line]
    assert f"f* of sft is {start + 0.01}, but the model starts with a loss of {start:.6g}" in line
    assert last["step"] == 6
    refused(held_out(probed()), refused(held_out(probed()), 100.0) + 0.01)  # of the same rows


def test_an_f_star_above_the_loss_is_refused(probed: Make, tmp_path: Path) -> None:
    for recipe in (held_out(probed()), probed()):
        recipe["optimum"] = {"given": {"dpo": 0.9}}
        with pytest.raises(RecipeError, match=r"f\* of dpo is 0\.9, but the model starts with"):
            go(recipe, tmp_path / "out")
        assert not (tmp_path / "out" / "metrics.jsonl").exists()
        for file in (tmp_path / "out").glob("*"):
            assert file.name in ("recipe.yaml", "manifest.json", "data.json")
    recipe["optimum"] = {"given": {"dop": 0.1}}
    with pytest.raises(RecipeError, match="did you mean 'dpo'"):
        go(recipe, tmp_path / "other")
    recipe["schedule"] = {"name": "maxright", "optimum": {"dpo": 0.1}}
    with pytest.raises(RecipeError, match="a section of its own"):
        go(recipe, tmp_path / "other")


def test_two_processes_measure_what_one_does(probed: Make, tmp_path: Path) -> None:
    recipe = held_out(probed())
    recipe["train"]["tokens_per_row"] = 128
    recipe["optimum"] = {"given": {"sft": 1.0, "dpo": 0.1}}
    one = go(recipe, tmp_path / "one")
    file = write_recipe(tmp_path / "r.yaml", recipe)
    train_on_two_ranks(file, tmp_path / "two")
    for left, right in zip(one, read_metrics(tmp_path / "two"), strict=True):
        assert left.keys() == right.keys()
        for key in left:
            if key != "tokens_per_second":
                assert right[key] == pytest.approx(left[key], rel=5e-3, abs=5e-4), key


def test_f_star_is_of_what_is_judged_and_how(probed: Make) -> None:
    """Another reward, hint or choice of answers is another f*; and the budget of the run that asks is
    not that of the short one."""
    stream = {"name": "asked", "kind": "check", "path": "asked.jsonl", "reward": "match"}
    changed = ({"reward": "gsm8k"}, {"hint": "uniform"}, {"feedback": "pair"}, {"weight": 2})
    told = [
        Stream(**{**stream, **change}).model_dump(mode="json", include=DONE)
        for change in ({}, {"path": "elsewhere.jsonl"}, *changed)
    ]
    assert told[0] == told[1]
    assert all(one != told[0] for one in told[2:])
    recipe = probed()
    recipe["train"] = {**recipe["train"], "max_tokens": 100_000, "delta_l1": 0.1}
    short = alone(parse_recipe(recipe), "sft", ["sft", "dpo"], 5).train
    assert (short.max_steps, short.max_tokens, short.delta_l1) == (5, None, 0.0)


def test_damaged_metrics_make_no_f_star(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(RecipeError, match=r"damaged metrics \(1 of its lines\)"):
        _lowest(tmp_path, "sft")
