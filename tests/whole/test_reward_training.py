"""Reward models through the whole loop, against plain transformers, PEFT and TRL."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.tiny import CHAT, TINY, make_tokenizer, sharpen, write_rows
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
)

from onestage.config import RecipeError
from onestage.data.packing import pack, pack_records
from onestage.data.trees import TokenPath
from onestage.models import Model, config_of, load
from onestage.models.policy import Policy
from onestage.models.reward_model import padding_of
from onestage.models.weights import load_whole
from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _pool as pool
from onestage.rollout.rewards.reward_model import RewardModel
from onestage.runfolder import read_metrics
from onestage.training.build import build
from onestage.training.callbacks import Callback
from onestage.training.loop import take_step
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run

TRAIN: dict[str, Any] = {
    **{"max_steps": 30, "batch_size": 8, "learning_rate": 5e-3, "lr_scheduler_type": "constant"},
    **{"max_length": 128, "tokens_per_row": 512, "logging_steps": 5},
}
WORDS = ["one", "two", "three", "four", "red", "Roses", "wind", "moon", "Paris", "France"]


def pairs(count: int, seed: int) -> list[dict[str, Any]]:
    """The better text has the sea in it, anywhere; the prompt says nothing."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        texts = [[draw.choice(WORDS) for _ in range(draw.randint(3, 6))] for _ in range(2)]
        texts[0][draw.randrange(len(texts[0]))] = "sea"
        chosen, rejected = (" " + " ".join(text) for text in texts)
        prompt = "write about " + draw.choice(WORDS)
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def as_chat(row: dict[str, Any]) -> dict[str, Any]:
    role = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {k: [{"role": role[k], "content": text.strip()}] for k, text in row.items()}


def recipe_for(folder: Path, model: dict[str, Any], rows: Any, **changes: Any) -> dict[str, Any]:
    file = write_rows(folder / "rows.jsonl", rows)
    return {
        "model": {"task": "reward", **model},
        "data": [{"name": "pairs", "path": str(file)}],
        "objective": "bradley_terry",
        "cache_dir": str(folder / "cache"),
        **changes,
        "train": {**TRAIN, **changes.get("train", {})},
    }


def go(recipe: dict[str, Any], out: Path, **options: Any) -> Path:
    return carry_out(parse_recipe(recipe), out, say=lambda line: None, **options)


def by_transformers(folder: Path, texts: list[list[int]], model: Any = None) -> torch.Tensor:
    """Rewards by plain transformers, padded into one batch as its users do."""
    model = model or AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer.pad({"input_ids": texts}, return_tensors="pt", padding_side="right")
    with torch.no_grad():
        return model.eval()(**batch).logits[:, 0]


def rewards_of(policy: Policy, session: Run) -> tuple[list[list[int]], torch.Tensor]:
    """Ids up to the end of each response, and the rewards by packed rows, in the records' order."""
    store = session.data.train["pairs"]
    records = [store[number] for number in range(len(store))]
    found = torch.zeros(sum(len(record.scores) for record in records))
    with policy.evaluating():
        for row in pack_records(records, 512).rows:
            reward_K, response_K = policy(row), torch.from_numpy(row.tree.response_K)
            found[response_K] = reward_K  # the last one of a response stays
    paths = [path for record in records for path in record.paths]
    return [path.ids[: path.spans[-1][1]].tolist() for path in paths], found


