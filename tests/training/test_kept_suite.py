"""Bounds on what a suite finds: what is watched, what is certified, its time, and going on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from support.ranks import train_on_two_ranks
from support.tiny import write_rows

import onestage as one
from onestage.config import RecipeError
from onestage.report.page import chapter_sections, read_folders
from onestage.rollout import suites
from onestage.runfolder import read_json, read_metrics
from onestage.training.asked import drawn
from onestage.training.check import check_recipe
from onestage.training.kept_suite import OnSuite
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
SLOW = {"name": "support.small_suites:Slow", "seconds": 0.0}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which the suite is asked from now on."""
    asked: list[int] = []
    watched = OnSuite.watched

    def asking(self: OnSuite) -> Any:
        asked.append(self.run.step)
        return watched(self)

    monkeypatch.setattr(OnSuite, "watched", asking)
    return asked


def go(recipe: dict[str, Any], out: Path, **options: Any) -> list[str]:
    said: list[str] = []
    carry_out(parse_recipe(recipe), out, say=said.append, self_check=False, **options)
    return [line for line in said if line.startswith("keep")]


def series(out: Path, key: str) -> list[float]:
    return [line[key] for line in read_metrics(out) if key in line]


@pytest.fixture
def keeping(recipe_of: Make, rows: dict[str, Any], tmp_path: Path) -> Make:
    """SFT of a few steps under a bound on a suite."""

    def make(**bound: Any) -> dict[str, Any]:
        recipe = recipe_of("demonstration", objective="sft", train__max_steps=6)
        recipe["train"] |= {"batch_size": 2}
        recipe["keep"] = [{"what": SLOW | {"size": 40}, "at_most": 1.0, "steps": 2} | bound]
        return recipe

    return make


def test_a_real_suite_is_held_by_a_text_and_certified_on_other_items(
    keeping: Make, rows: dict[str, Any], tmp_path: Path
) -> None:
    """Perplexity, of which less is better, beside the suite itself, asked of the saved model."""
    texts = write_rows(tmp_path / "asked.jsonl", [*rows["text"]] * 4)
    pulled = write_rows(tmp_path / "pulled.jsonl", [*rows["text"]] * 4)
    suite = {"name": "text", "path": str(texts)}
    of = {"name": "near", "path": str(pulled)}
    bound = {"what": suite, "at_most": 2.0, "items": 16, "step_tokens": 64, "of": of}
    recipe = keeping(**bound)
    recipe["train"] |= {"max_steps": 16, "batch_size": 3}
    free = keeping(what=suite, at_most=2.0, items=16, by="nothing") | {"train": recipe["train"]}
    go(free, tmp_path / "free")
    said = go(recipe, tmp_path / "kept")
    (loose,), (held,) = (read_json(tmp_path / name / "keep.json") for name in ("free", "kept"))
    # Of an untrained model every text becomes likelier: near its start, by less.
    assert abs(held["change"]) < 0.7 * abs(loose["change"])
    assert (held["what"], held["by"], held["records"], held["price"]) == ("suite", "kl", 16, None)
    assert held["low"] < held["change"] < held["high"]
    # By hand: the items at odd places of the order that is drawn, of the start model and of this one.
    made = suites.make(suite)
    apart = drawn("keep text", suites.chosen(made, templated=True))[1::2]
    subject = suites.Subject.of(one.load(tmp_path / "kept" / "model"))
    scores = made.score(apart, made.ask(subject, apart))
    after = made.summarise({item.id: s for item, s in zip(apart, scores, strict=True)})
    assert held["after"] == pytest.approx(after["perplexity"].value, rel=1e-4)
    assert held["change"] == pytest.approx(held["after"] - held["before"], rel=1e-5)
    assert "16 items are watched (perplexity" in said[0]
    assert "its answers took" in " ".join(said)
    shown = chapter_sections(read_folders([tmp_path / "kept"])[0])["Bounds"]
    assert "fall of the headline of text" in shown


def test_the_fall_is_paired_by_item_and_measured_every_so_often(
    keeping: Make, tmp_path: Path
) -> None:
    """Each item falls by as much as the sum of one of the weights does."""
    out = tmp_path / "out"
    go(keeping(by="anchor", items=9), out)
    (told,) = read_json(out / "keep.json")
    weights = load_file(out / "model" / "model.safetensors")
    now = float(weights["model.embed_tokens.weight"].sum())
    kept = read_json(out / "keep_items.json")["small_suites"]
    assert [len(kept[part]) for part in ("watched", "certified")] == [9, 9]
    assert not set(kept["watched"]) & set(kept["certified"])
    # An item is worth that sum, and a hundredth for each that its number leaves over three.
    i, worth = next(iter(kept["certified"].items()))
    then = worth["mean"] - 0.01 * (int(i) % 3)
    assert told["change"] == pytest.approx(then - now, abs=1e-4)
    assert told["high"] - told["low"] == pytest.approx(0, abs=1e-6)
    measured = series(out, "keep/small_suites/measured")
    assert len(measured) == 3
    assert measured[-1] == pytest.approx(told["change"], abs=1e-5)


