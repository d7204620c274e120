"""The gauges of a run, beside exact gradients of the same step and beside the probe's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from support.tiny import token_path

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.runfolder import read_metrics
from onestage.schedules import Slopes
from onestage.training.build import build
from onestage.training.forward import row_loss
from onestage.training.gauges import common_of, gauges_of, shares, told
from onestage.training.loop import take_step
from onestage.training.monitor import up_to
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
TWO = {"demonstration": "sft", "pair": "dpo"}
NAN = float("nan")


def silent(line: str) -> None:
    pass


@pytest.mark.parametrize("layout", ["forest", "alone"])
def test_they_are_the_gradients_of_the_layers_that_are_looked_at(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    """Each term's own, by autograd, in a model as small as the sketch; noise by its two halves. Of these
    records nothing is left out: no row joins two of different groups."""
    nothing = "onestage.training.gauges.common_of"
    monkeypatch.setattr(nothing, lambda records: dict.fromkeys(map(id, records), 0))
    recipe = recipe_of("demonstration", "pair", objective=TWO, schedule="mix")
    recipe["train"] |= {"batch_size": 4}
    run = build(parse_recipe(recipe), tmp_path / "out", say=silent)
    run.policy.fit = replace(run.policy.fit, layout=layout)
    run.fill_reference()
    run.gauges = gauges_of(run)
    assert run.gauges is not None
    records = run.feeds.draw(["sft", "dpo"])
    weights = {"sft": 0.25, "dpo": 0.75}
    exact: dict[tuple[str, int], torch.Tensor] = {}
    seen = [layer.module.weight for layer in run.gauges.gauge.layers]
    for name in weights:
        mine = [r for r in records if run.terms.name_of(r) == name]
        counts = run.terms.count(mine)
        for half in (0, 1):
            batch = run.devices.pack(mine[half::2], run.options.row_budget)
            for row in batch.rows:
                loss, _ = row_loss(run, row, batch, {name: 1.0}, counts)
                loss.backward()
            exact[name, half] = torch.cat([p.grad.flatten() for p in seen if p.grad is not None])
            run.optimizer.zero_grad(set_to_none=True)
    parameters = [p for p in run.policy.parameters() if p.requires_grad]
    measured = take_step(run, parameters, records, weights)
    slopes = measured.slopes
    assert slopes is not None
    whole = {name: exact[name, 0] + exact[name, 1] for name in weights}
    for one in weights:
        for other in weights:
            want = float((whole[one] * whole[other]).sum())
            size_of = float(whole[one].norm() * whole[other].norm())
            assert slopes.inner[one][other] == pytest.approx(want, rel=1e-3, abs=1e-3 * size_of)
    pair = [r for r in records if run.terms.name_of(r) == "dpo"]
    p = len(pair[::2]) / len(pair)
    apart = exact["dpo", 0] / p - exact["dpo", 1] / (1 - p)
    assert slopes.noise["dpo"] == pytest.approx(p * (1 - p) * float(apart.norm() ** 2), rel=1e-3)


def test_a_beginning_that_records_share_is_left_out_and_an_answer_counts_in_parts() -> None:
    """Two records of one answer behind a prompt of nine tokens, a third with a prompt of its own."""
    prompt = [0, 9, 8, 7, 6, 5, 4, 3, 2]
    paths = [
        token_path([*prompt, 11, 12, 1], (9, 11)),
        token_path([*prompt, 11, 13, 1], (9, 11)),
        token_path([0, 19, 20, 21, 1], (3, 5)),
    ]
    records = [
        Encoded("demonstration", (path,), (NAN,), 1.0, "a", str(n)) for n, path in enumerate(paths)
    ]
    common = common_of(records)
    assert [common[id(record)] for record in records] == [8, 8, 0]  # the last one says the answer
    batch = pack_records(records, 64)
    (row,) = batch.rows
    assert len(row) == 9 + 1 + 2 + 2 + 5
    whose = [(2, group, common[id(record)]) for group, record in enumerate(records)]
    found = dict(
        zip(
            zip(row.tree.token_T, row.tree.position_T, strict=True),
            shares(row, whose, 3).tolist(),
            strict=True,
        )
    )
    assert [found[token, place] for place, token in enumerate(prompt[1:-1], 1)] == [[0.0] * 3] * 7
    assert found[2, 8] == found[11, 9] == [0.5, 0.5, 0.0]
    assert found[12, 10] == [1.0, 0.0, 0.0]
    assert found[13, 10] == [0.0, 1.0, 0.0]
    assert found[1, 11] == [0.0] * 3  # behind the last scored one nothing has a loss
    assert [found[place] for place in ((20, 2), (21, 3), (1, 4))] == [[0.0, 0.0, 1.0]] * 3


def test_a_run_logs_them_and_is_the_same_run_without(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("demonstration", "pair", objective=TWO, schedule="mix")
    recipe["train"] |= {"batch_size": 4}
    recipe["probe"] = {"steps": 1}
    carry_out(parse_recipe(recipe), tmp_path / "with", say=silent, self_check=False)
    monkeypatch.setattr("onestage.training.run.gauges_of", lambda run: None)
    carry_out(parse_recipe(recipe), tmp_path / "without", say=silent, self_check=False)
    with_, without = (read_metrics(tmp_path / name) for name in ("with", "without"))
    for left, right in zip(with_, without, strict=True):
        mine = {k: v for k, v in left.items() if not k.startswith("gauge/")}
        assert {k for k in mine if k != "tokens_per_second"} == set(right) - {"tokens_per_second"}
        assert all(mine[k] == right[k] for k in right if k != "tokens_per_second")
    lines = [line for line in with_ if "gauge/grad_norm/sft" in line]
    assert lines
    for line in lines:
        shares = [line["gauge/grad_share/sft"], line["gauge/grad_share/dpo"]]
        assert sum(shares) == pytest.approx(1.0)
        assert -1 <= line["gauge/cosine/sft/dpo"] <= 1
        assert line["gauge/noise/sft"] > 0
    # The probe's exact gradients, of all weights and of other records: the same one leads.
    exact = [line["probe/grad_share/sft"] for line in with_ if "probe/grad_share/sft" in line]
    read = [line["gauge/grad_share/sft"] for line in lines]
    assert (sum(exact) / len(exact) > 0.5) == (sum(read) / len(read) > 0.5)


def test_a_row_in_pieces_makes_the_step_say_nothing(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", "pair", objective=TWO, schedule="mix")
    run = build(parse_recipe(recipe), tmp_path / "out", say=silent)
    gauges = gauges_of(run)
    assert gauges is not None
    records = run.feeds.draw(["sft", "dpo"])
    batch = run.devices.pack(records, run.options.row_budget)
    weights = {"sft": 0.5, "dpo": 0.5}
    for passes, said in ((1, True), (2, False)):
        gauges.begin(records)
        gauges.expect(batch.rows[0], batch, passes, ["logp"])
        numbers = gauges.numbers(gauges.read()).tolist()
        assert (gauges.slopes(numbers, weights) is not None) == said


def test_they_lie_where_the_model_computes(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in parts may wait in the host's memory (`cpu_offload`) for a card that computes."""
    recipe = recipe_of("demonstration", "pair", objective=TWO, schedule="mix")
    run = build(parse_recipe(recipe), tmp_path / "out", say=silent)
    monkeypatch.setattr(type(run.policy), "device", torch.device("meta"))
    gauges = gauges_of(run)
    assert gauges is not None
    assert gauges.gauge.take().device.type == "meta"


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_a_reward_models_head_sees_scored_tokens_only(
    recipe_of: Make, tmp_path: Path, lora: Any
) -> None:
    """It is trained, and a linear layer, and yet none whose gradient could be told apart by tokens."""
    twice = {"pair": "bradley_terry", "group": {"name": "bradley_terry", "centering": 0.1}}
    recipe = recipe_of("pair", "group", objective=twice, schedule="mix")
    recipe["model"] |= {"task": "reward"} | ({"lora": lora} if lora else {})
    recipe["train"] |= {"max_steps": 1}
    carry_out(parse_recipe(recipe), tmp_path / "out", say=silent, self_check=False)
    line = {k: v for line in read_metrics(tmp_path / "out") for k, v in line.items()}
    assert len([name for name in line if name.startswith("gauge/grad_norm/")]) == 2


