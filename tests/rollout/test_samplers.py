"""The transformers engine: against `generate`, against the policy, and as a source of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from support.tiny import TINY, make_tokenizer, sharpen, tiny_llama
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
)

from onestage.data.trees import TokenPath
from onestage.models.attention import NAME
from onestage.models.policy import Policy
from onestage.rollout.complete import complete
from onestage.rollout.engines import Completion, Decoding, Request, _reading, make, names, uniforms
from onestage.rollout.engines._cache import ROOM
from onestage.rollout.engines._tokens import draw, warpers
from onestage.rollout.engines.transformers import Transformers

CONFIGS = {
    "llama": lambda: LlamaConfig(**TINY),
    "qwen2": lambda: Qwen2Config(**TINY),
    "mistral, window 9": lambda: MistralConfig(**TINY, sliding_window=9),
    "gemma3, mixed layers": lambda: Gemma3TextConfig(
        **TINY,
        head_dim=8,
        sliding_window=9,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "falcon-h1, recurrent": lambda: FalconH1Config(
        **TINY,
        **{"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
        **{"mamba_chunk_size": 8, "attention_head_dim": 8},
    ),
    "gpt2": lambda: GPT2Config(
        **{"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
        **{"bos_token_id": 0, "eos_token_id": 1},
    ),
}


def model_of(name: str, seed: int = 0, factor: float = 3.0) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=NAME)
    return sharpen(model, factor).eval()


def likelier_end(model: Any, by: float) -> Any:
    """The model with more weight on EOS, so that completions end at different times."""

    def shift(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[..., 1] += by
        return logits

    model.get_output_embeddings().register_forward_hook(shift)
    return model


def prompts(count: int, seed: int = 0, longest: int = 24) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, longest, size=count)
    return [generator.integers(2, 400, size=n).astype(np.int32) for n in sizes]


def requests_of(count: int, group: int = 1, seed: int = 0) -> list[Request]:
    return [Request(ids, group, f"key{n}") for n, ids in enumerate(prompts(count, seed))]


def generated(model: Any, ids: np.ndarray, length: int, ends: Sequence[int] = (1,)) -> list[int]:
    """What transformers' own greedy generation gives for one prompt alone."""
    row = torch.from_numpy(ids.astype(np.int64))[None]
    out = model.generate(
        **{"input_ids": row, "attention_mask": torch.ones_like(row), "max_new_tokens": length},
        **{"do_sample": False, "pad_token_id": 1, "eos_token_id": list(ends)},
    )
    return out[0, row.shape[1] :].tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_generate(name: str, tokenizer: Any) -> None:
    model = model_of(name)
    how = Decoding(max_completion_length=20, temperature=0)
    requests = requests_of(9, group=2)
    free = [generated(model, request.ids, 20, [1]) for request in requests]
    # The token that ends these at the most different times is made an end of the model.
    end = max(
        {token for ids in free for token in ids},
        key=lambda token: len({ids.index(token) for ids in free if token in ids}),
    )
    model.generation_config.eos_token_id = [1, end]
    found = Transformers(model, tokenizer, batch_size=7)(requests, how)
    lengths = set()
    for request, group in zip(requests, found, strict=True):
        want = generated(model, request.ids, 20, [1, end])
        for one in group:
            assert one.ids.tolist() == want
            assert one.ended == (want[-1] in (1, end))
            lengths.add(len(one.ids))
    assert len(lengths) > 1


def test_greedy_past_the_room_of_a_cache(tokenizer: Any) -> None:
    model, (ids,) = model_of("llama"), prompts(1)
    length = 2 * ROOM + 9
    how = Decoding(max_completion_length=length, temperature=0)
    ((one,),) = Transformers(model, tokenizer)([Request(ids, 1, "")], how)
    assert one.ids.tolist() == generated(model, ids, length)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llama", "gemma3, mixed layers", "falcon-h1, recurrent"])