def test_stopped_and_resumed_it_goes_on_with_what_the_start_model_said(
    keeping: Make, tmp_path: Path
) -> None:
    recipe = keeping(by="anchor", at_most=0.05, items=8)
    go(recipe, tmp_path / "whole")
    recipe["train"] |= {"save_steps": 3, "max_steps": 3}
    go(recipe, tmp_path / "cut")
    begun = (tmp_path / "cut" / "keep_items.json").read_text()
    recipe["train"]["max_steps"] = 6
    said = go(recipe, tmp_path / "cut", resume=True)
    assert not any("items are watched" in line for line in said)
    assert (tmp_path / "cut" / "keep_items.json").read_text() == begun
    for key in ("measured", "multiplier"):
        whole, cut = (series(tmp_path / n, f"keep/small_suites/{key}") for n in ("whole", "cut"))
        assert whole[-2:] == cut[-2:]
    mine, theirs = (load_file(tmp_path / n / "model/model.safetensors") for n in ("whole", "cut"))
    assert all(mine[key].equal(theirs[key]) for key in mine)
    # Of other items, the start model is asked anew.
    recipe["train"]["max_steps"] = 8
    recipe["keep"][0]["items"] = 10
    said = go(recipe, tmp_path / "cut", resume=True, allow_changed=["keep"])
    assert any("10 items are watched" in line for line in said)


def test_its_share_of_the_time_is_held(keeping: Make, tmp_path: Path) -> None:
    """Where items take no time all are watched; where one is all there is time for, none is enough."""
    said = go(keeping(what=SLOW | {"size": 14}, share=0.9, by="step"), tmp_path / "out")
    assert "7 items are watched" in said[0]
    assert "allowed 90.0%" in " ".join(said)
    recipe = keeping(what=SLOW | {"seconds": 0.05}, share=0.01, by="step")
    with pytest.raises(RecipeError, match=r"room for 1 of its items at each of 4 .* keep\.share"):
        go(recipe, tmp_path / "short")


