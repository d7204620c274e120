"""Architectures of transformers, each by its real class and tiny: how onestage runs it, and how far its
log-probabilities and gradients are from those of plain transformers, one response at a time.

The other side is `AutoModelForCausalLM.from_config(config)`, called on token ids and nothing else.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from bench.trust.templates import bytes_tokenizer
from onestage.data.packing import pack
from onestage.data.trees import TokenPath
from onestage.models.policy import Policy
from onestage.models.weights import given

Options = Mapping[str, Any]
SIZES: Options = {
    **dict.fromkeys("hidden_size n_embd d_model lru_width".split(), 32),
    **dict.fromkeys("intermediate_size ffn_dim ffn_hidden_size decoder_ffn_dim".split(), 64),
    **dict.fromkeys(
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers".split(), 2
    ),
    **dict.fromkeys(
        "num_attention_heads n_head n_heads attention_heads decoder_attention_heads".split(), 4
    ),
    **dict.fromkeys("max_position_embeddings n_positions n_ctx max_seq_len".split(), 512),
    **dict.fromkeys("num_experts n_routed_experts num_local_experts".split(), 4),
    **dict.fromkeys("num_experts_per_tok moe_topk".split(), 2),
    **dict.fromkeys("n_shared_experts n_group topk_group".split(), 1),
    **dict.fromkeys("moe_intermediate_size shared_expert_intermediate_size".split(), 32),
    **dict.fromkeys("q_lora_rank kv_lora_rank".split(), 16),
    **dict.fromkeys("qk_rope_head_dim qk_nope_head_dim v_head_dim".split(), 8),
    **dict.fromkeys("state_size mamba_d_state".split(), 8),
    "num_key_value_heads": 2,
    "sliding_window": 5,
    "rotary_dim": 4,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "attention_window_size": 32,
}
"""What a config is given of these, where it has the name."""
NOTHING: Options = {}
LATENT: Options = {"num_key_value_heads": 4}
HEADS: Options = {"head_dim": 8}
DELTA: Options = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16}
INDEXED: Options = {**LATENT, "index_topk": 8, "index_n_heads": 2, "index_head_dim": 16}
CONVOLUTION: Options = {"layer_types": ["conv", "full_attention"]}
ARCHITECTURES: Mapping[str, Options] = {
    **dict.fromkeys(
        "afmoe apertus arcee bart bert biogpt bitnet bloom codegen cohere ctrl cwm diffllama doge "
        "ernie4_5 ernie4_5_moe exaone4 falcon falcon_h1 falcon_mamba flex_olmo glm glm4 glm4_moe "
        "gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gptj granite granitemoe hyperclovax "
        "internlm3 jetmoe llama llama4_text mamba mbart minimax minimax_m2 ministral3 mistral mixtral "
        "modernbert-decoder mpt nanochat olmo olmo_hybrid olmoe openai-gpt opt persimmon phi "
        "phimoe qwen2 qwen2_moe rwkv seed_oss smollm3 solar_open stablelm starcoder2 trocr "
        "vaultgemma whisper xglm xlm-roberta xlnet".split(),
        NOTHING,
    ),
    **dict.fromkeys("deepseek_v3 glm4_moe_lite minicpm3 youtu".split(), LATENT),
    **dict.fromkeys("deepseek_v32 glm_moe_dsa".split(), INDEXED),
    **dict.fromkeys(
        "cohere2 gemma gemma2 gemma3_text gpt_oss helium hunyuan_v1_dense ministral mimo_v2_flash olmo2 "
        "olmo3 phi3 qwen3 qwen3_moe".split(),
        HEADS,
    ),
    **dict.fromkeys("lfm2 lfm2_moe".split(), CONVOLUTION),
    **dict.fromkeys("qwen3_next qwen3_5_text".split(), DELTA),
    "bamba": {"attn_layer_indices": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {**LATENT, "num_experts_per_tok": 2},
    "gemma4_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "vocab_size_per_layer_input": 400,
        "hidden_size_per_layer_input": 8,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 5},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "nemotron": {"num_key_value_heads": 2},
    "recurrent_gemma": {"num_hidden_layers": 3},
}
"""By transformers' name of the model type: what its config needs beside `SIZES`."""

RANDOM = {"phimoe"}
"""Draws experts at random while it is trained, in transformers as here: compared as it is evaluated."""


