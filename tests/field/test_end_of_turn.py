"""A base model that learns ChatML, whose EOS is another token than the end of a turn: it must stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny import TINY, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig

import onestage as one
from bench.trust.conversations import said, user
from bench.trust.families import FAMILIES, with_markers

ASKED = [user("Hello")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    name = "ChatML on a base model (EOS is another token)"
    tokenizer = with_markers(make_tokenizer(), FAMILIES[name])
    config = LlamaConfig(**{**TINY, "vocab_size": len(tokenizer)})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def learn(base: Path, out: Path, **model: Any) -> Path:
    trained = one.train(
        model={"name": str(base), **model},
        data=[{"messages": [*ASKED, said("Paris")]}] * 4,
        objective="sft",
        train={"max_steps": 40, "learning_rate": 0.01, "batch_size": 4, "logging_steps": 40},
        out=out,
        say=lambda line: None,
    )
    return Path(trained.model)


@pytest.mark.parametrize("adapter", [False, True])
def test_plain_generation_stops_at_the_end_of_the_turn(
    base: Path, tmp_path: Path, adapter: bool
) -> None:
    lora = {"lora": {"r": 8, "target_modules": "all-linear"}} if adapter else {}
    folder = learn(base, tmp_path / "out", **lora)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [tokenizer.eos_token_id, end]
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    # An adapter has the settings beside it; its base keeps its own.
    settings = GenerationConfig.from_pretrained(folder)
    made = model.generate(**ids, max_new_tokens=12, do_sample=False, generation_config=settings)
    assert tokenizer.decode(made[0, ids["input_ids"].shape[1] :]) == "Paris<|im_end|>"
    (mine,) = one.complete(one.load(folder), [ASKED], one.Decoding(12, temperature=0))
    assert mine == "Paris"