def test_weights_are_drawn_back_within_the_share(
    keeping: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item falls as a straight line does, so that two drawings leave it beyond its aim: no more are
    made, and the time that was planned has room for them."""
    asked = counted(monkeypatch)
    bound = {"at_most": 1e-4, "beyond": "draw_back", "by": "step", "share": 0.9}
    recipe = keeping(what=SLOW | {"size": 14, "sign": -1.0}, **bound)
    recipe["train"] |= {"average": "ema"}
    said = go(recipe, tmp_path / "out")
    assert Counter(asked) == {2: 3, 4: 3, 6: 6}
    # The start model's, three of three each, and three of the average.
    assert "up to 13 measurements" in said[0]
    assert sum("no more were planned for" in line for line in said) == 3
    (found,) = check_recipe(recipe)
    assert any("up to 7 items at 13 times" in note for note in found.findings.notes)


@pytest.mark.parametrize(("at_most", "last"), [(1e-6, 2), (1e3, 1)])
def test_at_the_end_it_is_asked_again_where_another_bound_has_drawn_weights_back(
    at_most: float, last: int, keeping: Make, rows: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its own turn was the last step, the other's was not; the time that was planned has room for it."""
    asked = counted(monkeypatch)
    text = {"name": "old", "path": str(write_rows(tmp_path / "old.jsonl", rows["text"]))}
    drawn = {"what": "kl", "at_most": at_most, "by": "nothing", "beyond": "draw_back", "steps": 4}
    recipe = keeping(items=7, by="nothing")
    recipe["keep"].append(drawn | {"of": text})
    said = go(recipe, tmp_path / "out")
    assert Counter(asked) == {2: 1, 4: 1, 6: last}
    assert any(": 5 measurements" in line for line in said)


def test_too_few_answers_to_decide_are_named_before_the_run_and_at_its_end(
    keeping: Make, tmp_path: Path
) -> None:
    """Of 14 answers to problems that the model solves neither before nor after, nothing follows."""
    problems = [{"question": f"{n} and {n}?", "answer": f"#### {2 * n}"} for n in range(14)]
    path = str(write_rows(tmp_path / "problems.jsonl", problems))
    suite = {"name": "gsm8k", "path": path, "shots": 0, "max_completion_length": 2}
    recipe = keeping(what=suite, at_most=0.02, by="nothing", items=7)
    (found,) = check_recipe(recipe)
    (warned,) = [line for line in found.findings.warnings if "cannot show" in line]
    assert "7 items cannot show that at most 0.02 is lost" in warned
    assert "0.41 may be; 183 are the least" in warned
    said = go(recipe, tmp_path / "out")
    assert any("7 items cannot show" in line for line in said)
    (told,) = read_json(tmp_path / "out" / "keep.json")
    assert (told["change"], told["verdict"], told["needed"]) == (0, "undecided", 183)
    assert told["high"] == pytest.approx(1 - 0.025 ** (1 / 7))


def test_check_says_what_it_will_cost(keeping: Make) -> None:
    (found,) = check_recipe(keeping(by="step", items=10))
    told = "10 items at 4 times, and as many for the certificate, before and after: 60 answers"
    assert any(told in note for note in found.findings.notes)
    (found,) = check_recipe(keeping(by="step", share=0.25))
    told = "up to 20 items at 4 times, and as many for the certificate, in 25.0% of the run's time"
    assert any(told in note for note in found.findings.notes)


def test_check_says_what_does_nothing(keeping: Make) -> None:
    for beyond in ("draw_back", "wait"):
        recipe = keeping(by="step", items=8, then="relax", beyond=beyond)
        (found,) = check_recipe(recipe)
        told = any("then: relax does nothing" in line for line in found.findings.warnings)
        assert told == (beyond == "draw_back")


NEAR = {"name": "near", "path": "near.jsonl"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": (
        {"what": {"name": "ifevil"}, "by": "step"},
        "unknown suite 'ifevil'; did you mean",
    ),
    "no text": ({}, "give the text .* on which the model is held near its start"),
    "idle text": ({"by": "anchor", "of": NEAR}, "a text .* would do nothing with by: anchor"),
    "held-out text": ({"of": NEAR | {"eval_path": "x.jsonl"}}, "'eval_path'.* would do nothing"),
    "a stream": ({"by": "step", "stream": "a"}, "a stream is of what: loss"),
    "few items": ({"by": "step", "what": SLOW | {"size": 13}}, "has 13 items, and 14 are needed"),
    "many items": ({"by": "step", "items": 30}, "60 are needed.* set keep.items lower"),
    "idle share": (
        {"by": "step", "items": 8, "share": 0.5},
        "share would change nothing where items",
    ),
    "idle margin": (
        {"by": "nothing", "margin": 0.5},
        "margin would change nothing with by: nothing",
    ),
    "idle items": (
        {"what": "kl", "of": NEAR, "items": 8},
        "items would change nothing where no suite",
    ),
    "idle then": (
        {"what": "kl", "of": NEAR, "multiplier": 1.0, "then": "relax"},
        "then would change nothing beside a multiplier",
    ),
    "idle pool": (
        {"what": "text", "of": NEAR, "by": "anchor", "pool_tokens": 9},
        "pool_tokens would change nothing with by: anchor",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_kept_is_refused_before_anything_is_loaded(
    keeping: Make, tmp_path: Path, name: str
) -> None:
    bound, words = BAD[name]
    with pytest.raises(RecipeError, match=words):
        go(keeping(**bound), tmp_path / "out")
    assert not (tmp_path / "out" / "recipe.yaml").exists()


def test_a_fall_that_there_cannot_be_is_refused(keeping: Make, tmp_path: Path) -> None:
    """As where points are given of a share: the tiny model solves no problem at all."""
    problems = [{"question": f"{n} and {n}?", "answer": f"#### {2 * n}"} for n in range(14)]
    path = str(write_rows(tmp_path / "problems.jsonl", problems))
    suite = {"name": "gsm8k", "path": path, "shots": 0, "max_completion_length": 2}
    recipe = keeping(what=suite, at_most=2, by="step", items=7)
    with pytest.raises(
        RecipeError, match=r"at_most: 2 is more than .* \(its mean is 0\); of a share"
    ):
        go(recipe, tmp_path / "out")


def test_two_ranks_share_the_items_and_hold_the_same_bound(keeping: Make, tmp_path: Path) -> None:
    recipe = keeping(by="anchor", at_most=0.05, items=9)
    go(recipe, tmp_path / "one")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train_on_two_ranks(tmp_path / "recipe.yaml", tmp_path / "two")
    (one_told,), (two_told,) = (read_json(tmp_path / n / "keep.json") for n in ("one", "two"))
    assert two_told["records"] == 9
    for key in ("before", "change", "multiplier"):
        assert two_told[key] == pytest.approx(one_told[key], rel=1e-3, abs=1e-3)
    one_asked, two_asked = (
        read_json(tmp_path / n / "keep_items.json")["small_suites"]["watched"]
        for n in ("one", "two")
    )
    assert list(one_asked) == list(two_asked)
