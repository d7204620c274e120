"""Packed rows against plain transformers, values and gradients, by family and precision.

The yardstick is the same folder loaded by transformers alone in float32 with scaled-dot-product (or
eager) attention, each path by itself, gradients of the same weighted sum of log-probabilities. In
bfloat16 ours may be as far from it as transformers' own bfloat16 is, and half as far again.
"""

from __future__ import annotations

from typing import Any

from on_gpu import Found, Given, folder_of, fresh, llama


def measure(given: Given) -> Found:
    """A row for each family and precision."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    columns = (
        "family",
        "precision",
        "runs as",
        "values apart",
        "gradients apart",
        "theirs",
        "holds",
    )
    found = Found(
        "A row of a group behind a shared prompt, pairs and demonstrations, some 1,700 nodes: largest "
        "difference of a log-probability and relative distance of the gradient from transformers in "
        "float32, path by path; theirs: of transformers in that precision.",
        columns,
    )
    for name, config in families(given).items():
        folder = folder_of(given, f"laws-{name}", config)
        yard = by_transformers(folder, torch.float32, given)
        for dtype in (torch.float32, torch.bfloat16):
            theirs = apart(by_transformers(folder, dtype, given), yard)
            fit, ours = by_us(folder, dtype, given)
            gap = apart(ours, yard)
            half = dtype == torch.bfloat16
            holds = fit.layout == "forest" and gap[1] <= (1.5 * theirs[1] if half else 1e-3)
            runs = f"{fit.layout}, {fit.attention}" + (f" ({fit.reason})" if fit.reason else "")
            told = found.require(holds, f"{name} in {dtype}: {runs}, gradient {gap[1]:.2g} apart")
            row = (name, str(dtype).removeprefix("torch."), runs, gap[0], gap[1], theirs[1], told)
            found.add(*row)
            fresh()
    return found


def families(given: Given) -> dict[str, Any]:
    from transformers import Gemma3TextConfig, MistralConfig, Qwen3Config

    small = {
        **{"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 64},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.06},
    }
    shape = llama(given, **small)
    keys = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
    same = {**small, **{key: getattr(shape, key) for key in keys}}
    return {
        "llama": shape,
        "qwen3": Qwen3Config(**same),
        "mistral, window 100": MistralConfig(**same, sliding_window=100),
        "gemma3, window 100": Gemma3TextConfig(
            **same,
            sliding_window=100,
            query_pre_attn_scalar=64,
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
    }


def some_row(given: Given) -> Any:
    """A group of four long answers, pairs, demonstrations: no multiple of 128 in all."""
    import numpy as np

    from onestage.data.packing import pack
    from onestage.data.trees import TokenPath

    draw = np.random.default_rng(0)

    def ids(size: int) -> Any:
        return draw.integers(5, 900, size).astype(np.int32)

    def records() -> Any:
        number = 0
        for prompt, answers in given.of(((20, (9, 5)),), SHAPES):
            begin = ids(prompt)
            paths = []
            for size in answers:
                span = ((prompt, prompt + size),)
                paths.append(TokenPath(np.concatenate([begin, ids(size)]), span, (number,)))
                number += 1
            yield paths

    (row,) = pack([*records()], 1 << 20)
    return row


SHAPES = ((300, (150, 231, 77, 180)), (61, (40, 55)), (17, (120, 33)), (90, (161,)), (5, (130,)))


def weights(size: int, device: Any) -> Any:
    import torch

    return torch.linspace(-1, 1, size, device=device) + 0.3


def by_us(folder: Any, dtype: Any, given: Given) -> Any:
    """How it is run, and values and gradients of the packed row."""
    from onestage import models
    from onestage.models.model import Model
    from onestage.models.policy import Policy

    section = Model(name=str(folder), dtype=str(dtype).removeprefix("torch."))
    tokenizer = models.tokenizer_of(section)
    loaded = models.load(section, given.device, tokenizer, 0)
    policy = Policy(loaded.model, loaded.tokenizer)
    policy.train()
    row = some_row(given)
    logp_K = policy.look(row)["logp"]
    (logp_K * weights(len(logp_K), logp_K.device)).sum().backward()
    return policy.fit, (logp_K.detach(), gradient(policy.model))


def by_transformers(folder: Any, dtype: Any, given: Given) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(given.device)
    row, parts = some_row(given), []
    for path in row.paths:
        ids = torch.from_numpy(path.ids).long().to(given.device)
        logp_TV = model(input_ids=ids[None]).logits[0].float().log_softmax(-1)
        ((start, end),) = path.spans
        parts.append(logp_TV[start - 1 : end - 1].gather(1, ids[start:end, None])[:, 0])
    logp_K = torch.cat(parts)
    (logp_K * weights(len(logp_K), logp_K.device)).sum().backward()
    return logp_K.detach(), gradient(model)


def gradient(model: Any) -> Any:
    import torch

    return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])


def apart(one: Any, other: Any) -> tuple[float, float]:
    """Largest difference of the values, relative distance of the gradients."""
    values = (one[0] - other[0]).abs().max().item()
    return values, ((one[1] - other[1]).norm() / other[1].norm()).item()
