"""Stages: what each one saves is what it had in memory (law 8, trap T1 of the sequential baselines)."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from support.drafts import data_of
from support.tiny import make_tokenizer, tiny_llama, write_recipe
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.config import RecipeError
from onestage.models.policy import Policy
from onestage.models.reference import InitialWeights
from onestage.models.stacking import FROZEN, TRAINED, activate, is_stacked
from onestage.runfolder import OutputError, read_metrics
from onestage.training import pipeline
from onestage.training.build import build
from onestage.training.callbacks import Callback
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run
from onestage.training.same_run import CheckpointError

Make = Callable[..., dict[str, Any]]
carry_out = partial(pipeline.carry_out, self_check=False)
"""Laws are looked at by a test of their own."""
IDS = torch.arange(2, 60)[None]

SFT: dict[str, Any] = {"name": "sft", "streams": ["demonstrations"], "objective": "sft"}
DPO: dict[str, Any] = {
    "name": "dpo",
    "streams": ["pairs"],
    "objective": "dpo",
    "reference": "start",
    "model": {"lora": {"r": 2, "alpha": 3, "target_modules": ["q_proj", "v_proj", "up_proj"]}},
}
KTO: dict[str, Any] = {
    "name": "kto",
    "streams": ["labels"],
    "objective": "kto",
    "reference": "first",
    "model": {"lora": {"r": 3, "alpha": 3, "target_modules": ["q_proj", "down_proj"]}},
}


def quiet(line: str) -> None:
    return None


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(IDS).logits


def reloaded(folder: Path) -> torch.Tensor:
    """Logits of a saved folder through plain transformers or PEFT."""
    adapter = (folder / "adapter_config.json").exists()
    kind = AutoPeftModelForCausalLM if adapter else AutoModelForCausalLM
    return logits(kind.from_pretrained(folder))


def gap(left: torch.Tensor, right: torch.Tensor) -> float:
    return (left - right).abs().max().item()


class Memory(Callback):
    """Keeps the logits of each stage's model at its ends, and those of its last adapter alone."""

    def __init__(self) -> None:
        self.starts: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []
        self.alone: list[torch.Tensor | None] = []

    def begin(self, run: Run) -> None:
        self.run = run
        self.starts.append(logits(run.policy.model))
        run.policy.train()

    def end(self) -> None:
        model = self.run.policy.model
        self.logits.append(logits(model))
        self.alone.append(None)
        if is_stacked(model):
            activate(model, TRAINED)
            self.alone[-1] = logits(model)
            activate(model, FROZEN, TRAINED)


