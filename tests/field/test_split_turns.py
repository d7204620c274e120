"""Conversations whose turns are rendered in different contexts, through whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import TINY, make_tokenizer, sharpen
from transformers import AutoModelForCausalLM, LlamaConfig

import onestage as one
from bench.trust.conversations import said, user
from bench.trust.families import FAMILIES, with_markers

TURNS = [
    user("Two and two?"),
    said("four", reasoning_content="one two"),
    user("Three and three?"),
    said("six", reasoning_content="one"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinking")
    name = "thinking dropped from history, thinking prompt"
    tokenizer = with_markers(make_tokenizer(), FAMILIES[name])
    torch.manual_seed(0)
    config = LlamaConfig(**{**TINY, "vocab_size": len(tokenizer)})
    sharpen(AutoModelForCausalLM.from_config(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ROWS: dict[str, list[dict[str, Any]]] = {
    "demonstration": [{"messages": TURNS}],
    "score": [{"prompt": TURNS[:1], "completion": TURNS[1:], "score": 0.8}],
    "pair": [{"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [said("five")]}],
}


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_trains_and_all_laws_hold(folder: Path, tmp_path: Path, kind: str) -> None:
    lines: list[str] = []
    one.train(
        model={"name": str(folder)},
        data={"chat": [*ROWS[kind], {**ROWS[kind][0], "id": "again"}]},
        objective="uft",
        train={"max_steps": 2, "batch_size": 2},
        out=tmp_path / "out",
        say=lines.append,
    )
    assert sum(line.startswith("law") and "holds" in line for line in lines) == 5


def test_log_probabilities_are_those_of_each_turn_in_its_own_context(folder: Path) -> None:
    """Against plain transformers, on the texts that the template makes turn by turn."""
    policy = one.load(folder)
    tokenizer: Any = policy.tokenizer
    batch = one.pack(one.encode(one.read(ROWS["demonstration"]), tokenizer))
    scored = one.score(policy, batch)
    for number in (1, 3):
        asked, whole = (
            tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=prompt)
            for turns, prompt in ((TURNS[:number], True), (TURNS[: number + 1], False))
        )
        asked, whole = (x["input_ids"] if hasattr(x, "keys") else x for x in (asked, whole))
        end = len(whole) - whole[::-1].index(tokenizer.convert_tokens_to_ids("<|im_end|>"))
        ids = torch.tensor(whole[:end])[None]
        with torch.no_grad():
            logp = policy.model(input_ids=ids).logits[0].log_softmax(-1)
        told = logp[len(asked) - 1 : end - 1].gather(1, ids[0, len(asked) : end, None])[:, 0]
        mine = scored.logp_K[scored.response_K == number // 2]
        torch.testing.assert_close(mine, told, atol=1e-4, rtol=0)


def test_weights_of_turns_and_of_rows_multiply(folder: Path) -> None:
    """A turn of weight 1/2 in a row of weight 3 counts 3/2, also in the token mean of SFT."""
    policy = one.load(folder)
    rows = [{"messages": [TURNS[0], said("four", weight=0.5), *TURNS[2:]], "weight": 3}]
    scored = one.score(policy, one.pack(one.encode(one.read(rows), policy.tokenizer)))
    assert scored.feedback.weight_N.tolist() == [1.5, 3.0]
    weight_K = scored.feedback.weight_N[scored.response_K]
    by_hand = -(weight_K * scored.logp_K).sum() / weight_K.sum()
    assert one.objectives.SFT()(scored).mean().item() == pytest.approx(by_hand.item())
