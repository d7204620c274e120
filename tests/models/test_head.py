"""The chunked head equals full logits, in values and gradients (law 3)."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from onestage.models import head
from onestage.models.head import Shape, token_logps

PLAIN = Shape()


def naive(h, w, t, b=None, shape=PLAIN):
    logits = h.float() @ w.float().t()
    if b is not None:
        logits = logits + b
    logits = logits * shape.scale
    if shape.softcap is not None:
        logits = torch.tanh(logits / shape.softcap) * shape.softcap
    return torch.log_softmax(logits, -1).gather(1, t[:, None])[:, 0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [Shape(), Shape(0.25), Shape(softcap=3.0), Shape(2.0, 3.0)])
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_values_and_gradients(bias: bool, shape: Shape, chunk: int) -> None:
    torch.manual_seed(0)
    h, w = torch.randn(17, 8), torch.randn(31, 8)
    b = torch.randn(31) if bias else None
    t, weight = torch.randint(0, 31, (17,)), torch.randn(17)
    inputs = [x.clone().requires_grad_() for x in (h, w, b) if x is not None]
    others = [x.clone().requires_grad_() for x in (h, w, b) if x is not None]
    mine = token_logps(
        inputs[0], inputs[1], t, bias_V=inputs[2] if bias else None, shape=shape, chunk=chunk
    )
    theirs = naive(others[0], others[1], t, others[2] if bias else None, shape)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    (mine * weight).sum().backward()
    (theirs * weight).sum().backward()
    for left, right in zip(inputs, others, strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [Shape(), Shape(0.25), Shape(2.0, 3.0)])
def test_gradients_made_beside_the_values(bias: bool, shape: Shape) -> None:
    """Under a head that is not trained; the values are those of one that is, to the bit."""
    torch.manual_seed(0)
    h, w = torch.randn(17, 8, requires_grad=True), torch.randn(31, 8)
    other, b = h.detach().clone().requires_grad_(), torch.randn(31) if bias else None
    t, weight = torch.randint(0, 31, (17,)), torch.randn(17)
    mine = token_logps(h, w, t, bias_V=b, shape=shape, chunk=5)
    again = token_logps(h, w.requires_grad_(), t, bias_V=b, shape=shape, chunk=5)
    theirs = naive(other, w, t, b, shape)
    assert mine.grad_fn.name() != again.grad_fn.name()
    assert torch.equal(mine, again)
    (mine * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(h.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_close_and_returns_float32() -> None:
    torch.manual_seed(0)
    h = torch.randn(9, 16, dtype=torch.bfloat16, requires_grad=True)
    w = torch.randn(40, 16, dtype=torch.bfloat16, requires_grad=True)
    t = torch.randint(0, 40, (9,))
    mine = token_logps(h, w, t, chunk=4)
    assert mine.dtype == torch.float32
    torch.testing.assert_close(mine, naive(h, w, t), rtol=0.05, atol=0.1)
    mine.sum().backward()
    assert h.grad.dtype == w.grad.dtype == torch.bfloat16


def test_a_frozen_head_gets_no_gradient() -> None:
    h = torch.randn(3, 4, requires_grad=True)
    w = torch.randn(5, 4)
    token_logps(h, w, torch.tensor([0, 1, 2])).sum().backward()
    assert h.grad is not None
    assert w.grad is None


def test_no_tensor_of_full_logits_exists() -> None:
    """The largest allocation is a chunk of logits, not all of them."""
    size, vocabulary, chunk = 640, 1000, 16
    h = torch.randn(size, 4, requires_grad=True)
    w = torch.randn(vocabulary, 4)
    with torch.profiler.profile(profile_memory=True) as profile:
        token_logps(h, w, torch.zeros(size, dtype=torch.long), chunk=chunk).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 4 * size * vocabulary / 8
    assert largest >= 4 * chunk * vocabulary


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("shape", [Shape(), Shape(scale=0.5, softcap=3.0)])
def test_the_fused_passes_are_the_plain_ones(
    entropy: bool, shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What GPUs run, traced and made functional as there, its kernels left to torch's own."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    logits, target = torch.randn(6, 50) * 3, torch.randint(50, (6,))
    grad, entropy_grad = torch.randn(6), torch.randn(6)
    fused_read, fused_pull = (head._fused.__wrapped__(way) for way in (head._read, head._pulled))
    plain = head._read(logits.clone(), None, target, shape, entropy)
    fused = fused_read(logits.clone(), None, target, shape, entropy)
    for one, other in zip(plain, fused, strict=True):
        torch.testing.assert_close(one, other)
    if not entropy:
        both, given = head._fused.__wrapped__(head._read_and_pulled), (None, target, shape)
        for one, other in zip(
            both(logits.clone(), *given, torch.float32),
            head._read_and_pulled(logits.clone(), *given, torch.float32),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
    given = (None, target, plain[1], grad, plain[2], entropy_grad, shape, torch.bfloat16)
    torch.testing.assert_close(
        fused_pull(logits.clone(), *given), head._pulled(logits.clone(), *given)
    )


def test_a_machine_that_compiles_nothing_runs_the_plain_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_compiler(function: Any, **options: Any) -> Any:
        def fails(*given: Any) -> Any:
            raise BackendCompilerFailed(no_compiler, RuntimeError("no C compiler"), None)

        return fails

    monkeypatch.setattr(torch, "compile", no_compiler)
    read = head._fused.__wrapped__(head._read)
    logits, target = torch.randn(3, 9), torch.tensor([1, 2, 3])
    with pytest.warns(UserWarning, match="the head runs uncompiled, which is slower"):
        found = read(logits.clone(), None, target, Shape(), False)
    torch.testing.assert_close(found[0], logits.log_softmax(-1).gather(1, target[:, None])[:, 0])
    assert read(logits.clone(), None, target, Shape(), False)[2] is None  # and warns once only