def staged(recipe_of: Make, model_folder: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    recipe = recipe_of("demonstration", "pair", "label", stages=list(stages))
    recipe["model"] = {"name": str(model_folder), "lora": {"r": 4, "alpha": 8}}
    recipe["train"] |= {"max_steps": 3, "save_steps": 3, "learning_rate": 2e-2}
    return recipe


def with_policies(policies: Sequence[str]) -> list[dict[str, Any]]:
    stages = [dict(SFT), dict(DPO), dict(KTO)][: len(policies) + 1]
    for stage, policy in zip(stages[1:], policies, strict=True):
        stage["adapter"] = policy
        if policy == "same":
            del stage["model"]  # an adapter's shape is fixed
    return stages


CHAINS = [  # each is looked at after its second stage too, so it stands for two stages as well
    ("same", "same"),
    ("merge", "merge"),
    ("stack", "stack"),
    ("stack", "merge"),
    ("merge", "stack"),
    ("stack", "same"),
    ("same", "stack"),
]


@pytest.mark.parametrize("policies", CHAINS, ids="-".join)
def test_every_stage_reloads_as_it_was_in_memory(
    policies: tuple[str, ...], recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """By plain PEFT, from `model/` and from the checkpoint; and neither is the base, the stage
    before, or the last stage's change alone."""
    memory, out = Memory(), tmp_path / "out"
    recipe = parse_recipe(staged(recipe_of, model_folder, *with_policies(policies)))
    saved = carry_out(recipe, out, say=quiet, callbacks=[memory])
    base = before = logits(AutoModelForCausalLM.from_pretrained(model_folder))
    names = ["1-sft", "2-dpo", "3-kto"][: len(policies) + 1]
    for number, name in enumerate(names):
        mine = memory.logits[number]
        assert gap(memory.starts[number], before) < 1e-5  # it begins where the one before ended
        for folder in (out / name / "model", out / name / "checkpoints" / "last" / "model"):
            assert gap(reloaded(folder), mine) < 1e-5, folder
        assert gap(base, mine) > 1e-2
        assert gap(before, mine) > 1e-2
        policy = ("", *policies)[number]
        if policy == "merge":  # what the authors' reload measures: the new adapter, the old base
            alone = AutoModelForCausalLM.from_pretrained(model_folder)
            lost = logits(PeftModel.from_pretrained(alone, out / name / "model"))
            assert gap(lost, mine) > 1e-2
        if policy == "stack":
            last = memory.alone[number]
            assert last is not None
            assert gap(last, mine) > 1e-2
            assert not (out / name / "model" / "trained.safetensors").exists()
        before = mine
    assert saved == out / "model"
    assert gap(reloaded(saved), memory.logits[-1]) < 1e-5


def test_a_stacked_sum_has_the_ranks_of_its_parts(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """4 everywhere, then 4 + 2 in three kinds of layers, then 3 more in two kinds."""
    recipe = staged(recipe_of, model_folder, *with_policies(["stack", "stack"]))
    carry_out(parse_recipe(recipe), tmp_path / "out", say=quiet)
    wanted = [{"q": 6, "v": 6, "up": 6, "down": 4, "o": 4}, {"q": 9, "v": 6, "up": 6, "down": 7}]
    for name, ranks in zip(("2-dpo", "3-kto"), wanted, strict=True):
        model: Any = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out" / name / "model")
        found = {
            module.rpartition(".")[2]: layer.r["default"]
            for module, layer in model.get_base_model().named_modules()
            if hasattr(layer, "lora_A")
        }
        assert all(found[f"{kind}_proj"] == rank for kind, rank in ranks.items())
        scalings = [m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")]
        assert set(scalings) == {1.0}
        assert model.peft_config["default"].base_model_name_or_path == str(model_folder)


def test_only_the_new_adapter_is_trained(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe = staged(recipe_of, model_folder, SFT)
    carry_out(parse_recipe(recipe), out, say=quiet)
    again = recipe_of("pair", objective="dpo")
    again["model"] = {"name": str(out / "model"), "lora": {"r": 2}, "adapter": "stack"}
    session = build(parse_recipe(again), tmp_path / "two", say=quiet)
    trained = [n for n, p in session.policy.named_parameters() if p.requires_grad]
    assert trained
    assert all(".stacked." in name for name in trained)
    in_optimizer = [p for g in session.optimizer.param_groups for p in g["params"]]
    assert len(in_optimizer) == len(trained)
    start, initial = reloaded(out / "model"), InitialWeights(session.policy)
    session.go()
    model = session.policy.model
    assert gap(logits(model), start) > 1e-3
    with initial.in_place():  # the start of the run, not the base
        assert gap(logits(model), start) < 1e-5
    assert [n for n, p in session.policy.named_parameters() if p.requires_grad] == trained
    assert gap(logits(model), reloaded(tmp_path / "two" / "model")) < 1e-5


def test_full_fine_tuning_in_stages(recipe_of: Make, tmp_path: Path) -> None:
    """Fresh weights, then all weights again; the fresh model is kept as the first reference."""
    recipe = recipe_of("demonstration", "pair", stages=[SFT, {**DPO, "reference": "first"}])
    recipe["stages"][1].pop("model")
    memory, out = Memory(), tmp_path / "out"
    carry_out(parse_recipe(recipe), out, say=quiet, callbacks=[memory])
    for name, mine in zip(("1-sft", "2-dpo"), memory.logits, strict=True):
        assert gap(reloaded(out / name / "model"), mine) < 1e-5
    assert gap(*memory.logits) > 1e-2
    facts = [json.loads((out / n / "manifest.json").read_text()) for n in ("1-sft", "2-dpo")]
    assert facts[1]["reference"] == facts[0]["model"] != facts[1]["model"]
    assert gap(reloaded(out / "start"), memory.logits[0]) > 1e-2


def test_all_weights_after_a_merged_adapter(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    stage = {**DPO, "adapter": "merge", "model": {"lora": None}}
    recipe = staged(recipe_of, model_folder, SFT, stage)
    memory, out = Memory(), tmp_path / "out"
    carry_out(parse_recipe(recipe), out, say=quiet, callbacks=[memory])
    assert (out / "model" / "model.safetensors").is_file()
    assert gap(reloaded(out / "2-dpo" / "start"), memory.logits[0]) < 1e-4
    assert gap(reloaded(out / "model"), memory.logits[1]) < 1e-5
    assert gap(*memory.logits) > 1e-3


def pair_loss(policy: Any, reference: Any, recipe: dict[str, Any], beta: float = 0.1) -> float:
    """Mean DPO loss of all pairs by its definition: one path at a time, plain logits."""
    data = data_of(parse_recipe(recipe))
    store = data.train["pairs"]
    mine, theirs = Policy(policy), Policy(reference)
    total = 0.0
    for number in range(len(store)):
        with torch.no_grad():
            chosen, rejected = (
                (mine.alone(path, chunked=False) - theirs.alone(path, chunked=False)).sum()
                for path in store[number].paths
            )
        total += math.log1p(math.exp(-beta * (chosen - rejected).item()))
    return total / len(store)


@pytest.mark.parametrize("reference", ["start", "one", "first"])
def test_the_reference_follows_the_stage_or_does_not(
    reference: str, recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """sDPO: DPO on parts of the pairs in turn, each compared with the result of the one before."""
    first = {**DPO, "name": "one"}
    second = {**DPO, "name": "two", "adapter": "same", "reference": reference}
    for stage in (first, second):
        stage.pop("model")
    first.pop("reference")
    recipe = staged(recipe_of, model_folder, first, second)
    recipe["train"]["batch_size"] = 8
    said: list[str] = []
    out = tmp_path / "out"
    carry_out(parse_recipe(recipe), out, say=said.append, self_check=True)
    losses = [read_metrics(out / name)[0]["loss"] for name in ("1-one", "2-two")]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-5)
    laws = [line for line in said if line.startswith("law 1")]
    if reference != "first":
        assert losses[1] == pytest.approx(math.log(2), rel=1e-5)
        assert "another model" not in laws[1]
        return
    assert abs(losses[1] - math.log(2)) > 1e-2
    policy = AutoPeftModelForCausalLM.from_pretrained(out / "1-one" / "model").eval()
    base = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    assert losses[1] == pytest.approx(pair_loss(policy, base, recipe), rel=1e-4)
    assert f"the reference is another model, {model_folder}" in laws[1]
    assert "holds" in laws[1]


class StopAt(Callback):
    """Ends the process's work at a step of the n-th stage: politely, or as a crash would."""

    def __init__(self, stage: int, step: int, *, crash: bool = False) -> None:
        self.stage, self.at, self.crash = stage, step, crash
        self.begun = 0

    def begin(self, run: Run) -> None:
        self.begun += 1

    def step(self, run: Run, loss: float) -> None:
        if (self.begun, run.step) == (self.stage, self.at):
            if self.crash:
                raise MemoryError("killed")
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("policy", ["same", "merge", "stack"])
def test_killed_in_a_stage_and_resumed_is_bit_for_bit_the_same(
    policy: str, recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    recipe = parse_recipe(staged(recipe_of, model_folder, *with_policies([policy])))
    carry_out(recipe, tmp_path / "whole", say=quiet)
    cut = tmp_path / "cut"
    reached = carry_out(recipe, cut, say=quiet, callbacks=[StopAt(2, 2)])
    assert reached == cut.resolve() / "2-dpo" / "checkpoints" / "last"
    assert [s["done"] for s in json.loads((cut / "stages.json").read_text())] == [True, False]
    assert not (cut / "model").exists()
    first = (cut / "1-sft" / "metrics.jsonl").stat().st_mtime_ns
    said: list[str] = []
    carry_out(recipe, cut, say=said.append, resume=True)
    assert sum("resumed after step 2" in line for line in said) == 1
    assert (cut / "1-sft" / "metrics.jsonl").stat().st_mtime_ns == first
    assert all(s["done"] for s in json.loads((cut / "stages.json").read_text()))
    name = "model/adapter_model.safetensors"
    assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    losses = [
        [line["loss"] for line in read_metrics(f / "2-dpo")] for f in (cut, tmp_path / "whole")
    ]
    assert losses[0] == losses[1]


def test_killed_before_the_first_checkpoint_of_a_stage(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    recipe = parse_recipe(staged(recipe_of, model_folder, *with_policies(["stack"])))
    carry_out(recipe, tmp_path / "whole", say=quiet)
    cut = tmp_path / "cut"
    with pytest.raises(MemoryError):
        carry_out(recipe, cut, say=quiet, callbacks=[StopAt(2, 2, crash=True)])
    assert (cut / "2-dpo" / "metrics.jsonl").exists()
    carry_out(recipe, cut, say=quiet, resume=True)
    name = "model/adapter_model.safetensors"
    assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(OutputError, match="already holds a run"):
        carry_out(recipe, cut, say=quiet)
    with pytest.raises(CheckpointError, match="no stages were begun"):
        carry_out(recipe, tmp_path / "elsewhere", say=quiet, resume=True)
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": 3})})
    with pytest.raises(CheckpointError, match=r"stage sft .* is done, but the recipe says"):
        carry_out(other, cut, say=quiet, resume=True)


BAD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "twice": ([SFT, {**SFT}], r"names must differ, found \['sft'\]"),
    "reserved": ([{**SFT, "name": "first"}], "'first' already means a reference"),
    "top reference": ([SFT], "reference: with stages each stage says its own"),
    "unknown key": ([{**SFT, "adaptor": "same"}], r"stages.sft: adaptor: .*mean 'adapter'"),
    "unknown nested": (
        [{**SFT, "train": {"max_step": 1}}],
        r"stages.sft: train.max_step: .*'max_s",
    ),
    "no mapping": ([{**SFT, "train": 3}], "stages.sft: train: expected a mapping, got 3"),
    "data": ([{**SFT, "data": []}], "data is the same for all stages; choose from it with streams"),
    "cache": ([{**SFT, "cache_dir": "x"}], "cache_dir is the same"),
    "model name": ([{**SFT, "model": {"name": "x"}}], "model.name cannot be set in a stage"),
    "stream": ([{**SFT, "streams": ["pair"]}], r"stages.sft: streams: no stream 'pair'.*'pairs'"),
    "no adapter": ([SFT, {**DPO}], "stages.dpo: stage sft leaves an adapter; say what becomes"),
    "shape": ([SFT, {**DPO, "adapter": "same"}], "stages.dpo: adapter: same keeps the .*shape"),
    "nothing to stack on": ([{**SFT, "adapter": "stack"}], "starts from a whole model"),
    "stack without lora": (
        [SFT, {**DPO, "adapter": "stack", "model": {"lora": None}}],
        "stages.dpo: model: model.adapter: stack trains a new adapter",
    ),
    "no reference": (
        [SFT, {k: v for k, v in DPO.items() if k != "reference"} | {"adapter": "merge"}],
        "stages.dpo: objective dpo compares with a reference; say which",
    ),
    "reference unknown": (
        [SFT, {**DPO, "adapter": "merge", "reference": "stf"}],
        r"stages.dpo: reference: no stage or folder 'stf'; did you mean 'sft'",
    ),
    "reference later": (
        [{**DPO, "reference": "sft"}, SFT],
        "stages.dpo: .*is not done before this",
    ),
    "reference unused": (
        [SFT, {**SFT, "name": "more", "adapter": "same", "reference": "first"}],
        "stages.more: reference: no objective of this stage uses a reference",
    ),
    "kind": (
        [{**SFT, "objective": "dpo"}],
        "stages.sft: objective dpo cannot use demonstration records",
    ),
    "kind not there": (
        [{**SFT, "objective": {"demonstration": "sft", "pair": "dpo"}}],
        r"stages.sft: objective.pair: the data of this stage \(demonstrations\) hold no record",
    ),
    "objective": ([{**SFT, "objective": "sfd"}], "stages.sft: .*mean 'sft'"),
    "optimiser": ([{**SFT, "train": {"optim": "adamm"}}], "stages.sft: train.optim: unknown"),
    "layers": (
        [SFT, {**DPO, "adapter": "stack", "model": {"lora": {"target_modules": ["query"]}}}],
        "stages.dpo: Target modules .*query.* not found",
    ),
    "head": (
        [SFT, {**DPO, "adapter": "merge", "model": {"lora": {"target_modules": ["lm_head"]}}}],
        "stages.dpo: model.lora.target_modules adapts the output head",
    ),
    "held out": (
        [{**SFT, "train": {"eval_steps": 2}}],
        "stages.sft: train.eval_steps needs a stream",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_stages_are_refused_before_the_first_begins(
    case: str, recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    stages, message = BAD[case]
    content = staged(recipe_of, model_folder, *stages)
    if case == "top reference":
        content["reference"] = str(model_folder)
    recipe = parse_recipe(content)
    with pytest.raises(RecipeError, match=message):
        carry_out(recipe, tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_stage_overrides_single_keys(recipe_of: Make, model_folder: Path, tmp_path: Path) -> None:
    """`train` by key, one of two ways to say the length; an inherited map loses absent streams."""
    stage = {"name": "only", "streams": ["labels"], "train": {"num_train_epochs": 2, "seed": 5}}
    recipe = staged(recipe_of, model_folder, stage)
    recipe["objective"] = {"demonstrations": "sft", "pairs": "dpo", "labels": "kto"}
    carry_out(parse_recipe(recipe), tmp_path / "out", say=quiet)
    lines = read_metrics(tmp_path / "out" / "1-only")
    assert [line["step"] for line in lines] == [1, 2, 3]  # 2 epochs of 8 records, 6 a step
    facts = json.loads((tmp_path / "out" / "1-only" / "manifest.json").read_text())
    assert facts["seed"] == 5
    assert lines[0]["learning_rate"] == pytest.approx(2e-2)


def test_check_and_train_by_command(recipe_of: Make, model_folder: Path, tmp_path: Path) -> None:
    recipe = staged(recipe_of, model_folder, *with_policies(["stack"]))
    file = write_recipe(tmp_path / "r.yaml", recipe)
    call = CliRunner().invoke
    checked = call(app, ["check", str(file)])
    assert checked.exit_code == 0, checked.output
    assert [checked.output.count(f"stage {name} ") for name in ("sft", "dpo")] == [1, 1]
    assert checked.output.count("ready to train") == 2
    command = ["train", str(file), "--out", str(tmp_path / "out"), "--no-self-check"]
    done = call(app, [*command, "--set", "stages.dpo.train.max_steps=2"])
    assert done.exit_code == 0, done.output
    assert [len(read_metrics(tmp_path / "out" / n)) for n in ("1-sft", "2-dpo")] == [3, 2]
    again = call(app, [*command, "--resume", "--set", "stages.dpo.train.max_steps=2"])
    assert again.output.count("done before") == 2
    refused = call(app, ["train", str(file), "--set", "stages.dpp.train.max_steps=2"])
    assert "no stage 'dpp'; there are ['sft', 'dpo']" in refused.output
    del recipe["stages"][1]["reference"]
    refused = call(app, ["check", str(write_recipe(file, recipe))])
    assert refused.exit_code == 1
    assert "stages.dpo: objective dpo compares with a reference" in " ".join(refused.output.split())


def test_start_models_of_another_adapter_are_refused(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """A run that began from one adapter merged into its base does not resume from another."""
    for seed in (1, 2):
        recipe = staged(recipe_of, model_folder, SFT)
        recipe["train"]["seed"] = seed
        carry_out(parse_recipe(recipe), tmp_path / f"sft{seed}", say=quiet)
    again = recipe_of("demonstration", objective="sft", train__save_steps=2)
    for seed in (1, 2):
        again["model"] = {"name": str(tmp_path / f"sft{seed}" / "1-sft" / "model")}
        again["model"] |= {"adapter": "merge", "lora": {"r": 2}}
        if seed == 1:
            carry_out(parse_recipe(again), tmp_path / "out", say=quiet)
            continue
        with pytest.raises(ValueError, match="not what the recipe starts from now"):
            carry_out(
                parse_recipe(again),
                tmp_path / "out",
                say=quiet,
                resume=True,
            )


def test_an_adapter_that_is_no_product_cannot_be_stacked_on(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    get_peft_model(base, config).save_pretrained(tmp_path / "dora")
    recipe = recipe_of("demonstration", objective="sft")
    recipe["model"] = {"name": str(tmp_path / "dora"), "adapter": "stack", "lora": {"r": 2}}
    with pytest.raises(ValueError, match=r"use_dora.*cannot be stacked on; use merge"):
        carry_out(parse_recipe(recipe), tmp_path / "out", say=quiet)
    recipe["model"] |= {"name": str(model_folder)}
    with pytest.raises(ValueError, match="stack needs an adapter folder"):
        carry_out(parse_recipe(recipe), tmp_path / "out", say=quiet)


def test_a_fresh_base_is_kept_for_its_adapter(recipe_of: Make, tmp_path: Path) -> None:
    """Fresh weights from a config lie nowhere else: without them the adapter would be worthless."""
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=3)
    recipe["model"]["lora"] = {"r": 2}
    memory = Memory()
    carry_out(
        parse_recipe(recipe),
        tmp_path / "out",
        say=quiet,
        callbacks=[memory],
    )
    assert gap(reloaded(tmp_path / "out" / "model"), memory.logits[0]) < 1e-5
    assert gap(reloaded(tmp_path / "out" / "start"), memory.logits[0]) > 1e-3


@pytest.fixture
def other_folder(tmp_path: Path) -> Path:
    """A model of the same kind with other weights."""
    tiny_llama(seed=1).save_pretrained(tmp_path / "other")
    make_tokenizer().save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_another_model_as_reference(
    recipe_of: Make, model_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    """Joint runs of arXiv 2410.15483 start from the base and compare with a fine-tuned model."""
    recipe = recipe_of("pair", objective="dpo", reference=str(other_folder))
    recipe["model"] = {"name": str(model_folder)}
    recipe["train"] |= {"batch_size": 8, "save_steps": 2}
    said: list[str] = []
    session = build(parse_recipe(recipe), tmp_path / "out", say=said.append)
    assert session.compared.policy is not None
    session.go()
    assert session.compared.policy is None  # dropped before step 0
    models = [AutoModelForCausalLM.from_pretrained(f).eval() for f in (model_folder, other_folder)]
    want = pair_loss(*models, recipe)
    assert abs(want - math.log(2)) > 0.1
    assert read_metrics(tmp_path / "out")[0]["loss"] == pytest.approx(want, rel=1e-4)
    (law,) = [line for line in said if line.startswith("law 1")]
    assert "holds (the reference is another model" in law
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert facts["reference"] == session.compared.fingerprint != facts["model"]

    said.clear()
    carry_out(parse_recipe(recipe), tmp_path / "again", say=said.append)
    assert any("reference: 16 paths found in the cache, 0 computed" in line for line in said)
    recipe["reference"] = "start"
    with pytest.raises(CheckpointError, match="whose reference was"):
        carry_out(parse_recipe(recipe), tmp_path / "out", say=quiet, resume=True)


@pytest.mark.parametrize("wrong", ["size", "ids", "unused"])
def test_a_reference_that_cannot_be_one_is_refused(
    wrong: str, recipe_of: Make, model_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    objective, kind, message = "dpo", "pair", "no objective of the run uses a reference"
    if wrong == "size":
        model = AutoModelForCausalLM.from_pretrained(other_folder)
        model.resize_token_embeddings(420)
        model.save_pretrained(other_folder)
        message = "vocabulary has 420 tokens, the policy's 400"
    elif wrong == "ids":
        make_tokenizer(vocab_size=350).save_pretrained(other_folder)
        message = "its tokenizer gives other ids"
    else:
        objective, kind = "sft", "demonstration"
    recipe = recipe_of(kind, objective=objective, reference=str(other_folder))
    recipe["model"] = {"name": str(model_folder)}
    with pytest.raises(RecipeError, match=message):
        carry_out(parse_recipe(recipe), tmp_path / "out", say=quiet)
