"""Forest = naive on real architectures (law 2), and what cannot share prefixes is not made to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from support.tiny import TINY, sharpen, tiny_llama, token_path
from transformers import AutoModelForCausalLM

from onestage.data.packing import pack
from onestage.models import attention
from onestage.models.adapters import adapted
from onestage.models.attention import NAME, block_mask, dense_mask
from onestage.models.head_law import head_difference
from onestage.models.model import Lora
from onestage.models.policy import Fit, Policy
from onestage.models.reference import InitialWeights

SMALL = {key: value for key, value in TINY.items() if key not in ("bos_token_id", "eos_token_id")}
OTHERS = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WINDOW = {"sliding_window": 5}
CONFIGS: dict[str, Any] = {
    "llama": lambda: hf.LlamaConfig(**SMALL),
    "mistral": lambda: hf.MistralConfig(**SMALL, **WINDOW),
    "qwen2": lambda: hf.Qwen2Config(**SMALL),
    "qwen2-window": lambda: hf.Qwen2Config(
        **SMALL, **WINDOW, use_sliding_window=True, max_window_layers=1
    ),
    "qwen3": lambda: hf.Qwen3Config(**SMALL, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**SMALL, **WINDOW, head_dim=8, final_logit_softcapping=5.0),
    "gemma3": lambda: hf.Gemma3TextConfig(**SMALL, **WINDOW, head_dim=8),
    "gpt-neox": lambda: hf.GPTNeoXConfig(
        **OTHERS, intermediate_size=64, bos_token_id=0, eos_token_id=1
    ),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1
    ),
    "phi3": lambda: hf.Phi3Config(
        **SMALL, **WINDOW, pad_token_id=0, bos_token_id=0, eos_token_id=1
    ),
    "mixtral": lambda: hf.MixtralConfig(**SMALL, num_local_experts=2),
    "cohere": lambda: hf.CohereConfig(**SMALL, logit_scale=0.25, bos_token_id=0, eos_token_id=1),
    "granite": lambda: hf.GraniteConfig(**SMALL, logits_scaling=2.0),
}
ALONE: dict[str, Any] = {
    "mamba": lambda: hf.MambaConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=8
    ),
    "falcon-h1": lambda: hf.FalconH1Config(
        **SMALL, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8
    ),
    "lfm2": lambda: hf.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
    "bloom": lambda: hf.BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4),
}


def build(config: Any, attention: str | None = None) -> Any:
    torch.manual_seed(0)
    if attention is None:
        capped = getattr(config, "attn_logit_softcapping", None) is not None
        attention = "eager" if capped else NAME
    return sharpen(AutoModelForCausalLM.from_config(config, attn_implementation=attention)).eval()


def some_records() -> list[list[Any]]:
    """A pair with a shared beginning, a conversation with two turns, a group of three."""
    draw = np.random.default_rng(1)
    prompt, chat = draw.integers(2, 400, 12), draw.integers(2, 400, 20)
    pair = [
        token_path([*prompt, 7, 8, 9, 1], (12, 16), responses=(0,)),
        token_path([*prompt, 7, 5, 1], (12, 15), responses=(1,)),
    ]
    group = [
        token_path([*prompt[:6], *draw.integers(2, 400, 5)], (6, 11), responses=(4 + n,))
        for n in range(3)
    ]
    return [pair, [token_path(chat, (4, 9), (13, 20), responses=(2, 3))], group]


def naive(model: Any, path: Any) -> torch.Tensor:
    """Log-probabilities of a path's scored tokens from the model's own forward pass on it alone."""
    ids = torch.from_numpy(path.ids.astype(np.int64))[None]
    with torch.no_grad():
        logp = torch.log_softmax(model(input_ids=ids).logits[0].float(), -1)
    at = [i for start, end in path.spans for i in range(start, end)]
    return torch.stack([logp[i - 1, ids[0, i]] for i in at])


@pytest.mark.parametrize("call", [attention.CALL, -(1 << 20)], ids=["as it is", "always cut"])
@pytest.mark.parametrize("name", CONFIGS)
def test_forest_equals_naive(name: str, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether trees are run whole or cut into chains."""
    monkeypatch.setattr(attention, "CALL", call)
    model = build(CONFIGS[name]())
    policy = Policy(model)
    assert policy.fit.layout == "forest"
    assert policy.fit.chunked_head
    for budget in (1000, 24):
        for row in pack(some_records(), budget):
            with torch.no_grad():
                mine = policy(row)
            theirs = torch.cat([naive(model, path) for path in row.paths])
            torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("kind", ["sdpa", "eager", NAME])
