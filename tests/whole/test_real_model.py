"""A real pretrained model through the public pieces; skipped where there is none.

`ONESTAGE_SMOLLM2` names the folder of SmolLM2-135M-Instruct; `.ci/run` fetches it where it can.
"""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import REAL_DATA

import onestage as one

FOLDER = Path(os.environ.get("ONESTAGE_SMOLLM2", "not there"))
PAIRS = REAL_DATA / "hh_harmless_pairs.train.jsonl.gz"

pytestmark = pytest.mark.skipif(not (FOLDER / "config.json").is_file(), reason="no real model")


@pytest.fixture(scope="module")
def policy() -> Any:
    return one.load(FOLDER, dtype="float32")


def test_it_answers_as_plain_transformers_generates(policy: Any) -> None:
    """Greedy, with the model's own chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = [{"role": "user", "content": "What is the capital of France?"}]
    (mine,) = one.complete(policy, [asked], one.Decoding(12, temperature=0))
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    plain = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    ids = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = plain.generate(**ids, max_new_tokens=12, do_sample=False)
    theirs = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert mine.strip() == theirs.strip()
    assert "Paris" in mine


@pytest.mark.skipif(not PAIRS.is_file(), reason="no real data")
def test_a_loop_of_ones_own_on_real_pairs(policy: Any) -> None:
    """The loss starts at ln 2, packed log-probabilities are the model's own, and a step helps."""
    records = itertools.islice(one.read(PAIRS), 3)
    batch = one.pack(one.encode(records, policy.tokenizer, max_length=512), tokens_per_row=1024)
    scored = one.score(policy, batch, reference=policy)
    loss = one.objectives.DPO(beta=0.1)(scored).mean()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    path = batch.rows[0].paths[0]
    ids = torch.from_numpy(path.ids.astype("int64"))[None]
    with torch.no_grad():
        logits = policy.model(ids).logits[0].log_softmax(-1)
    ((start, end), *_) = path.spans
    plain = logits[range(start - 1, end - 1), ids[0, start:end]]
    assert torch.allclose(scored.logp_K[: end - start], plain, atol=1e-3)
    head = policy.model.get_output_embeddings().weight
    (gradient,) = torch.autograd.grad(loss, head)
    with torch.no_grad():
        head -= 0.05 * gradient / gradient.norm()
    after = one.objectives.DPO(beta=0.1)(one.score(policy, batch)).mean()
    before = one.objectives.DPO(beta=0.1)(
        type(scored)(scored.feedback, scored.logp_K, 0 * scored.logp_K, scored.response_K)
    ).mean()
    assert after < before