@dataclass(frozen=True)
class Found:
    """How an architecture is run, and its largest differences from plain transformers."""

    layout: str
    """forest, alone, or refused."""
    attention: str = ""
    logp: float = 0.0
    """Of a token's log-probability."""
    gradient: float = 0.0
    """Of the whole gradient, relative to its length."""
    why: str = ""


def tiny(name: str) -> Any:
    """A model of that type in the attention that transformers chooses, without dropout, its weights
    large enough for a wrong mask to show."""
    default = CONFIG_MAPPING[name]()
    known = {*default.to_dict(), *getattr(default, "attribute_map", {})}
    sizes = {key: SIZES[key] for key in known & SIZES.keys() if getattr(default, key, None)}
    tokens = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = AutoConfig.for_model(name, **{**sizes, **tokens, **ARCHITECTURES[name]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for module in model.modules():
        for setting, value in list(vars(module).items()):
            if setting == "p" or ("drop" in setting and isinstance(value, float)):
                setattr(module, setting, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
            elif not parameter.any():  # sinks, biases
                parameter.normal_(0, 0.5)
    return model


def records() -> list[list[TokenPath]]:
    """A pair with a shared beginning, a conversation with two turns, a group of three."""
    draw = np.random.default_rng(1)
    prompt, chat, asked = (draw.integers(3, 400, n).astype(np.int32) for n in (12, 20, 6))

    def path(*parts: Any) -> np.ndarray[Any, Any]:
        return np.concatenate([np.asarray(part, np.int32) for part in parts])

    return [
        [
            TokenPath(path(prompt, [7, 8, 9, 1]), ((12, 16),), (0,)),
            TokenPath(path(prompt, [7, 5, 1]), ((12, 15),), (1,)),
        ],
        [TokenPath(chat, ((4, 9), (13, 20)), (2, 3))],
        [TokenPath(path(asked, draw.integers(3, 400, 5)), ((6, 11),), (4 + n,)) for n in range(3)],
    ]


def plainly(model: Any, path: TokenPath) -> Tensor:
    """Log-probabilities of a path's scored tokens from the model's own forward pass on it alone."""
    ids = torch.from_numpy(path.ids.astype(np.int64))
    logp_TV = torch.log_softmax(model(input_ids=ids[None]).logits[0].float(), -1)
    at = torch.tensor([i for start, end in path.spans for i in range(start, end)])
    return logp_TV[at - 1, ids[at]]


def measure(name: str) -> Found:
    """Run an architecture as onestage trains it, beside plain transformers."""
    plain = tiny(name)
    mine = copy.deepcopy(plain)
    try:
        given(mine, bytes_tokenizer())
        policy = Policy(mine)
    except ValueError as error:
        return Found("refused", why=str(error))
    for model in (plain, policy):
        model.train(name not in RANDOM)
    (row,) = pack(records(), 1000)
    logp_K = policy(row)
    theirs_K = torch.cat([plainly(plain, path) for path in row.paths])
    weight_K = torch.randn(len(logp_K), generator=torch.Generator().manual_seed(0))
    slopes = [_gradient(m, (k * weight_K).sum()) for m, k in ((mine, logp_K), (plain, theirs_K))]
    return Found(
        policy.fit.layout,
        mine.config._attn_implementation,
        (logp_K - theirs_K).abs().max().item(),
        ((slopes[0] - slopes[1]).norm() / slopes[1].norm()).item(),
        policy.fit.reason,
    )


def table() -> str:
    """One line an architecture."""
    transformers.logging.set_verbosity_error()
    found = {name: measure(name) for name in sorted(ARCHITECTURES)}
    counts = Counter(one.layout for one in found.values())
    lines = [
        f"{len(found)} architectures of transformers {transformers.__version__}, by their own classes: "
        + ", ".join(f"{counts[kind]} {kind}" for kind in ("forest", "alone", "refused"))
        + "; largest difference of a log-probability "
        f"{max(one.logp for one in found.values()):.1e}, of a gradient "
        f"{max(one.gradient for one in found.values()):.1e} of its length.",
        "",
        "| model type | run as | attention | log-probability | gradient | why not as a forest |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        figures = (
            ("", "") if one.layout == "refused" else (f"{one.logp:.0e}", f"{one.gradient:.0e}")
        )
        why = "" if one.layout == "forest" else one.why.replace("|", "/")
        lines.append(
            f"| {name} | {one.layout} | {one.attention} | {figures[0]} | {figures[1]} | {why} |"
        )
    return "\n".join(lines)


def _gradient(model: Any, of: Tensor) -> Tensor:
    model.zero_grad()
    of.backward()
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return torch.cat([part.flatten() for part in parts])