def test_gac_is_told_of_them(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", "pair", objective=TWO)
    recipe["schedule"] = {"name": "gac", "weights": {"sft": 0.3, "dpo": 0.7}, "rate": 0.5}
    recipe["train"] |= {"batch_size": 4, "max_steps": 6, "logging_steps": 1}
    carry_out(parse_recipe(recipe), tmp_path / "out", say=silent, self_check=False)
    weights = [
        line["weight/sft"] for line in read_metrics(tmp_path / "out") if "weight/sft" in line
    ]
    assert weights[0] == pytest.approx(0.3)
    assert len(set(weights)) > 2
    assert all(abs(b - a) <= 0.01 + 1e-9 for a, b in pairwise(weights))


def test_gac_is_refused_where_it_would_be_told_nothing(recipe_of: Make, tmp_path: Path) -> None:
    """Of one record a step; and where no linear layer is trained, before the reference is computed."""
    recipe = recipe_of("demonstration", "pair", objective=TWO, schedule="gac")
    recipe["train"] |= {"batch_size": 1}
    with pytest.raises(RecipeError, match=r"sft has one a step; raise train\.batch_size"):
        build(parse_recipe(recipe), tmp_path / "one", say=silent)
    recipe["train"] |= {"batch_size": 2}
    said: list[str] = []
    run = build(parse_recipe(recipe), tmp_path / "out", say=said.append)
    for name, weight in run.policy.named_parameters():
        weight.requires_grad_("embed" in name)
    with pytest.raises(RecipeError, match=r"the layers that are trained.* \(no linear layer"):
        run.go()
    assert not any(line.startswith("reference:") for line in said)


def test_a_line_by_hand() -> None:
    """Two steps of gradients of lengths 3 and 4 that are at an angle of cosine 1/2."""
    inner = {"a": {"a": 9.0, "b": 6.0}, "b": {"a": 6.0, "b": 16.0}}
    found = told([({"a": 0.5, "b": 0.5}, Slopes(inner, {"a": 4.5}))] * 2)
    assert found == {
        "gauge/grad_norm/a": 3.0,
        "gauge/grad_norm/b": 4.0,
        "gauge/grad_share/a": pytest.approx(3 / 7),
        "gauge/grad_share/b": pytest.approx(4 / 7),
        "gauge/noise/a": 0.5,
        "gauge/cosine/a/b": 0.5,
    }
    assert math.isclose(sum(v for k, v in found.items() if "share" in k), 1.0)
    assert told([]) == {}
    # In a step that had but one of them, its gradient was short.
    alone = Slopes({"a": {"a": 0.01}}, {})
    more = told([({"a": 0.5, "b": 0.5}, Slopes(inner, {})), ({"a": 1.0, "b": 0.0}, alone)])
    assert more["gauge/cosine/a/b"] == 0.5


def test_a_first_record_that_is_too_long_is_measured_all_the_same() -> None:
    """Without any record there would be no measure, and nobody would know why."""
    records = [SimpleNamespace(scored=scored) for scored in (10, 3, 4)]
    assert up_to(cast("Any", records), 5) == records[:1]
    assert up_to(cast("Any", records[1:]), 5) == records[1:2]
    assert up_to([], 5) == []
