"""Places of a batch that are given to the next prompts: who fills them, and which models take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.refilling import EVERYWHERE, OF_WINDOWS
from support.tiny import TINY, sharpen
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Lfm2Config, LlamaConfig

from onestage.models.attention import NAME
from onestage.rollout.engines import Decoding, Request, _cache
from onestage.rollout.engines._refilling import trouble
from onestage.rollout.engines.transformers import Transformers

SIZE, LONGEST, END = 8, 40, 1
ENDS = SimpleNamespace(eos_token_id=END)


def ending(counts: Sequence[int]) -> tuple[Any, list[Request]]:
    """A model whose k-th prompt, told by its last token, is completed in `counts[k]` tokens: each token
    says the next one, and one says the end."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY), attn_implementation=NAME).eval()

    def say(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        token = seen[-1][:, -logits.shape[1] :]
        following = torch.where(token == 2, END, token - 1).clamp(min=0)
        return torch.nn.functional.one_hot(following, logits.shape[-1]).float() * 100

    seen: list[torch.Tensor] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    model.get_output_embeddings().register_forward_hook(say)
    model.passes = seen
    prompts = [
        np.array([399] * (1 + k % 5) + [count + 1], np.int32) for k, count in enumerate(counts)
    ]
    return model, [Request(ids, 1, f"key{k}") for k, ids in enumerate(prompts)]


def test_a_place_goes_to_the_next_prompt_at_once() -> None:
    counts = np.minimum(np.random.default_rng(0).geometric(0.12, size=60), LONGEST)
    model, requests = ending([int(n) for n in counts])
    engine = Transformers(model, ENDS, SIZE)
    assert engine._refills
    model.passes.clear()
    found = engine(requests, Decoding(LONGEST, temperature=0))
    assert [len(one.ids) for (one,) in found] == counts.tolist()
    assert [one.ids.tolist() for (one,) in found] == [list(range(n, 0, -1)) for n in counts]
    steps = [ids for ids in model.passes if ids.shape[1] == 1]
    # The first token of each comes from its prompt. Full batches need at least this many passes, and the
    # last row some more; batches that all end first would need twice that.
    least = -(-(counts - 1).sum() // SIZE)
    assert least <= len(steps) <= least + LONGEST
    assert max(len(ids) for ids in model.passes) == SIZE


def test_a_prompt_is_read_once_for_all_its_completions() -> None:
    model, requests = ending([9, 3, 5, 7, 2, 8])
    group = [Request(one.ids, 5, one.key) for one in requests]
    engine = Transformers(model, ENDS, SIZE)
    assert engine._refills
    model.passes.clear()
    found = engine(group, Decoding(LONGEST, temperature=0))
    assert [[len(one.ids) for one in each] for each in found] == [
        [n] * 5 for n in (9, 3, 5, 7, 2, 8)
    ]
    last = [int(one.ids[-1]) for one in requests]
    begun = [token for ids in model.passes for token in ids[:, -1].tolist() if ids.shape[1] > 1]
    assert sorted(begun) == sorted(last)


def test_a_prompt_read_beside_a_longer_one_may_come_when_that_is_gone() -> None:
    """Its padding is wider than all that is under way then: 13 columns, where 3 + 7 tokens are left."""
    model, _ = ending([1])
    of = {"filler": (15, 2, 1), "old": (15, 6, 1), "long": (13, 3, 1), "short": (3, 8, 8)}
    names = ["filler"] * 3 + ["old", "long", "short"]
    requests = [
        Request(np.array([399] * (of[n][0] - 1) + [of[n][1] + 1], np.int32), of[n][2], n)
        for n in names
    ]
    engine = Transformers(model, ENDS, 4)
    assert engine._refills
    found = engine(requests, Decoding(LONGEST, temperature=0))
    for name, each in zip(names, found, strict=True):
        _, length, count = of[name]
        assert [one.ids.tolist() for one in each] == [list(range(length, 0, -1))] * count


MIXED = {
    **{"head_dim": 8, "sliding_window": 9},
    "layer_types": ["sliding_attention", "full_attention"],
}


CONFIGS: dict[str, tuple[Callable[[], Any], int]] = {
    "conv": (lambda: Lfm2Config(**TINY, layer_types=["conv", "full_attention"]), 25),
    "gemma3": (lambda: Gemma3TextConfig(**TINY, **MIXED), 25),
    "llama": (lambda: LlamaConfig(**TINY), 90),  # past the room of a cache
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_past_many_refills(name: str, tokenizer: Any) -> None:
    make, longest = CONFIGS[name]
    torch.manual_seed(1)
    model = sharpen(AutoModelForCausalLM.from_config(make(), attn_implementation=NAME)).eval()
    draw = np.random.default_rng(2)
    ids = [draw.integers(2, 400, int(draw.integers(1, 30))).astype(np.int32) for _ in range(12)]
    requests, how = [Request(one, 1, "") for one in ids], Decoding(longest, temperature=0)
    free = [drawn.ids.tolist() for (drawn,) in Transformers(model, tokenizer)(requests, how)]
    # The token that ends these at the most different times is made an end of the model.
    end = max(
        {token for one in free for token in one},
        key=lambda token: len({one.index(token) for one in free if token in one}),
    )
    model.generation_config.eos_token_id = [1, end]
    engine = Transformers(model, tokenizer, 3)
    assert engine._refills
    found = engine(requests, how)
    assert len({len(drawn.ids) for (drawn,) in found}) > 1
    for one, (drawn,) in zip(ids, found, strict=True):
        row = torch.from_numpy(one.astype(np.int64))[None]
        want = model.generate(
            **{"input_ids": row, "attention_mask": torch.ones_like(row), "max_new_tokens": longest},
            **{"do_sample": False, "pad_token_id": 1},
        )
        assert drawn.ids.tolist() == want[0, row.shape[1] :].tolist()


FAULTS = [("llama", name) for name in EVERYWHERE] + [("gemma3", name) for name in OF_WINDOWS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("model", "fault"), FAULTS)
def test_each_fault_is_refused(
    model: str, fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LlamaConfig(**TINY) if model == "llama" else Gemma3TextConfig(**TINY, **MIXED)
    torch.manual_seed(0)
    tried = AutoModelForCausalLM.from_config(config, attn_implementation=NAME, dtype=dtype)
    sharpen(tried, 3.0)
    assert trouble(tried) == ""
    where, name, wrong = {**EVERYWHERE, **OF_WINDOWS}[fault]
    monkeypatch.setattr(where, name, wrong)
    assert trouble(tried).startswith("a row that was replaced is ")


def test_a_model_that_is_refused_samples_batch_after_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*EVERYWHERE["one column left"])
    counts = [9, 3, 5, 7, 2, 8]
    model, requests = ending(counts)
    engine = Transformers(model, ENDS, 2)
    assert not engine.remarks
    found = engine(requests[:2], Decoding(LONGEST, temperature=0))
    assert not engine.remarks  # nobody waits, so it is not asked
    found = engine(requests, Decoding(LONGEST, temperature=0))
    assert [len(one.ids) for (one,) in found] == counts
    (remark,) = engine.remarks
    assert remark.startswith(
        "sampling: all completions of a batch end before the next begins, since a row that was replaced"
    )


def test_what_cannot_be_tried_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY), attn_implementation=NAME)
    with monkeypatch.context() as patched:
        patched.setattr(_cache, "REPLACEABLE", set())
        assert trouble(model).endswith("layers whose rows cannot be replaced (RoomyLayer)")
    with monkeypatch.context() as patched:
        patched.setattr(model, "hf_quantizer", "some", raising=False)
        assert trouble(model) == "its first layers cannot be copied to try it"
    long = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model.config.rope_parameters = long
    assert trouble(model) == "its positions turn by other angles beside a long text"