def test_every_attention_gives_the_same(name: str, kind: str) -> None:
    model = build(CONFIGS[name](), kind)
    (row,) = pack(some_records(), 1000)
    with torch.no_grad():
        mine = Policy(model)(row)
    theirs = torch.cat([naive(model, path) for path in row.paths])
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_share_prefixes_runs_alone_and_is_right(name: str) -> None:
    model = build(ALONE[name](), "eager")
    policy = Policy(model)
    assert policy.fit.layout == "alone"
    assert policy.fit.reason
    (row,) = pack(some_records(), 1000)
    with torch.no_grad():
        mine = policy(row)
    theirs = torch.cat([naive(model, path) for path in row.paths])
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore")
def test_packing_a_hybrid_model_would_be_quietly_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the fall-back exists: forced to pack, Falcon-H1 runs and differs."""
    monkeypatch.setattr("onestage.models.attention.windows", lambda config: {"": None})
    model = build(ALONE["falcon-h1"](), "eager")
    (row,) = pack(some_records(), 1000)
    with torch.no_grad():
        forced = Policy(model, fit=Fit("forest", True))(row)
    theirs = torch.cat([naive(model, path) for path in row.paths])
    assert (forced - theirs).abs().max() > 1e-3


@pytest.mark.parametrize("limit", [16, 512], ids=["some paths are beyond it", "all within"])
def test_positions_that_turn_otherwise_in_long_texts(limit: int) -> None:
    """With `longrope` a path beyond the limit changes the angles of every path in its batch."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": limit}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [1.0, 3.0, 9.0, 27.0]}
    more = {"original_max_position_embeddings": limit, "pad_token_id": 0}
    config = hf.Phi3Config(**SMALL, **more, rope_parameters=rope, bos_token_id=0, eos_token_id=1)
    model = build(config)
    policy = Policy(model)
    assert policy.fit.layout == "forest"
    (row,) = pack(some_records(), 1000)
    assert policy.packs(row) == (limit == 512)
    with torch.no_grad():
        mine = policy(row)
    theirs = torch.cat([naive(model, path) for path in row.paths])
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)


def test_an_unknown_head_keeps_the_models_own_logits() -> None:
    model = build(CONFIGS["llama"]())
    own = type(model).forward

    class Doubling(type(model)):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = own(self, *args, **kwargs)
            out.logits = out.logits * 2
            return out

    model.__class__ = Doubling
    policy = Policy(model)
    assert not policy.fit.chunked_head
    assert policy.fit.layout == "forest"
    (row,) = pack(some_records(), 1000)
    with torch.no_grad():
        mine = policy(row)
    torch.testing.assert_close(
        mine, torch.cat([naive(model, p) for p in row.paths]), rtol=0, atol=2e-5
    )


def test_changing_a_response_changes_no_other() -> None:
    policy = Policy(build(CONFIGS["llama"]()))
    records = some_records()
    (row,) = pack(records, 1000)
    changed = [list(record) for record in records]
    path = records[0][0]
    changed[0][0] = token_path([*path.ids[:-1], 99], *path.spans, responses=path.responses)
    (other,) = pack(changed, 1000)
    with torch.no_grad():
        before, after = policy(row), policy(other)
    others = torch.from_numpy(row.tree.response_K != 0)
    torch.testing.assert_close(before[others], after[others], rtol=0, atol=1e-6)
    assert not torch.allclose(before[~others], after[~others])


