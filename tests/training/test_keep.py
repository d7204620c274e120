"""Forgetting as a constraint: what is measured, what is raised, and what is certified at the end."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import beta
from support.tiny import tiny_llama, token_path, write_rows

from onestage.config import RecipeError
from onestage.data.packing import pack
from onestage.models.divergence import Anchor
from onestage.models.policy import Fit, Policy
from onestage.report.bounds import HELD, KEPT
from onestage.report.numbers import number
from onestage.report.page import chapter_sections, read_folders
from onestage.runfolder import read_json, read_metrics
from onestage.schedules import make
from onestage.stats import another, interval, weighted
from onestage.training import certificate
from onestage.training.callbacks import Callback
from onestage.training.drawn import NEAR
from onestage.training.keep import By, Keep, What
from onestage.training.keeping import Keeper
from onestage.training.kept import Kept
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
TWO = {"demonstration": "sft", "pair": "dpo"}


def go(recipe: dict[str, Any], out: Path, **options: Any) -> list[dict[str, Any]]:
    carry_out(
        parse_recipe(recipe), out, **{"say": lambda line: None, "self_check": False, **options}
    )
    return read_metrics(out)


@pytest.fixture
def keeping(recipe_of: Make, rows: dict[str, Any], tmp_path: Path) -> Make:
    """SFT under a bound on some text, fast enough to break it within a few steps."""

    def make(
        *bounds: dict[str, Any], kinds: tuple[str, ...] = ("demonstration",)
    ) -> dict[str, Any]:
        recipe = recipe_of(*kinds, objective={k: TWO[k] for k in kinds}, schedule="mix")
        recipe["train"] |= {"batch_size": 3, "max_steps": 24, "learning_rate": 1e-2}
        recipe["train"] |= {"lr_scheduler_type": "constant"}
        text = write_rows(tmp_path / "kept.jsonl", [*rows["text"]] * 8)
        of = {"name": "kept", "path": str(text)}
        small = {"of": of, "steps": 2, "watch_tokens": 40}
        pulled = {"step_tokens": 32}
        recipe["keep"] = [
            small | (pulled if bound.get("by", "kl") == "kl" else {}) | bound for bound in bounds
        ]
        return recipe

    return make


def last(lines: list[dict[str, Any]], key: str) -> float:
    return float([line[key] for line in lines if key in line][-1])


def test_a_run_holds_its_bound_and_says_so(keeping: Make, tmp_path: Path) -> None:
    bound = {"what": "kl", "at_most": 0.05}
    free = go(keeping(bound | {"by": "step", "at_most": 1e9}), tmp_path / "free")
    lines = go(keeping(bound), tmp_path / "kept")
    assert last(free, "keep/kept/measured") > 0.15
    assert last(lines, "keep/kept/measured") < 0.06
    (told,) = read_json(tmp_path / "kept" / "keep.json")
    assert told["at_most"] == 0.05
    # Where the line leads over a hill first, as here, there is no price.
    assert told["price"] == next(
        (x["keep/kept/price"] for x in lines if "keep/kept/price" in x), None
    )
    assert told["low"] < told["change"] < told["high"]
    assert told["change"] == pytest.approx(last(lines, "keep/kept/held_out"))
    held, broken = told["high"] <= 0.05, told["low"] > 0.05
    assert told["verdict"] == ("held" if held else "broken" if broken else "undecided")


@pytest.mark.parametrize("average", ["ema"])
def test_weights_go_back_where_the_bound_is_broken(
    keeping: Make, tmp_path: Path, average: str
) -> None:
    """At every measurement, and of what is saved, an average too; another bound is measured of what is
    left, and so is the slack."""
    bound = {"what": "kl", "at_most": 0.01, "margin": 0.2}
    beside = {"what": "kl", "at_most": 0.01, "by": "nothing"}
    beside |= {"of": {"name": "beside", "path": str(tmp_path / "kept.jsonl")}}
    recipe = keeping(beside, bound)
    recipe["train"] |= {"average": average}
    lines = go(recipe, tmp_path / "drawn")
    waiting = go(keeping(bound | {"beyond": "wait"}), tmp_path / "waiting")
    measured = [line["keep/kept/measured"] for line in lines if "keep/kept/measured" in line]
    drawn = [line for line in lines if "keep/kept/drawn_to" in line]
    assert max(measured) <= 0.01 * (1 - 0.2 + NEAR) + 1e-9
    assert max(line.get("keep/kept/measured", 0.0) for line in waiting) > 0.01
    assert all(0 < line["keep/kept/drawn_to"] < 1 for line in drawn)
    assert all(line["keep/kept/before_drawing"] > line["keep/kept/measured"] for line in drawn)
    assert measured == [line["keep/beside/measured"] for line in lines if "keep/kept/aim" in line]
    for line in drawn:
        assert line["keep/kept/slack"] == pytest.approx(0.01 - line["keep/kept/measured"])
    told = read_json(tmp_path / "drawn" / "keep.json")[1]  # of the model that is saved
    assert told["change"] <= 0.01
    # Nearer to the start the loss that is trained on is higher, and what is kept lower.
    (priced,) = [line for line in lines if "keep/kept/price" in line]
    assert priced["step"] == 24
    assert told["price"] == priced["keep/kept/price"] > 0


def test_a_model_that_has_not_moved_has_not_moved_in_bfloat16_either(
    keeping: Make, tmp_path: Path
) -> None:
    """What the start model says is computed as what is compared with it."""
    recipe = keeping({"what": "kl", "at_most": 0.05, "by": "nothing"})
    recipe["probe"] = {"steps": 1, "retention": [recipe["keep"][0]["of"] | {"name": "probed"}]}
    recipe["train"] |= {"bf16": True, "max_steps": 1, "learning_rate": 1e-12}
    lines = go(recipe, tmp_path / "out", self_check=False)
    for key in ("keep/kept/measured", "keep/kept/held_out", "retention/probed/kl"):
        assert abs(last(lines, key)) < 1e-9


def test_a_measure_that_is_no_number_hides_no_other() -> None:
    """A suite of which no answer could be judged, beside a KL."""
    measured = SimpleNamespace(_over={"suite": math.nan, "kl": 2.0}.get)
    assert Keeper._worst(cast("Keeper", measured), ["suite", "kl"]) == 2.0
    assert Keeper._worst(cast("Keeper", measured), ["suite"]) == 0.0


@pytest.mark.parametrize("layout", ["forest", "alone"])
@pytest.mark.parametrize("trained", ["all", "body"])
def test_the_pull_is_the_gradient_of_the_kl_of_plain_models(layout: Any, trained: str) -> None:
    """Beside torch's own kl_div of transformers' own logits, the head's gradient included."""
    start, now, plain = tiny_llama(), tiny_llama(), tiny_llama()
    for model in (now, plain):
        model.get_output_embeddings().weight.requires_grad_(trained == "all")
    first = token_path([0, 9, 8, 7, 6, 5, 1], (3, 7))
    second = token_path([0, 9, 8, 30, 31, 1], (3, 6), responses=(1,))
    policy = Policy(now, fit=Fit(layout, True))
    watch = Anchor(policy, pack([[first], [second]], 64))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for mine, theirs in zip(now.parameters(), plain.parameters(), strict=True):
            if not mine.requires_grad:
                continue
            mine += 0.02 * torch.randn(mine.shape, generator=generator)
            theirs.copy_(mine)
    value = watch.pull(policy, 0, 3.0)
    total = torch.zeros(())
    for ids, (a, b) in (([0, 9, 8, 7, 6, 5, 1], (3, 7)), ([0, 9, 8, 30, 31, 1], (3, 6))):
        given = torch.tensor([ids])
        old, new = (
            m(input_ids=given).logits[0, a - 1 : b - 1].log_softmax(-1) for m in (start, plain)
        )
        total = total + torch.nn.functional.kl_div(
            new, old.detach(), reduction="sum", log_target=True
        )
    (3 * total / 7).backward()
    assert value == pytest.approx(total.item() / 7, rel=1e-4)
    loss_K, kl_K = watch.each(policy, 0)
    assert kl_K.sum().item() == pytest.approx(total.item(), rel=1e-4)
    assert watch.measure(policy).loss == pytest.approx(loss_K.mean().item(), rel=1e-5)
    assert len(loss_K) == 7
    for mine, theirs in zip(now.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None and theirs.grad is not None:
            assert torch.allclose(mine.grad, theirs.grad, atol=2e-5, rtol=1e-3)


def test_the_report_shows_the_certificate(keeping: Make, tmp_path: Path) -> None:
    go(keeping({"what": "kl", "at_most": 0.05, "by": "nothing"}), tmp_path / "run")
    (chapter,) = read_folders([tmp_path / "run"])
    (told,) = read_json(tmp_path / "run" / "keep.json")
    shown = chapter_sections(chapter)["Bounds"]
    assert number(told["change"]) in shown
    assert told["verdict"] in shown
    assert (set(KEPT), set(HELD)) == (set(get_args(What)), set(get_args(By)))


def test_weights_by_hand() -> None:
    """Goals share 1 / (1 + nu), what is raised has nu / (1 + nu), and the replayed term is no goal."""
    keep = Keep(what="loss", stream="old", at_most=0.1)
    inner = make("mix").for_run({"sft": 1.0, "dpo": 3.0, "replay": 0.0}, 10, 0)
    kept = Kept(inner, {"sft": 1.0, "dpo": 3.0, "replay": 1.0}, {"old": keep}, {"old": "replay"})
    assert kept.nu("old") == pytest.approx(0.5)  # .05 nats for a bound of .1
    assert kept.weigh(0) == pytest.approx(
        {"sft": 0.25 / 1.5, "dpo": 0.75 / 1.5, "replay": 0.5 / 1.5}
    )
    kept.reweigh({"sft": 2.0, "dpo": 2.0, "replay": 1.0})
    assert kept.weigh(0)["sft"] == pytest.approx(0.5 / 1.5)
    state = json.loads(json.dumps(kept.state()))
    kept.multipliers["old"].observe(1.0)
    assert kept.nu("old") > 0.5
    kept.restore(state)
    assert kept.nu("old") == pytest.approx(0.5)


def test_a_ratio_over_clusters_by_hand() -> None:
    """Equal clusters: the mean of the clusters' means, with Student's interval over them."""
    found = weighted([(2.0, 2), (6.0, 2), (7.0, 2), (0.0, 0)])
    plain = interval([1.0, 3.0, 3.5])
    assert (found.mean, found.low, found.high) == pytest.approx((plain.mean, plain.low, plain.high))
    assert weighted([(4.0, 1), (0.0, 3)]).mean == 1.0
    assert math.isnan(weighted([(1.0, 1)]).low)


@pytest.mark.parametrize(
    ("values", "verdict", "words"),
    [
        ([0.01, 0.02, 0.01, 0.02], "held", ""),
        ([0.09, 0.07, 0.08, 0.08], "broken", ""),
        # Mean .075, s .0957: too far from .05 on neither side. By the noncentral t, some 118 would do.
        ([0.2, 0.0, 0.1, 0.0], "undecided", "about 118 records would decide"),
        ([0.04], "undecided", "one record says nothing of the next"),
    ],
)
def test_a_verdict_is_the_intervals(values: list[float], verdict: str, words: str) -> None:
    found = interval(values)
    assert certificate.verdict(found, 0.05) == verdict
    told = {"needed": certificate.needed(found, 0.05, None), "low": found.low}
    assert not words or certificate.enough(told) == words


def test_a_certificate_of_no_record_says_so() -> None:
    one = {"name": "gsm8k", "what": "suite", "at_most": 0.02, "records": 0, "needed": None}
    one |= dict.fromkeys(("change", "low", "high"), math.nan) | {"relaxed_to": None, "price": None}
    told = certificate.told(one | {"verdict": certificate.UNDECIDED})
    assert told.endswith("undecided (none of them could be judged)")


def test_answers_that_are_all_worth_what_they_were_say_little_of_others() -> None:
    """None of 16 changed: of others up to 1 - .025^(1/16) = .206 may (Clopper and Pearson)."""
    unchanged = interval([0.0] * 16)
    found = certificate.widened(unchanged, 1.0)
    assert (
        found.high
        == pytest.approx(float(beta.ppf(0.975, 1, 16)))
        == pytest.approx(0.2059, abs=1e-4)
    )
    assert certificate.verdict(found, 0.02) == "undecided"
    assert certificate.needed(found, 0.02, 1.0) == 183
    assert beta.ppf(0.975, 1, 183) <= 0.02 < beta.ppf(0.975, 1, 182)
    assert certificate.widened(unchanged, None) is unchanged
    assert "183 are the least" in certificate.too_few(182, 0.02, 1.0)
    assert not certificate.too_few(183, 0.02, 1.0)
    assert not certificate.too_few(16, 0.02, None)


def test_how_far_another_sample_may_be_above_by_hand() -> None:
    """1, 2, 3, 4: sd 1.2910; t of 3 degrees of freedom at 95 %, one-sided, 2.3534; 12 others."""
    assert another(interval([1.0, 2.0, 3.0, 4.0]), 12) == pytest.approx(
        2.3534 * 1.2910 * math.sqrt(1 / 4 + 1 / 12), rel=1e-4
    )
    assert math.isnan(another(interval([1.0]), 12))


def test_the_margin_is_what_samples_differ_by(keeping: Make, tmp_path: Path) -> None:
    lines = go(keeping({"what": "kl", "at_most": 0.05}), tmp_path / "by_sample")
    given = go(keeping({"what": "kl", "at_most": 0.05, "margin": 0.3}), tmp_path / "given")
    aims = [line["keep/kept/aim"] for line in lines if "keep/kept/aim" in line]
    assert all(0.025 <= aim < 0.05 for aim in aims)
    assert len(set(aims)) > 1
    assert last(given, "keep/kept/aim") == pytest.approx(0.05 * 0.7)


def test_stopped_and_resumed_it_ends_with_the_same_bits(keeping: Make, tmp_path: Path) -> None:
    recipe = keeping({"what": "kl", "at_most": 0.05})
    recipe["train"] |= {"save_steps": 5, "max_steps": 10}
    whole = go(recipe, tmp_path / "whole")
    recipe["train"]["max_steps"] = 7
    go(recipe, tmp_path / "cut")
    recipe["train"]["max_steps"] = 10
    lines = go(recipe, tmp_path / "cut", resume=True)
    assert last(lines, "keep/kept/multiplier") == last(whole, "keep/kept/multiplier")
    mine, theirs = (load_file(tmp_path / n / "model/model.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_run_that_goes_on_only_to_end_is_held_to_its_bound(keeping: Make, tmp_path: Path) -> None:
    """Stopped between two measurements, and ended there."""
    recipe = keeping({"what": "kl", "at_most": 0.001, "steps": 100, "margin": 0.2})
    recipe["train"] |= {"save_steps": 3, "max_steps": 6}
    go(recipe, tmp_path / "out", self_check=False)
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step-000006")
    recipe["train"]["max_tokens"] = 1
    lines = go(recipe, tmp_path / "out", self_check=False, resume=True)
    assert (lines[-1]["step"], last(lines, "keep/kept/drawn_to") < 1) == (3, True)
    assert last(lines, "keep/kept/measured") <= 0.001


def test_a_run_that_is_made_longer_is_one_that_was_begun_so_long(
    keeping: Make, tmp_path: Path
) -> None:
    """At its end weights, and an average, are drawn back to be saved; who goes on does not see that."""
    recipe = keeping({"what": "kl", "at_most": 1e-3, "steps": 4})
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    recipe["train"] |= {"max_steps": 10, "save_steps": 3, "eval_steps": 3, "average": "ema"}
    whole = go(recipe, tmp_path / "whole")
    recipe["train"]["max_steps"] = 6
    first = go(recipe, tmp_path / "cut")
    assert max(line["step"] for line in first if "keep/kept/drawn_to" in line) == 6
    recipe["train"]["max_steps"] = 10
    lines = go(recipe, tmp_path / "cut", resume=True)
    for key in ("measured", "drawn_to", "multiplier"):
        found = [
            {line["step"]: line[f"keep/kept/{key}"] for line in one if f"keep/kept/{key}" in line}
            for one in (whole, lines)
        ]
        found[1].pop(6, None)  # of what was the end
        assert found[0] == found[1]
    assert evaluated(tmp_path / "cut") == evaluated(tmp_path / "whole")
    for name in ("model", "model_last"):
        mine, theirs = (
            load_file(tmp_path / n / name / "model.safetensors") for n in ("whole", "cut")
        )
        assert all(mine[key].equal(theirs[key]) for key in mine)


class Ends(Callback):
    """As a process that is killed behind a step."""

    def step(self, run: Any, loss: float) -> None:
        if run.step == 2:
            raise KeyboardInterrupt


def test_what_is_measured_behind_the_last_step_is_measured_by_who_goes_on(
    keeping: Make, tmp_path: Path
) -> None:
    """Its checkpoint is written before that, and a run may be killed between the two."""
    recipe = keeping({"what": "kl", "at_most": 0.01, "steps": 2})
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    recipe["train"] |= {"max_steps": 2, "save_steps": 1, "eval_steps": 1}
    go(recipe, tmp_path / "whole", self_check=False)
    with pytest.raises(KeyboardInterrupt):
        go(recipe, tmp_path / "cut", self_check=False, callbacks=[Ends()])
    go(recipe, tmp_path / "cut", self_check=False, resume=True)
    whole, cut = (evaluated(tmp_path / name) for name in ("whole", "cut"))
    assert whole == cut
    assert (len(whole[0]), whole[1]) == (2, "end")
    assert read_json(tmp_path / "cut/keep.json") == read_json(tmp_path / "whole/keep.json")


def test_the_best_model_is_the_one_that_was_drawn_back(keeping: Make, tmp_path: Path) -> None:
    """Where that is the last: the checkpoint of its step is from before, and beyond the bound."""
    recipe = keeping({"what": "kl", "at_most": 0.001, "steps": 100, "margin": 0.2})
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    recipe["train"] |= {"max_steps": 4, "save_steps": 2, "eval_steps": 4}
    lines = go(recipe, tmp_path / "out", self_check=False)
    assert last(lines, "keep/kept/drawn_to") < 1
    kept = tmp_path / "out" / "checkpoints"
    model, best, before = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "out/model", kept / "best/model", kept / "last/model")
    )
    assert all(model[key].equal(best[key]) for key in model)
    assert not all(model[key].equal(before[key]) for key in model)
    recipe["train"]["max_steps"] = 5
    go(recipe, tmp_path / "out", self_check=False, resume=True)
    assert (kept / "best").resolve().name in {"step-000004", "end"}


def evaluated(out: Path) -> tuple[dict[int, float], str]:
    """The held-out loss by step, and which checkpoint is the best."""
    losses = {line["step"]: line["eval/loss"] for line in read_metrics(out) if "eval/loss" in line}
    return losses, os.readlink(out / "checkpoints/best")


def test_a_bound_that_is_another_one_by_now_is_held_from_then_on() -> None:
    """`--resume --allow-changed keep`; one that was relaxed stays so, and a new one begins."""
    bounds = {"a": 0.1, "b": 0.2}

    def kept(**at_most: float) -> Kept:
        keeps = {n: Keep(what="loss", stream=n, at_most=x, by="step") for n, x in at_most.items()}
        return Kept(make("mix").for_run({"sft": 1.0}, 10, 0), {"sft": 1.0}, keeps, {})

    first = kept(**bounds)
    for one in first.multipliers.values():
        one.observe(0.5)
        one.relax()
    first.drawing.steep = 2.5
    assert set(first.state()) == {"keep", *first.inner.state()}  # as in checkpoints of before
    state, again = json.loads(json.dumps(first.state())), kept(a=0.1, b=0.9, c=0.3)
    again.restore(state)
    assert again.multipliers["a"] == first.multipliers["a"]
    assert again.multipliers["b"].bound == 0.9
    assert again.multipliers["b"].mean == first.multipliers["b"].mean
    assert again.multipliers["c"].bound == 0.3
    assert again.drawing.steep == 2.5


def test_a_term_of_weight_0_is_raised_and_no_guard_raises_it(
    keeping: Make, rows: dict[str, Any], tmp_path: Path
) -> None:
    """Of DPO, whose reference must have been asked about its records."""
    recipe = keeping(kinds=("demonstration", "pair"))
    held_out = write_rows(tmp_path / "held_out.jsonl", rows["pair"][:2])
    for stream in recipe["data"]:
        if stream["name"] == "pairs":
            stream["eval_path"] = str(held_out)
    recipe["schedule"] = {"name": "mix", "weights": {"sft": 1, "dpo": 0}}
    recipe["train"]["max_steps"] = 2
    recipe["keep"] = [{"what": "loss", "stream": "pairs", "at_most": 0.1, "steps": 2}]
    lines = go(recipe, tmp_path / "out")
    assert last(lines, "weight/dpo") == pytest.approx(0.5 / 1.5, abs=1e-3)
    watch = {"measure": "task/dpo/kl", "above": 1, "then": "raise", "term": "dpo"}
    with pytest.raises(RecipeError, match="weight of dpo follows a bound of keep"):
        go(recipe | {"probe": {"steps": 1}, "guard": [watch]}, tmp_path / "guarded")


def test_the_best_iterate_is_not_the_one_a_certificate_is_about(keeping: Make) -> None:
    asked = {"prompts": ["Hello"], "best": "loss"}
    recipe = keeping({"what": "kl", "at_most": 0.05}) | {"evaluate": asked}
    recipe["train"]["eval_steps"] = 1
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    with pytest.raises(RecipeError, match="keep certifies bounds of the last"):
        parse_recipe(recipe)


def test_a_text_that_leaves_nothing_to_certify_is_refused(keeping: Make, tmp_path: Path) -> None:
    recipe = keeping({"what": "kl", "at_most": 1, "by": "nothing"})
    recipe["keep"][0]["of"]["limit"] = 3
    with pytest.raises(RecipeError, match="none is left to be certified"):
        go(recipe, tmp_path / "out", self_check=False)


@pytest.mark.parametrize("by", ["anchor", "fisher", "step"])
def test_other_means_hold_the_model_back(keeping: Make, tmp_path: Path, by: str) -> None:
    bound = {"what": "kl", "at_most": 0.01, "by": by}
    free = go(keeping(bound | {"by": "nothing"}), tmp_path / "free")
    lines = go(keeping(bound), tmp_path / "kept")
    name = "keep/kept/measured"
    assert abs(last(lines, name)) < 0.8 * abs(last(free, name))
    assert sum("keep/kept/price" in line for line in lines) == 1  # along the line, at the end
    assert read_json(tmp_path / "free" / "keep.json")[0]["multiplier"] is None


def test_a_replayed_stream_is_raised_by_its_own_loss(
    keeping: Make, rows: dict[str, Any], tmp_path: Path
) -> None:
    recipe = keeping(kinds=("demonstration", "pair"))
    held_out = write_rows(tmp_path / "held_out.jsonl", rows["pair"])
    for stream in recipe["data"]:
        if stream["name"] == "pairs":
            stream["eval_path"] = str(held_out)
    recipe["keep"] = [{"what": "loss", "stream": "pairs", "at_most": 0.001, "steps": 2}]
    recipe["keep"][0]["beyond"] = "wait"  # where weights are drawn back, nu is no price
    lines = go(recipe, tmp_path / "out")
    assert last(lines, "keep/pairs/price") == last(lines, "keep/pairs/multiplier")
    weights = [line["weight/dpo"] for line in lines if "weight/dpo" in line]
    assert weights[0] == pytest.approx(50 / 51, abs=1e-3)  # .05 nats for a bound of .001


def test_what_nothing_holds_stops_the_run_or_is_relaxed(keeping: Make, tmp_path: Path) -> None:
    said: list[str] = []
    bound = {"what": "kl", "at_most": 1e-9, "steps": 1, "beyond": "wait"}
    recipe = keeping(bound)
    recipe["train"]["max_steps"] = 60
    go(recipe, tmp_path / "stopped", say=said.append)
    assert any("no weight of kl holds the bound" in line and "stops here" in line for line in said)
    assert not (tmp_path / "stopped" / "keep.json").is_file()
    go(keeping(bound | {"then": "relax"}) | {"train": recipe["train"]}, tmp_path / "relaxed")
    (told,) = read_json(tmp_path / "relaxed" / "keep.json")
    assert told["relaxed_to"] > 1e-9
    assert told["verdict"] == "broken"


def test_a_weight_that_stays_pulls_and_is_certified_alike(keeping: Make, tmp_path: Path) -> None:
    """What the controller is compared with: more of it keeps more, and no bound stops the run."""
    found = []
    for weight in (0.0, 20.0):
        bound = {"what": "kl", "at_most": 1e-9, "by": "kl", "multiplier": weight}
        lines = go(keeping(bound), tmp_path / f"{weight}")
        assert {line["keep/kept/multiplier"] for line in lines if "keep/kept/bound" in line} == {
            weight
        }
        assert not any("keep/kept/price" in line for line in lines)
        found.append(last(lines, "keep/kept/held_out"))
    assert found[1] < 0.5 * found[0]


def test_a_weight_that_stays_may_have_a_bound_that_is_broken_at_the_start(
    keeping: Make, tmp_path: Path
) -> None:
    recipe = keeping({"what": "text", "at_most": -9.0, "by": "anchor", "multiplier": 1.0})
    recipe["train"]["max_steps"] = 2
    go(recipe, tmp_path / "out")
    (told,) = read_json(tmp_path / "out" / "keep.json")
    assert told["verdict"] == "broken"
    assert told["relaxed_to"] is None


BAD = {
    "back to what breaks it": (
        {"what": "text", "at_most": -0.1, "beyond": "draw_back"},
        "leads to the start model",
    ),
    "weighs nothing": ({"what": "kl", "at_most": 1, "by": "nothing", "multiplier": 1}, "give by"),
    "what: loss": ({"what": "loss", "at_most": 1}, "`loss` is of a `stream`"),
    "no room": ({"what": "kl", "at_most": 0}, "at_most must be above 0"),
    "no term": ({"what": "text", "at_most": 1, "by": "replay"}, "needs the term"),
    "other term": ({"what": "kl", "at_most": 1, "term": "sft"}, "a term is of by: replay"),
    "unknown": ({"what": "kl", "at_most": 1, "by": "replay", "term": "sfd"}, "did you mean 'sft'"),
    "no goal": ({"what": "kl", "at_most": 1, "by": "replay", "term": "sft"}, "none is left to be"),
    "broken at the start": (
        {"what": "text", "at_most": -0.1},
        r"the start model breaks .*0 > -0\.1",
    ),
    "nothing to pull on": (
        {"what": "kl", "at_most": 1, "watch_tokens": 9999},
        "left to be pulled on",
    ),
    "nothing to weigh by": (
        {"what": "kl", "at_most": 1, "by": "fisher", "watch_tokens": 9999},
        "left to be read for the Fisher",
    ),
}


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"name": "surgery", "rule": "mgda"}, r"combines gradients \(rule: mgda\)"),
        ({"name": "surgery", "rule": "imtl_g"}, "no greater pull"),
        ("epo", "schedule epo combines gradients"),
        ({"name": "chord", "supervised": "sft"}, "gives sft and the others weights of its own"),
        ("proportional", "draws one batch from all streams"),
    ],
)
def test_a_replay_that_no_weight_would_raise_is_refused(
    keeping: Make, tmp_path: Path, schedule: Any, words: str
) -> None:
    """One clear line, before anything is loaded."""
    bound = {"what": "kl", "at_most": 0.1, "by": "replay", "term": "dpo"}
    recipe = keeping(bound, kinds=("demonstration", "pair"))
    recipe["schedule"] = schedule
    with pytest.raises(RecipeError, match=words):
        go(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "recipe.yaml").exists()


@pytest.mark.parametrize("name", BAD)
def test_a_bound_that_makes_no_sense_is_refused(keeping: Make, tmp_path: Path, name: str) -> None:
    bound, words = BAD[name]
    recipe = keeping(bound)
    if bound["what"] == "loss":
        recipe["keep"][0]["stream"] = "nowhere"
    with pytest.raises(RecipeError, match=words):
        go(recipe, tmp_path / "out")