# What a scorer says


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def classifier(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(1)
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[request.param]
    model = AutoModelForSequenceClassification.from_config(
        config(**{**TINY, "num_labels": 1, "pad_token_id": 0}),
        attn_implementation="onestage_forest",
    )
    return sharpen(model).eval()


def test_packed_rewards_are_those_of_each_text_alone(classifier: Any) -> None:
    draw = np.random.default_rng(0)
    prompts = [draw.integers(2, 400, size=n) for n in (12, 20, 9)]
    records, texts = [], []
    for prompt in prompts:
        record = []
        for answer in range(2):
            ids = np.concatenate([prompt, draw.integers(2, 400, size=3 + 4 * answer)])
            texts.append(ids.tolist())
            # behind the end of the response there may be more, as templates have it
            ids = np.concatenate([ids, [7, 9]]).astype(np.int32)
            number = len(texts) - 1
            record.append(TokenPath(ids, ((len(prompt), len(ids) - 2),), (number,)))
        records.append(record)
    scorer = Policy(classifier)
    assert (scorer.fit.layout, scorer.fit.chunked_head, scorer.gives) == (
        "forest",
        True,
        {"reward"},
    )
    (row,) = pack(records, 1 << 20)
    assert len(row) == sum(map(len, texts)) + 2 * 6 - sum(map(len, prompts))
    with torch.no_grad():
        alone = [float(classifier(input_ids=torch.tensor([ids])).logits) for ids in texts]
        reward_K, response_K = scorer(row), torch.from_numpy(row.tree.response_K)
        last = [int((response_K == n).nonzero()[-1]) for n in range(6)]
        assert reward_K[last].tolist() == pytest.approx(alone, abs=1e-5)
        by_path = torch.cat([scorer.alone(path, chunked=False) for path in row.paths])
    torch.testing.assert_close(reward_K, by_path, atol=1e-5, rtol=0)
    assert max(alone) - min(alone) > 0.05


def test_a_head_that_is_not_plain_is_refused(classifier: Any) -> None:
    class Squashed(type(classifier)):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits.tanh()
            return out

    squashed = Squashed(classifier.config)
    squashed.load_state_dict(classifier.state_dict())
    with pytest.raises(ValueError, match=r"one linear layer named `score`.*Squashed differs"):
        Policy(squashed.eval())
    two = AutoModelForSequenceClassification.from_config(LlamaConfig(**{**TINY, "num_labels": 2}))
    with pytest.raises(ValueError, match="has another head"):
        Policy(two)


@pytest.mark.parametrize(("given", "kept"), [("</s>", "<s>"), ("<pad>", "<pad>")])
def test_padding_is_no_token_in_which_a_response_ends(given: str, kept: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": given})
    assert padding_of(tokenizer) == tokenizer.convert_tokens_to_ids(kept)
    assert padding_of(tokenizer, tokenizer.eos_token_id) == padding_of(tokenizer)


def test_the_end_of_a_turn_is_no_padding_either() -> None:
    tokenizer = make_tokenizer(chat=CHAT.replace("{{ eos_token }}", "<end>"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"], "pad_token": "<end>"})
    assert padding_of(tokenizer) == tokenizer.bos_token_id
    tokenizer.bos_token = "</s>"
    tokenizer.chat_template = CHAT.replace("{{ eos_token }}", "<s>")
    assert tokenizer.convert_ids_to_tokens(padding_of(tokenizer)) == "<end>"
    bare = make_tokenizer(chat=CHAT.replace("{{ eos_token }}", "<s>"))
    with pytest.raises(ValueError, match="give it a pad_token"):
        padding_of(bare)


# Whole runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A reward model from a causal one, trained to prefer the sea; half of its pairs are chats."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    rows = pairs(48, 0)
    rows = rows[:24] + [as_chat(row) for row in rows[24:]]
    recipe = recipe_for(folder, {"name": str(folder / "base")}, rows)
    held = pairs(30, 1)
    file = write_rows(folder / "held.jsonl", held[:15] + [as_chat(row) for row in held[15:]])
    recipe["data"][0]["eval_path"] = str(file)
    recipe["train"]["eval_steps"] = 30
    said: list[str] = []
    session = build(parse_recipe(recipe), folder / "run", say=said.append)
    saved = session.go()
    laws = [line.split(":")[0] for line in said if "holds" in line]
    assert laws == [
        "law 1 policy = reference",
        "law 2 forest = naive",
        "law 4 responses are separate",
        "law 5 beginnings and ends",
    ]
    return session, saved


def test_it_learns_what_is_preferred(trained: tuple[Run, Path]) -> None:
    lines = read_metrics(trained[0].out)
    assert lines[0]["loss"] > 0.3
    last = {name: value for line in lines for name, value in line.items()}
    assert last["eval/pairs/pair/accuracy"] == 1.0
    assert last["eval/pairs/pair/margin"] > 2
    assert last["pairs/accuracy"] == 1.0
    assert last["pairs/chosen_reward"] - last["pairs/rejected_reward"] == pytest.approx(
        last["pairs/margin"], abs=1e-5
    )
    assert not {"pairs/logp", "pairs/log_ratio", "pairs/implicit_reward"} & set(last)


def test_the_saved_folder_says_what_training_said(trained: tuple[Run, Path]) -> None:
    """Law 8, by plain transformers: also in a padded batch, where it finds the last token itself."""
    session, saved = trained
    texts, rewards = rewards_of(session.policy, session)
    torch.testing.assert_close(by_transformers(saved, texts), rewards, atol=1e-5, rtol=0)
    assert rewards.max() - rewards.min() > 2
    model = AutoModelForSequenceClassification.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0 != tokenizer.eos_token_id
    assert model.config.num_labels == 1


def test_as_a_reward_it_says_the_same_of_the_same_text(trained: tuple[Run, Path]) -> None:
    """Plain prompts, and conversations whose template writes more behind the end of a turn."""
    session, saved = trained
    _, rewards = rewards_of(session.policy, session)
    rows = pairs(48, 0)
    answers = []
    for number, row in enumerate(rows):
        for side in ("chosen", "rejected"):
            if number < 24:
                answers.append(Answer(row["prompt"], row[side]))
            else:
                chat = as_chat(row)
                turns = tuple(chat["prompt"])
                answers.append(Answer("<|user|>\n...", chat[side][0]["content"], turns=turns))
    reward = RewardModel(str(saved))
    assert reward(answers) == pytest.approx(rewards.tolist(), abs=1e-5)
    assert reward.text(answers[0]) == rows[0]["prompt"] + rows[0]["chosen"] + "</s>"
    asked, said = answers[-1].turns[0]["content"], answers[-1].completion
    assert reward.text(answers[-1]) == f"<s><|user|>\n{asked}</s>\n<|assistant|>\n{said}</s>"


def test_it_judges_a_policy_that_learns_by_ppo(
    trained: tuple[Run, Path], model_folder: Path, tmp_path: Path
) -> None:
    """RLHF as published, in small: the judge's rewards are those of the sampled texts."""
    problems = [{"prompt": f"write about {word}"} for word in WORDS]
    recipe = recipe_for(
        tmp_path,
        {"name": str(model_folder), "task": "causal"},
        problems,
        objective="ppo",
        rollout={"num_generations": 2, "max_completion_length": 6},
        train={"max_steps": 2, "batch_size": 4, "logging_steps": 1, "learning_rate": 1e-4},
    )
    judge = {"name": "reward_model", "model": str(trained[1])}
    recipe["data"][0] |= {"kind": "check", "reward": judge}
    try:
        go(recipe, tmp_path / "run")
    finally:
        pool.close_shared()
    lines = read_metrics(tmp_path / "run")
    samples = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert samples
    first = json.loads(samples[0])
    again = RewardModel(str(trained[1]))
    answers = [Answer(first["prompt"], text) for text in first["completions"]]
    assert first["rewards"] == pytest.approx(again(answers), abs=1e-3)


def test_every_kind_of_preference_in_one_run(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = recipe_of("pair", "group", "label", "score", objective="bradley_terry")
    recipe["model"]["task"] = "reward"
    recipe["train"] |= {"max_steps": 30, "batch_size": 16}
    recipe["probe"] = {"steps": 30}
    go(recipe, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    last = {name: value for line in lines for name, value in line.items()}
    assert last["pairs/accuracy"] == last["groups/accuracy"] == 1.0
    assert {"labels/label_accuracy", "labels/loss", "scores/loss", "scores/reward"} <= set(last)
    assert last["probe/grad_norm/bradley_terry"] > 0
    assert not [name for name in last if "/kl" in name or name.endswith("logp")]
    told = recipe_of("demonstration", objective="bradley_terry")
    told["model"]["task"] = "reward"
    with pytest.raises(RecipeError, match="bradley_terry cannot use demonstration records"):
        go(told, tmp_path / "none")


class StopAt(Callback):
    """SIGTERM in the middle of a run."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, run: Any, loss: float) -> None:
        if run.step == self.at:
            signal.raise_signal(signal.SIGTERM)


FRESH = {"config": {"model_type": "llama", **TINY}}


@pytest.fixture(params=["whole", "lora"])
def small(request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path: Path) -> Any:
    model = {**FRESH, "tokenizer": str(tokenizer_folder)}
    if request.param == "lora":
        model["lora"] = {"r": 2, "dropout": 0.2}
    train = {"max_steps": 5, "save_steps": 2, "logging_steps": 1, "lr_scheduler_type": "cosine"}
    return recipe_for(tmp_path, model, pairs(12, 2), train=train)


def test_stopped_and_resumed_is_bit_for_bit_the_same(small: dict, tmp_path: Path) -> None:
    whole = go(small, tmp_path / "whole")
    go(small, tmp_path / "cut", callbacks=[StopAt(3)])
    assert not (tmp_path / "cut" / "model").exists()
    cut = go(small, tmp_path / "cut", resume=True)
    (file,) = whole.glob("*.safetensors")
    assert file.read_bytes() == (cut / file.name).read_bytes()
    ends = [read_metrics(tmp_path / name)[-1] for name in ("whole", "cut")]
    assert ends[0]["loss"] == ends[1]["loss"]


def test_an_adapter_and_its_head_come_back(tokenizer_folder: Path, tmp_path: Path) -> None:
    """By PEFT alone, as a reward, and as the start of another run."""
    from peft import AutoPeftModelForSequenceClassification

    model = {**FRESH, "tokenizer": str(tokenizer_folder), "lora": {"r": 4}}
    rows = pairs(24, 0)
    recipe = recipe_for(tmp_path, model, rows, train={"max_steps": 12, "learning_rate": 2e-2})
    session = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    saved = session.go()
    texts, rewards = rewards_of(session.policy, session)
    plain = AutoPeftModelForSequenceClassification.from_pretrained(saved, num_labels=1)
    assert plain.config.pad_token_id == 0  # the start folder is the run's own and has it
    theirs = by_transformers(saved, texts, plain)
    torch.testing.assert_close(theirs, rewards, atol=1e-5, rtol=0)
    answers = [Answer(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    assert RewardModel(str(saved))(answers) == pytest.approx(rewards.tolist(), abs=1e-5)
    assert rewards.std() > 0.1
    for adapter in ("same", "merge"):
        model = {"name": str(saved), "adapter": adapter}
        going_on = recipe_for(tmp_path, model, rows, train={"max_steps": 1})
        again = build(parse_recipe(going_on), tmp_path / adapter, say=lambda line: None)
        torch.testing.assert_close(rewards_of(again.policy, again)[1], rewards, atol=1e-4, rtol=0)
        again.go()


def test_under_half_precision_small_steps_are_not_lost(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    """A step of 1e-6 is far below the last bit of a weight of 0.02 in bfloat16."""
    model = {**FRESH, "tokenizer": str(tokenizer_folder), "lora": {"r": 2}, "dtype": "bfloat16"}
    train = {"max_steps": 2, "learning_rate": 1e-6, "bf16": True}
    recipe = recipe_for(tmp_path, model, pairs(8, 0), train=train)
    session = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    *_, head = session.policy.base.score.parameters()
    before = head.detach().clone()
    saved = session.go()
    assert head.dtype is torch.float32
    assert 1e-7 < float((head - before).abs().max().detach()) < 1e-5
    stored = load_file(saved / "adapter_model.safetensors")["base_model.model.score.weight"]
    assert torch.equal(stored, head.detach())
    texts, rewards = rewards_of(session.policy, session)
    answers = [Answer(row["prompt"], row["chosen"]) for row in pairs(8, 0)]
    again = RewardModel(str(saved))(answers)
    assert again == pytest.approx(rewards[::2].tolist(), abs=0.05)
    assert len(texts) == 16


def test_a_language_models_adapter_is_merged_first(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """SFT with adapters, then a reward model from what that made."""
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=3)
    recipe["model"]["lora"] = {"r": 2}
    adapter = go(recipe, tmp_path / "sft")
    with pytest.raises(ValueError, match=r"has no head for rewards; set model\.adapter: merge"):
        load(Model(name=str(adapter), task="reward"))
    model = {"name": str(adapter), "adapter": "merge", "lora": {"r": 2}}
    start = recipe_for(tmp_path, model, pairs(8, 0), train={"max_steps": 2})
    saved = go(start, tmp_path / "rm")
    assert RewardModel(str(saved))([Answer("write", " sea")])[0] != 0.0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "rm" / "start")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "sft" / "start")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged.state_dict()[name], base.state_dict()[name])


def test_the_published_recipes_in_small(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """reward_model.yaml, then rlhf_ppo.yaml with its reward and an SFT adapter: all but the sizes."""
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=2)
    recipe["model"]["lora"] = {"r": 2}
    sft = go(recipe, tmp_path / "sft")
    rows = [{**row, "chosen_score": 0.9, "rejected_score": 0.4} for row in pairs(8, 0)]
    file = str(write_rows(tmp_path / "pairs.jsonl", rows))
    lora = {"r": 2, "target_modules": "all-linear"}
    base = {"name": str(tmp_path / "sft" / "start"), "dtype": "float32", "lora": lora}
    judge = shrunk("reward_model", base, tmp_path, path=file)
    judge["model"]["chat_template"] = str(RECIPES / "templates" / "mistral.jinja")
    reward = go(judge, tmp_path / "reward")
    line = read_metrics(tmp_path / "reward")[-1]
    gap = line["helpsteer_pairs/chosen_reward"] - line["helpsteer_pairs/rejected_reward"]
    assert line["helpsteer_pairs/margin"] == pytest.approx(gap, abs=1e-5)
    asked = as_chat(pairs(8, 0)[0])["prompt"]
    text = RewardModel(str(reward)).text(Answer("", "good", turns=tuple(asked)))
    assert text == f"<s>[INST] {rows[0]['prompt']} [/INST] good</s>"
    named = {"name": "reward_model", "model": str(reward)}
    ppo = shrunk("rlhf_ppo", {**base, "name": str(sft)}, tmp_path, path=file, reward=named)
    ppo["rollout"] |= {"max_completion_length": 6, "steps_per_generation": 2}
    try:
        assert go(ppo, tmp_path / "ppo").is_dir()
    finally:
        pool.close_shared()
    last = read_metrics(tmp_path / "ppo")[-1]
    assert {"prompts/reward", "prompts/value_loss", "prompts/log_ratio"} <= set(last)


def test_stages_from_a_language_model_to_a_reward_model(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = recipe_of("demonstration", "pair", objective="sft", train__max_steps=2)
    judge = {"model": {"task": "reward"}, "objective": "bradley_terry", "streams": ["pairs"]}
    recipe["stages"] = [
        {"name": "sft", "streams": ["demonstrations"]},
        {"name": "judge", **judge},
    ]
    saved = carry_out(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    assert AutoConfig.from_pretrained(saved).architectures == ["LlamaForSequenceClassification"]
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "1-sft" / "model")
    after = AutoModelForSequenceClassification.from_pretrained(saved)
    name = "model.layers.0.self_attn.q_proj.weight"
    moved = (after.state_dict()[name] - before.state_dict()[name]).abs().max()
    assert 0 < float(moved) < 0.05  # two steps of 1e-2 from where the first stage ended
    recipe["stages"][1]["objective"] = "dpo"
    with pytest.raises(RecipeError, match=r"stages\.judge: objective dpo is about log-prob"):
        carry_out(parse_recipe(recipe), tmp_path / "bad", say=lambda line: None)
    assert not (tmp_path / "bad" / "1-sft").exists()  # before the first stage begins


RECIPES = Path(__file__).parents[2] / "recipes"


def shrunk(name: str, model: dict[str, Any], folder: Path, **stream: Any) -> dict[str, Any]:
    """A recipe of the folder for a tiny model, its other options as they are."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    recipe["model"] |= model
    recipe["data"][0] |= stream
    recipe["cache_dir"] = str(folder / "cache")
    del recipe["train"]["save_steps"]
    recipe["train"].pop("num_train_epochs", None)
    recipe["train"] |= {"max_steps": 2, "batch_size": 4, "max_length": 128, "bf16": False}
    recipe["train"] |= {"tokens_per_row": 256, "logging_steps": 1}
    return recipe


# What does not go together


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"objective": "dpo"}, "objective dpo is about log-probabilities.*are bradley_terry"),
        ({"objective": {"pair": "sft"}}, "objective sft is about log-probabilities"),
        ({"reference": "elsewhere"}, "reference: the loss of a reward model compares with no"),
        ({"probe": {"task_tokens": 64}}, "of its probes only gradients are left"),
        (
            {"probe": {"retention": [{"name": "r", "path": "r.jsonl"}]}},
            "of its probes only gradients are left",
        ),
    ],
)
def test_what_only_a_language_model_has_is_refused(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """Before anything is loaded: there is no such model."""
    recipe = recipe_for(tmp_path, {"name": "no/model"}, pairs(2, 0), **change)
    with pytest.raises(RecipeError, match=told):
        go(recipe, tmp_path / "run")


def test_other_contradictions_are_refused(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, {"name": "no/model", "task": "causal"}, pairs(2, 0))
    with pytest.raises(RecipeError, match=r"bradley_terry is about rewards.* there are .*dpo"):
        go(recipe, tmp_path / "run")
    recipe["model"]["task"] = "reward"
    recipe["data"][0] |= {"kind": "check", "reward": "gsm8k"}
    with pytest.raises(RecipeError, match="a reward model writes no answers"):
        go(recipe, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"remove model\.load_in_4bit"):
        parse_recipe({**recipe, "model": {**recipe["model"], "load_in_4bit": True, "lora": {}}})


def test_models_of_another_sort_are_refused(
    trained: tuple[Run, Path], tokenizer_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"is a classifier .* which writes no text"):
        load(Model(name=str(trained[1])))
    source = Model(name=str(trained[1]))
    with pytest.raises(ValueError, match="writes no text"):  # as `onestage merge` loads models
        load_whole(source, config_of(source))
    recurrent = {"model_type": "mamba", "vocab_size": 400, "hidden_size": 16}
    source = Model(config=recurrent, tokenizer=str(tokenizer_folder), task="reward")
    with pytest.raises(ValueError, match="transformers has none for mamba"):
        load(source)
    masked = {**TINY, "model_type": "bert"}
    del masked["num_key_value_heads"]
    source = Model(config=masked, tokenizer=str(tokenizer_folder), task="reward")
    with pytest.raises(ValueError, match="BertForSequenceClassification has another head"):
        load(source)
    many = AutoModelForSequenceClassification.from_config(LlamaConfig(**{**TINY, "num_labels": 3}))
    many.save_pretrained(tmp_path / "many")
    make_tokenizer().save_pretrained(tmp_path / "many")
    with pytest.raises(ValueError, match="tells 3 labels; a reward model has one"):
        load(Model(name=str(tmp_path / "many"), task="reward"))


# TRL


@pytest.mark.parametrize("centering", [0.0, 0.1])
def test_agrees_with_trl(centering: float, tmp_path: Path) -> None:
    """Five full-batch steps from the same weights on the same ids."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    config = LlamaConfig(**{**TINY, "vocab_size": 401, "num_labels": 1})
    start = sharpen(AutoModelForSequenceClassification.from_config(config), 2.0)
    start.save_pretrained(tmp_path / "base")
    size, rate = 6, 1e-3
    recipe = recipe_for(
        tmp_path,
        {"name": str(tmp_path / "base"), "dtype": "float32"},
        pairs(size, 5),
        objective={"name": "bradley_terry", "centering": centering},
        train={"max_steps": 5, "batch_size": size, "learning_rate": rate, "optim": "adamw_torch"},
    )
    session = build(parse_recipe(recipe), tmp_path / "run", say=lambda line: None)
    run, store = session, session.data.train["pairs"]
    records = [store[number] for number in range(size)]
    ids = [
        {f"{side}_ids": path.ids.tolist() for side, path in zip(SIDES, r.paths, strict=True)}
        for r in records
    ]
    parameters = list(run.policy.parameters())
    ours = []
    run.policy.train()
    for _ in range(5):
        weights = run.schedule.weigh(run.step)
        ours.append(take_step(run, parameters, run.feeds.draw(weights), weights).loss)
        run.step += 1
    texts, rewards = rewards_of(run.policy, session)
    arguments = trl.RewardConfig(
        output_dir=str(tmp_path / "trl"),
        **{"max_steps": 5, "per_device_train_batch_size": size, "learning_rate": rate},
        **{"lr_scheduler_type": "constant", "optim": "adamw_torch", "weight_decay": 0.0},
        **{"max_grad_norm": 1.0, "max_length": 128, "center_rewards_coefficient": centering},
        **{"bf16": False, "use_cpu": True, "gradient_checkpointing": False},
        **{"logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True},
    )
    settled = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    settled.config.pad_token_id = tokenizer.pad_token_id
    trainer = trl.RewardTrainer(
        model=settled,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(ids),
        processing_class=tokenizer,
    )
    trainer.train()
    theirs = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert ours == pytest.approx(theirs, abs=2e-4)  # TRL rounds what it logs
    assert ours[-1] < 0.95 * ours[0]
    with torch.no_grad():
        after = [float(settled.eval()(input_ids=torch.tensor([text])).logits) for text in texts]
    assert rewards.tolist() == pytest.approx(after, abs=1e-3)


SIDES = ("chosen", "rejected")