@pytest.mark.parametrize("call", [attention.CALL, -(1 << 20)], ids=["as it is", "always cut"])
def test_gradients_equal_those_of_naive_runs(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CALL", call)
    packed, alone = tiny_llama(attention=NAME), tiny_llama(attention="sdpa")
    (row,) = pack(some_records(), 1000)
    weight = torch.randn(len(row.tree.node_K), generator=torch.Generator().manual_seed(0))
    (Policy(packed)(row) * weight).sum().backward()
    logps = []
    for path in row.paths:
        ids = torch.from_numpy(path.ids.astype(np.int64))[None]
        logp = torch.log_softmax(alone(input_ids=ids).logits[0], -1)
        at = torch.tensor([i for start, end in path.spans for i in range(start, end)])
        logps.append(logp[at - 1, ids[0, at]])
    (torch.cat(logps) * weight).sum().backward()
    for (name, mine), (_, theirs) in zip(
        packed.named_parameters(), alone.named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_trees_of_long_branches_are_cut_into_chains() -> None:
    prompt, branch = list(range(2, 202)), 150
    paths = [
        token_path([*prompt, *[300 + n] * branch], (200, 350), responses=(n,)) for n in range(4)
    ]
    short = [token_path([5, 6, 7, 8 + n], (3, 4), responses=(n,)) for n in range(3)]
    row, small = pack([paths], 1000)[0], pack([short], 1000)[0]
    exits = torch.from_numpy(np.ascontiguousarray(row.tree.exit_T)).tolist()
    chains = attention._chains(exits, 0, len(row))
    assert [(a, b, above) for a, b, above in chains] == [
        (0, 200, []),
        *((200 + n * branch, 200 + (n + 1) * branch, [0]) for n in range(4)),
    ]
    assert attention._chains(small.tree.exit_T.tolist(), 0, len(small)) == [(0, len(small), [])]


def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_llama(attention=NAME).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        (row,) = pack(some_records(), 1000)
        policy = Policy(model).train()
        policy(row).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing() -> None:
    model = tiny_llama(attention=NAME)
    (row,) = pack(some_records(), 1000)
    with torch.no_grad():
        torch.testing.assert_close(Policy(model)(row), Policy(model, pad_to=64)(row))


@pytest.mark.parametrize("window", [None, 4])
def test_the_block_mask_is_the_dense_mask(window: int | None) -> None:
    (row,) = pack(some_records(), 1000)
    exit_T, position_T = (torch.from_numpy(x) for x in (row.tree.exit_T, row.tree.position_T))
    dense = dense_mask(exit_T, position_T, window)
    rule = block_mask(exit_T, position_T, window).mask_mod
    index = torch.arange(len(exit_T))
    assert torch.equal(rule(0, 0, index[:, None], index[None, :]), dense[0, 0])


@pytest.mark.parametrize("window", [None, 40, 200])
@pytest.mark.parametrize("padding", [0, 77])
def test_the_blocks_of_a_long_row_are_those_of_torch(window: int | None, padding: int) -> None:
    """Against `create_block_mask`, which asks the rule of every pair: no block that holds a visible
    pair is left out, and only blocks that are seen whole are read without the rule."""
    from torch.nn.attention.flex_attention import create_block_mask

    prompt = list(range(3, 303))
    group = [
        token_path([*prompt, *[400 + n] * (150 + 90 * n)], (300, 450 + 90 * n), responses=(n,))
        for n in range(4)
    ]
    lone = [
        [token_path([size, *range(3, 2 + size)], (size - 2, size))] for size in (260, 128, 40, 700)
    ]
    (row,) = pack([group, *lone], 10_000)
    size = len(row) + padding
    position_T = torch.zeros(size, dtype=torch.long)
    exit_T = torch.arange(1, size + 1)
    position_T[: len(row)] = torch.from_numpy(row.tree.position_T)
    exit_T[: len(row)] = torch.from_numpy(row.tree.exit_T)
    ours = block_mask(exit_T, position_T, window)
    theirs = create_block_mask(ours.mask_mod, None, None, size, size, device="cpu")
    some, whole = block_sets(ours)
    wanted_some, wanted_whole = block_sets(theirs)
    assert some | whole >= wanted_some | wanted_whole
    assert whole <= wanted_whole
    if window is None:
        assert (some, whole) == (wanted_some, wanted_whole)


def block_sets(mask: Any) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Blocks that are read by the rule, and blocks that are read whole: (queries, keys)."""
    found = []
    for counts, indices in (
        (mask.kv_num_blocks, mask.kv_indices),
        (mask.full_kv_num_blocks, mask.full_kv_indices),
    ):
        pairs = enumerate(zip(counts[0, 0].tolist(), indices[0, 0].tolist(), strict=True))
        found.append({(q, k) for q, (count, keys) in pairs for k in keys[:count]})
    return found[0], found[1]


@pytest.mark.parametrize("window", [None, 30])
def test_rows_make_no_mask_of_their_own_size(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of long answers and long demonstrations: what is made is of the size of their parts, and
    the row says what its paths say alone."""
    prompt = list(range(3, 203))
    group = [token_path([*prompt, *[300 + n] * 150], (200, 350), responses=(n,)) for n in range(3)]
    lone = [[token_path([7 + n, *range(3, 131)], (100, 129), responses=(3 + n,))] for n in range(2)]
    (row,) = pack([group, *lone], 10_000)
    config = hf.MistralConfig(**TINY, sliding_window=window)
    model = sharpen(AutoModelForCausalLM.from_config(config, attn_implementation=NAME))
    made: list[int] = []

    def counted(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        made.append(allowed.numel())
        return additive(allowed, dtype)

    additive = attention.additive_mask
    policy = Policy(model.eval())
    assert policy.fit.attention == NAME
    with torch.no_grad():
        alone = torch.cat([policy.alone(path) for path in row.paths])
        monkeypatch.setattr(attention, "additive_mask", counted)
        packed = policy.packed(row)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
    assert sum(made) < len(row) ** 2 / 2


def test_flex_attention_gives_the_same_forward() -> None:
    """The path that CUDA takes; FlexAttention has no backward pass on the CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    (row,) = pack(some_records(), 1000)
    exit_T, position_T = (torch.from_numpy(x) for x in (row.tree.exit_T, row.tree.position_T))
    q, k, v = torch.randn(3, 1, 2, len(exit_T), 8).unbind(0)
    mask = dense_mask(exit_T, position_T, None)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    rule = block_mask(exit_T, position_T, None).mask_mod

    def score(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return torch.where(rule(b, h, i, j), s, float("-inf"))

    with torch.no_grad(), pytest.warns(UserWarning, match=".*"):
        got = flex_attention(q, k, v, score_mod=score)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_fresh_adapter_changes_nothing_and_the_initial_weights_come_back() -> None:
    base = tiny_llama()
    (row,) = pack(some_records(), 1000)
    with torch.no_grad():
        before = Policy(base)(row)
    policy = Policy(adapted(Lora(r=2), base))
    initial = InitialWeights(policy)
    with torch.no_grad():
        torch.testing.assert_close(policy(row), before, rtol=0, atol=0)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        after = policy(row)
        assert not torch.allclose(after, before)
        with initial.in_place() as start:
            torch.testing.assert_close(start(row), before, rtol=0, atol=0)
        torch.testing.assert_close(policy(row), after, rtol=0, atol=0)


def test_the_head_is_exact_where_the_model_is_sure() -> None:
    """Nothing is left of the gradient there but rounding; a law about it must not fail on that."""
    model = tiny_llama()
    path = token_path(range(3, 15), (4, 12))
    ids = torch.from_numpy(path.ids.astype(np.int64))[None]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    assert loss < 1e-2
    values, gradients = head_difference(model, path)
    assert max(values, gradients) < 1e-5
