"""Attention of a row alone: FlexAttention on the forest's mask against FlashAttention on sequences.

Sequences without sharing are the case in which a tree has nothing to give: what the block mask costs
there is what everybody pays. Then a group of answers to one prompt, once as a tree, once repeated.
32 query heads, 8 of keys and values (repeated for FlashAttention where it wants them so), 128 wide,
bfloat16, forward and backward, the making of the masks included.
"""

from __future__ import annotations

import inspect
from typing import Any

from on_gpu import Found, Given, spread, timed


def measure(given: Given) -> Found:
    found = Found(
        "Attention forward and backward, ms (least-most).",
        (
            "row",
            "nodes",
            "forest (flex)",
            "sequences' tokens",
            "FlashAttention varlen",
            "flex / flash",
        ),
    )
    if given.device != "cuda":
        found.notes.append("FlexAttention has no backward pass on the CPU: nothing was timed.")
        return found
    whole = given.of(1024, 16384)
    for size in given.of((256,), (512, 1024, 4096)):
        compare(
            found, f"{whole // size} sequences of {size}", [(size, ())] * (whole // size), given
        )
    for prompt, answer, count in given.of(((128, 128, 3),), ((2048, 1024, 12), (512, 1024, 16))):
        name = f"{count} answers of {answer} behind {prompt}"
        compare(found, name, [(prompt, (answer,) * count)], given)
    return found


def compare(
    found: Found, name: str, trees: list[tuple[int, tuple[int, ...]]], given: Given
) -> None:
    import torch

    exits, positions, lengths = laid_out(trees)
    flex = timed(by_flex(exits, positions), given.of(1, 8))
    flash = timed(by_flash(lengths), given.of(1, 8))
    middle = [sorted(seconds)[len(seconds) // 2] for seconds in (flex, flash)]
    times = (spread(flex, 1e3), sum(lengths), spread(flash, 1e3), middle[0] / middle[1])
    found.add(name, len(exits), *times)
    torch.cuda.empty_cache()


def laid_out(trees: list[tuple[int, tuple[int, ...]]]) -> tuple[list[int], list[int], list[int]]:
    """Exits and positions of a row of prompts with answers, and the lengths of its paths."""
    exits: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    for prompt, answers in trees:
        start = len(exits)
        end = start + prompt + sum(answers)
        exits += [end] * prompt
        positions += range(prompt)
        for answer in answers:
            exits += [len(exits) + answer] * answer
            positions += range(prompt, prompt + answer)
            lengths.append(prompt + answer)
        if not answers:
            lengths.append(prompt)
    return exits, positions, lengths


def drawn(*shape: int) -> Any:
    import torch

    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).requires_grad_()


def by_flex(exits: list[int], positions: list[int]) -> Any:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    from onestage.models.attention import block_mask

    size = len(exits)
    q, k, v = drawn(1, 32, size, 128), drawn(1, 8, size, 128), drawn(1, 8, size, 128)
    exit_T = torch.tensor(exits, device="cuda")
    position_T = torch.tensor(positions, device="cuda")
    compiled = torch.compile(flex_attention, dynamic=True)

    def step() -> None:
        mask = block_mask(exit_T, position_T, None)
        compiled(q, k, v, block_mask=mask, enable_gqa=True).sum().backward()

    return step


def by_flash(lengths: list[int]) -> Any:
    import torch
    from torch.nn.attention.varlen import varlen_attn

    total = sum(lengths)
    q, k, v = drawn(total, 32, 128), drawn(total, 8, 128), drawn(total, 8, 128)
    ends = torch.tensor([0, *lengths], device="cuda").cumsum(0).int()
    known = inspect.signature(varlen_attn).parameters
    causal = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}
    gqa = {"enable_gqa": True} if "enable_gqa" in known else {}

    def step() -> None:
        keys, values = (k, v) if gqa else (x.repeat_interleave(4, dim=1) for x in (k, v))
        varlen_attn(
            *(q, keys, values, ends, ends, max(lengths), max(lengths)), **causal, **gqa
        ).sum().backward()

    return step
