"""Whole distributions: of a forest row as of each path alone, by plain transformers and full logits."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from support.tiny import make_tokenizer, tiny_llama, token_path
from torch import Tensor

from onestage import objectives
from onestage.data.packing import pack
from onestage.models.beside import Beside
from onestage.models.distributions import DIVERGENCES, TOP, Head, divergences, top_entropy
from onestage.models.head import Shape
from onestage.models.policy import Policy
from onestage.models.reference import InitialWeights

IDS = [[0, 5, 17, 33, 8, 1], [0, 5, 17, 40, 41, 42, 1]]
"""Two answers to one prompt of three tokens, of which the forest has one."""
PATHS = [token_path(ids, (3, len(ids)), responses=(n,)) for n, ids in enumerate(IDS)]
(ROW,) = pack([PATHS], 64)


def naive(now: Tensor, old: Tensor) -> dict[str, Tensor]:
    """By torch's own `kl_div`, of logits."""
    p, q = now.log_softmax(-1), old.log_softmax(-1)
    middle = ((p.exp() + q.exp()) / 2).log()

    def kl(of: Tensor, by: Tensor) -> Tensor:
        return torch.nn.functional.kl_div(by, of, reduction="none", log_target=True).sum(-1)

    return {
        "forward_kl": kl(q, p),
        "reverse_kl": kl(p, q),
        "js": (kl(p, middle) + kl(q, middle)) / 2,
    }


def plain_logits(model: object) -> Tensor:
    """Of the scored tokens, each path in a forward pass of its own."""
    parts = [model(torch.tensor([ids])).logits[0, 2:-1] for ids in IDS]  # type: ignore[operator]
    return torch.cat(parts)


def test_the_objectives_speak_of_the_same() -> None:
    assert set(DIVERGENCES) == objectives.DIVERGENCES
    assert TOP == objectives.TOP


@pytest.mark.parametrize("layout", ["forest", "alone"])
def test_two_models_row_by_row(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients against plain transformers; the second model gets none."""
    policy = Policy(tiny_llama(0), make_tokenizer())
    other = Policy(tiny_llama(1), make_tokenizer())
    policy.beside = Beside(lambda: nullcontext(other))
    if layout == "alone":
        monkeypatch.setattr(Policy, "packs", lambda self, row, reads=(): False)
    assert policy.packs(ROW) == (layout == "forest")
    said = policy.look(ROW, ["logp", *DIVERGENCES])
    want = naive(plain_logits(policy.model), plain_logits(other.model).detach())
    weight = policy.model.model.layers[0].mlp.up_proj.weight
    for name in DIVERGENCES:
        torch.testing.assert_close(said[name], want[name], rtol=1e-4, atol=1e-5)
        (found,) = torch.autograd.grad(said[name].sum(), weight, retain_graph=True)
        (naively,) = torch.autograd.grad(want[name].sum(), weight, retain_graph=True)
        torch.testing.assert_close(
            found, naively, rtol=1e-3, atol=1e-5 * float(naively.abs().max())
        )
    assert all(p.grad is None for p in other.parameters())


def test_against_its_own_first_weights() -> None:
    """They are back afterwards, bit for bit, and the graph is of the trained ones."""
    policy = Policy(tiny_llama(0), make_tokenizer())
    policy.beside = Beside(InitialWeights(policy).in_place)
    zero = policy.look(ROW, DIVERGENCES)
    assert all(bool((zero[name].abs() < 1e-5).all()) for name in DIVERGENCES)
    before = plain_logits(policy.model).detach()
    policy.train()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    now = [p.detach().clone() for p in policy.model.parameters()]
    said = policy.look(ROW, DIVERGENCES)
    assert policy.training
    want = naive(plain_logits(policy.model), before)
    for name in DIVERGENCES:
        torch.testing.assert_close(said[name], want[name], rtol=1e-3, atol=1e-5)
    said["js"].sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(now, policy.model.parameters(), strict=True))
    assert policy.model.model.layers[0].mlp.up_proj.weight.grad is not None


@pytest.mark.parametrize("shape", [Shape(), Shape(scale=0.5), Shape(softcap=3.0)])
def test_cut_into_chunks_nothing_changes(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    states, other, weight, bias = (
        torch.randn(size, generator=draw, dtype=torch.float64).float()
        for size in ((7, 4), (7, 4), (40, 4), (40,))
    )
    head = Head(weight, bias, shape)
    whole = divergences(DIVERGENCES, states, head, other, head)
    entropy = top_entropy(states, head)
    monkeypatch.setattr(Head, "positions", 3)  # of a vocabulary of 40 it would be all at once
    parts = divergences(DIVERGENCES, states, head, other, head)
    for name in DIVERGENCES:
        torch.testing.assert_close(parts[name], whole[name])
    torch.testing.assert_close(top_entropy(states, head), entropy)


def test_entropy_of_the_likeliest_tokens() -> None:
    """Even logits: log 20 of a vocabulary of 50, log 3 of one of 3; a sure token: 0."""
    states = torch.zeros(2, 4)
    for size, want in ((50, math.log(20)), (3, math.log(3))):
        head = Head(torch.randn(size, 4), None, Shape())
        assert top_entropy(states, head).tolist() == pytest.approx([want] * 2, abs=1e-5)
    sure = Head(torch.eye(50)[:, :4] * 100, None, Shape())
    assert top_entropy(torch.eye(4)[:1], sure).item() == pytest.approx(0.0, abs=1e-6)
    assert top_entropy(states[:0], sure).shape == (0,)


def test_a_head_that_is_not_plain_is_refused() -> None:
    policy = Policy(tiny_llama(0), make_tokenizer())
    policy.fit = replace(policy.fit, chunked_head=False)
    with pytest.raises(ValueError, match="whole distributions needs a model with a plain head"):
        policy.look(ROW, ["forward_kl"])