def test_prompts_of_other_lengths_are_read_apart(
    name: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In passes of little padding; what is said behind each is what is said behind it alone."""
    monkeypatch.setattr(_reading, "MUCH", 20)
    monkeypatch.setattr(_reading, "AT_LEAST", 2)
    model, shapes = model_of(name), list[tuple[int, ...]]()
    sizes = (40, 39, 21, 20, 20, 5)
    requests = [
        Request(np.arange(3, 3 + size, dtype=np.int32), 1 + n % 2, f"{n}")
        for n, size in enumerate(sizes)
    ]
    engine = Transformers(model, tokenizer)
    assert engine._refills
    model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    found = engine(requests, Decoding(max_completion_length=12, temperature=0))
    assert [shape for shape in shapes if shape[1] > 1] == [(2, 40), (3, 21), (1, 5)]
    for request, group in zip(requests, found, strict=True):
        for one in group:
            assert one.ids.tolist() == generated(model, request.ids, 12)


def test_how_prompts_are_cut_into_passes() -> None:
    assert _reading.passes([300] * 8 + [299] * 8) == [16]  # 8 tokens of padding
    # A ninth of 100 tokens makes 200 of 2,700 padding; a tenth would make it 400 of 3,000.
    assert _reading.passes([300] * 8 + [100] * 20 + [90] * 3) == [9, 22]
    sizes = _reading.passes(list(range(400, 100, -3)))
    assert sum(sizes) == 100
    assert min(sizes[:-1]) >= 8


def test_attention_for_packed_rows_is_not_asked_for_single_tokens(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the policy has FlexAttention, which would make a block mask for every token."""
    model, (ids,) = model_of("llama"), prompts(1)
    want = generated(model, ids, 12)
    model.set_attn_implementation("flex_attention")
    asked: list[Any] = []
    monkeypatch.setitem(
        AttentionInterface._global_mapping, "flex_attention", lambda *a, **b: asked.append(a)
    )
    how = Decoding(max_completion_length=12, temperature=0)
    found = Transformers(model, tokenizer, batch_size=2)([Request(ids, 5, "")], how)
    assert [one.ids.tolist() for group in found for one in group] == [want] * 5
    assert not asked
    assert model.config._attn_implementation == "flex_attention"


HOW = [
    Decoding(12),
    Decoding(12, temperature=0),
    Decoding(12, temperature=0.6),
    Decoding(12, temperature=1.7, top_p=0.8),
    Decoding(12, top_k=5, min_p=0.05),
]


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("name", ["llama", "gemma3, mixed layers"])
def test_logp_is_the_policys_at_temperature_1(name: str, how: Decoding, tokenizer: Any) -> None:
    policy = Policy(model_of(name))
    requests = requests_of(4, group=3)
    for request, group in zip(
        requests, Transformers(policy.model, tokenizer)(requests, how), strict=True
    ):
        start = len(request.ids)
        for one in group:
            path = TokenPath(
                np.concatenate([request.ids, one.ids]), ((start, start + len(one.ids)),), (0,)
            )
            with policy.evaluating():
                want = policy.alone(path, chunked=False).numpy()
            np.testing.assert_allclose(one.logp, want, atol=1e-4)


def allowed(logits_V: torch.Tensor, how: Decoding) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (V) after truncation, by the definitions, and which tokens may appear."""
    p_V = torch.softmax(logits_V.double() / how.temperature, -1).numpy()
    order = np.argsort(-p_V, kind="stable")
    keep = np.ones(len(p_V), bool)
    if how.top_k:
        keep[order[how.top_k :]] = False
    if how.top_p < 1:
        before = np.cumsum(p_V[order]) - p_V[order]
        keep[order[before >= how.top_p]] = False
    if how.min_p:
        keep &= p_V >= how.min_p * p_V.max()
    p_V = np.where(keep, p_V, 0.0)
    return p_V / p_V.sum(), keep


@pytest.mark.parametrize(
    "how",
    [
        Decoding(1),
        Decoding(1, temperature=0.5),
        Decoding(1, temperature=2.0),
        Decoding(1, top_k=7),
        Decoding(1, top_p=0.7),
        Decoding(1, min_p=0.1),
        Decoding(1, temperature=1.5, top_p=0.5),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(how: Decoding, tokenizer: Any) -> None:
    model, (ids,), count = model_of("llama", factor=2.0), prompts(1, seed=3), 4000
    with torch.no_grad():
        logits_V = model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0, -1]
    p_V, keep_V = allowed(logits_V, how)
    groups = [Request(ids, count // 8, f"key{n}") for n in range(8)]
    drawn = Transformers(model, tokenizer, batch_size=1000)(groups, how)
    tokens = np.array([one.ids[0] for group in drawn for one in group])
    assert len(tokens) == count
    seen_V = np.bincount(tokens, minlength=len(p_V))
    assert not seen_V[~keep_V].any()
    # Chi-square over tokens expected at least 5 times (the others together), within 5 deviations.
    likely = p_V * count >= 5
    want = np.append(p_V[likely], p_V[~likely].sum()) * count
    got = np.append(seen_V[likely], seen_V[~likely].sum())
    want, got = want[want > 0], got[want > 0]
    freedom = len(want) - 1
    assert freedom > 2
    chi_square = float(((got - want) ** 2 / want).sum())
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def same(one: Completion, other: Completion) -> bool:
    return one.ids.tolist() == other.ids.tolist() and one.ended == other.ended


@settings(max_examples=12, deadline=None)
@given(
    order=st.permutations(range(6)),
    batch_size=st.integers(1, 20),
    some=st.integers(1, 6),
    group=st.integers(1, 4),
)
def test_a_completion_depends_on_its_key_and_number(
    order: list[int], batch_size: int, some: int, group: int
) -> None:
    full = {request.key: drawn for request, drawn in zip(REQUESTS, DRAWN, strict=True)}
    requests = [Request(REQUESTS[n].ids, group, REQUESTS[n].key) for n in order[:some]]
    for request, drawn in zip(requests, sampler(batch_size)(requests, SHORT), strict=True):
        assert len(drawn) == group
        assert all(same(a, b) for a, b in zip(drawn, full[request.key], strict=False))


class OneEnd:
    eos_token_id = 1


SHORT = Decoding(9)
REQUESTS = requests_of(6, group=4)


def sampler(batch_size: int) -> Transformers:
    # weights that are not sharp: a difference of rounding must not decide between two tokens
    return Transformers(likelier_end(model_of("llama", factor=1.0), 4.0), OneEnd(), batch_size)


DRAWN = sampler(64)(REQUESTS, SHORT)


def test_keys_and_numbers_differ() -> None:
    found = {tuple(one.ids.tolist()) for group in DRAWN for one in group if len(one.ids) > 2}
    assert len(found) == sum(len(one.ids) > 2 for group in DRAWN for one in group) > 5
    assert uniforms("a", 0, 5).tolist() == uniforms("a", 0, 3).tolist() + list(
        uniforms("a", 0, 5)[3:]
    )
    assert uniforms("a", 0, 5).tolist() != uniforms("a", 1, 5).tolist()


def test_no_end_and_an_end_at_once(tokenizer: Any) -> None:
    never = likelier_end(model_of("llama"), -1e4)
    at_once = likelier_end(model_of("llama"), 1e4)
    for group in Transformers(never, tokenizer)(requests_of(3, 2), SHORT):
        assert [(len(one.ids), len(one.logp), one.ended) for one in group] == [(9, 9, False)] * 2
    for group in Transformers(at_once, tokenizer)(requests_of(3, 2), SHORT):
        assert [(one.ids.tolist(), one.ended) for one in group] == [([1], True)] * 2


def test_other_ends_of_the_model(tokenizer: Any) -> None:
    model = model_of("llama")
    how = Decoding(12, temperature=0)
    ((one,),) = Transformers(model, tokenizer)(requests_of(1), how)
    model.generation_config.eos_token_id = [1, int(one.ids[3])]
    ((cut,),) = Transformers(model, tokenizer)(requests_of(1), how)
    first = one.ids.tolist().index(one.ids[3])
    assert cut.ended
    assert cut.ids.tolist() == one.ids[: first + 1].tolist()


def test_prompts_are_read_once_and_ended_rows_leave(tokenizer: Any) -> None:
    model = likelier_end(model_of("llama", factor=1.0), 4.0)
    shapes: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    how = Decoding(40)
    requests = requests_of(4, group=16)
    drawn = Transformers(model, tokenizer)(requests, how)
    longest = max(len(request.ids) for request in requests)
    assert shapes[0] == (4, longest)
    lengths = np.array([len(one.ids) for group in drawn for one in group])
    for at, (rows, width) in enumerate(shapes[1:], 1):
        under_way = int((lengths > at).sum())
        assert width == 1
        assert under_way <= rows < under_way / 0.75 + 1
    assert len(shapes) == lengths.max()


@given(st.floats(0, 1, exclude_max=True, width=32), st.integers(0, 5), st.integers(1, 3))
def test_no_token_without_probability(chance: float, first: int, tokens: int) -> None:
    logits = torch.full((1, 9), -torch.inf)
    logits[0, first : first + tokens] = torch.tensor([0.0, -30.0, 3.0])[:tokens]
    how = Decoding()
    token, logp = draw(logits, torch.tensor([chance]), how, warpers(how))
    assert first <= int(token) < first + tokens
    assert logp.isfinite().all()


def test_a_model_in_training_stays_so_and_dropout_is_off(tokenizer: Any) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**TINY, attention_dropout=0.5)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME).train()
    engine = Transformers(model, tokenizer)
    first, second = (engine(requests_of(3, 2), SHORT) for _ in range(2))
    assert model.training
    for one, other in zip(first, second, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_this_sort_of_cache_is_refused(tokenizer: Any) -> None:
    sizes = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    with pytest.raises(ValueError, match="MambaForCausalLM takes no past_key_values"):
        Transformers(AutoModelForCausalLM.from_config(MambaConfig(**sizes)), tokenizer)


def test_options_and_prompts_are_checked(tokenizer: Any) -> None:
    assert "transformers" in names()
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        make({"name": "transformers", "batch_size": 0}, tiny_llama(), tokenizer)
    with pytest.raises(ValueError, match="batch_size"):
        make({"name": "transformers", "batch_sise": 2}, tiny_llama(), tokenizer)
    engine = make("transformers", tiny_llama(), tokenizer)
    with pytest.raises(ValueError, match="without any token"):
        engine([Request(np.zeros(0, np.int32), 1, "")], SHORT)


def test_an_adapter_folder_as_transformers_itself_loads_it(
    tokenizer: Any, model_folder: Path, tmp_path: Path
) -> None:
    """Its layers are inside a plain model then, not in one of PEFT's."""
    whole = AutoModelForCausalLM.from_pretrained(model_folder)
    adapted = get_peft_model(whole, LoraConfig(r=2, target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    adapted.save_pretrained(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    how = Decoding(8, temperature=0)
    requests = [Request(np.arange(5, dtype=np.int32), 1, "a")]
    drawn = [Transformers(model, tokenizer)(requests, how)[0][0].ids for model in (adapted, plain)]
    assert list(drawn[0]) == list(drawn[1])


def test_completions_of_prompts_as_text(tokenizer: Any) -> None:
    model = model_of("llama")
    policy = Policy(model, tokenizer)
    prompts: list[Any] = ["a b", [{"role": "user", "content": "a"}], "a b"]
    how = Decoding(8)
    found = complete(policy, prompts, how, seed=3)
    assert found == complete(Policy(model), prompts, how, tokenizer, 3, batch_size=1)
    assert [type(text) for text in found] == [str] * 3
    assert complete(policy, prompts[:1], how, seed=3) == found[:1]
    with pytest.raises(ValueError, match="a list of prompts, got one text: 'a b'"):
        complete(policy, "a b", how)
    with pytest.raises(ValueError, match="no tokenizer of its own"):
        complete(Policy(model), prompts)


def test_engines_by_class() -> None:
    import onestage.rollout.engines as engines

    assert engines.Transformers is Transformers
    assert {"Transformers", "Vllm", "Engine", "Decoding"} <= set(dir(engines))
    with pytest.raises(AttributeError, match="no attribute 'Tranformers'"):
        _ = engines.Tranformers


def test_a_completion_ends_behind_a_text_at_which_it_may(tokenizer: Any) -> None:
    """The same tokens, up to the first of them with which the text is there; others go on."""
    engine = Transformers(sharpen(tiny_llama()), tokenizer, batch_size=3)
    requests = [Request(np.array([0, n + 5], np.int32), 1, str(n)) for n in range(6)]
    free = [one for (one,) in engine(requests, Decoding(24))]
    texts = [tokenizer.decode(one.ids) for one in free]
    stop = texts[0][len(texts[0]) // 2 :][:2]
    ended = [one for (one,) in engine(requests, Decoding(24, stop=(stop, "never said")))]
    for whole, short, text in zip(free, ended, texts, strict=True):
        assert short.ids.tolist() == whole.ids[: len(short.ids)].tolist()
        said = tokenizer.decode(short.ids)
        assert (stop in said) == (stop in text)
        assert stop not in tokenizer.decode(short.ids[:-1])
    assert len(ended[0].ids) < len(free[0].ids)


@pytest.mark.parametrize("learned", [False, True])
def test_prompts_without_room_for_an_answer_are_told_or_refused(learned: bool) -> None:
    """Positions that are computed go on behind those the model was made for; learned ones end."""
    model: Any = tiny_llama()
    if learned:
        shape = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 64, "vocab_size": 400}
        model = AutoModelForCausalLM.from_config(GPT2Config(**shape)).eval()
    model.config.max_position_embeddings = 64
    asked, how = ["a", "one two three four five six seven"], Decoding(58, temperature=0)
    policy = Policy(model, tokenizer=make_tokenizer(chat=None))
    told = "1 of 2 prompts have no room for 58 more tokens in the 64 positions"
    if learned:
        with pytest.raises(ValueError, match=f"{told}.*it has no other"):
            complete(policy, asked, how)
    else:
        with pytest.warns(UserWarning, match=told):
            complete(policy, asked, how)
