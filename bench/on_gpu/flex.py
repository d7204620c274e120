"""How often FlexAttention is compiled in a run of many lengths, and what a new length costs.

Rows of 30 lengths go forward and backward through a small Llama, with an evaluation (no gradients)
between them, as training does it. A fall back to FlexAttention without compilation would hold all
scores: memory that grows with the square of the row says so.
"""

from __future__ import annotations

from typing import Any

from on_gpu import Found, Given, folder_of, fresh, llama, peak_gib, waited
from on_gpu.laws import weights


def measure(given: Given) -> Found:
    import numpy as np
    import torch

    from onestage import models
    from onestage.data.packing import pack
    from onestage.data.trees import TokenPath
    from onestage.models.model import Model
    from onestage.models.policy import Policy

    shape = {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 1024, "head_dim": 64}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    config = llama(given) if given.tiny else llama(given, **shape, **heads)
    section = Model(name=str(folder_of(given, "flex", config)), dtype="bfloat16")
    loaded = models.load(section, given.device, models.tokenizer_of(section), 0)
    began, before = waited(), graphs()
    policy = Policy(loaded.model, loaded.tokenizer)
    probing = waited() - began
    found = Found(
        "Rows of 30 lengths, forward and backward, an evaluation after each: seconds where something "
        "was compiled, else milliseconds.",
        ("what", "value"),
    )
    found.add("probe of the model (s)", probing)
    draw = np.random.default_rng(1)

    def row_of(size: int) -> Any:
        prompt = draw.integers(5, 900, size // 3).astype(np.int32)
        ends = [draw.integers(5, 900, size // 3).astype(np.int32) for _ in range(2)]
        paths = [
            TokenPath(np.concatenate([prompt, end]), ((len(prompt), len(prompt) + len(end)),), (n,))
            for n, end in enumerate(ends)
        ]
        return pack([paths], 1 << 20)[0]

    lengths = given.of([60, 90], [300 + 251 * n for n in range(30)])
    seconds, compiled = [], []
    policy.train()
    for size in lengths:
        row, at, began = row_of(size), graphs(), waited()
        logp_K = policy.look(row)["logp"]
        (logp_K * weights(len(logp_K), logp_K.device)).sum().backward()
        with policy.evaluating():
            policy.look(row)
        seconds.append(waited() - began)
        compiled.append(graphs() - at)
    slow = [s for s, n in zip(seconds, compiled, strict=True) if n]
    quick = [s for s, n in zip(seconds, compiled, strict=True) if not n]
    found.rows += [
        ("graphs compiled by the probe", sum([graphs() - before - sum(compiled)])),
        ("graphs compiled by the 30 lengths", sum(compiled)),
        ("lengths at which something was compiled", str([n for n, c in enumerate(compiled) if c])),
        ("seconds of these", str([round(s, 2) for s in slow])),
        (
            "ms of the others: least, most",
            f"{1e3 * min(quick, default=0):.1f}, {1e3 * max(quick, default=0):.1f}",
        ),
    ]
    found.notes += growth(policy, row_of, given)
    late = [n for n, count in enumerate(compiled) if count and n > 3]
    found.require(given.tiny or not late, f"something was compiled at lengths number {late}")
    del loaded, policy
    fresh()
    torch.compiler.reset()
    return found


def growth(policy: Any, row_of: Any, given: Given) -> list[str]:
    """Memory of one row and of one twice as long."""
    peaks = []
    for size in given.of((30, 60), (4096, 8192)):
        row = row_of(size)
        policy.zero_grad(set_to_none=True)
        fresh()
        before = peak_gib()
        policy.look(row)["logp"].sum().backward()
        peaks.append(peak_gib() - before)
    return [f"GiB of a row of 4,096 and of 8,192 nodes: {peaks[0]:.2f} and {peaks[1]:.2f}."]


def graphs() -> int:
    """Graphs that were compiled in this process so far."""
    import torch

    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
