"""Other libraries' heads behind our function, and which of them a run takes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny import tiny_llama, token_path

from onestage.models import head_law, head_ways
from onestage.models.head import Shape, full_logits
from onestage.models.head_choice import Tried, chosen, try_ways
from onestage.models.head_law import head_difference
from onestage.models.head_ways import WAYS, Way, cannot, logps_by
from onestage.models.model import HEADS
from onestage.models.policy import Policy

GIB = 2**30
PATH = token_path(list(range(5, 30)), (4, 25))


def plain(hidden: Any, weight: Any, bias: Any, target: Any, shape: Shape) -> torch.Tensor:
    logits = full_logits(hidden, weight, bias, shape)
    return logits.log_softmax(-1).gather(1, target[:, None])[:, 0]


class _Equal(torch.autograd.Function):
    """A head whose gradients were made before it was known by what each token's is multiplied."""

    @staticmethod
    def forward(ctx: Any, logp_K: torch.Tensor) -> torch.Tensor:
        return logp_K.clone()

    @staticmethod
    def backward(ctx: Any, grad_K: torch.Tensor) -> torch.Tensor:
        return torch.full_like(grad_K, grad_K.mean().item())


def of_the_sum(*given: Any) -> torch.Tensor:
    found: torch.Tensor = _Equal.apply(plain(*given))
    return found


def of_bad_values(*given: Any) -> torch.Tensor:
    return plain(*given) + 0.01


def broken(*given: Any) -> torch.Tensor:
    raise RuntimeError("no kernel for this device\nand more")


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts functions in the place of the libraries'."""

    def put(**ways: Any) -> None:
        for name in HEADS[1:]:
            way = ways.get(name)
            load = (lambda way=way: way) if way else WAYS[name].load
            monkeypatch.setitem(WAYS, name, Way("pytest" if way else "none-such", load, True, True))
        head_ways._loaded.cache_clear()

    yield put
    head_ways._loaded.cache_clear()


def test_there_is_a_way_for_every_name() -> None:
    assert ("onestage", *WAYS) == HEADS


def test_who_is_the_fastest_in_no_more_memory_is_taken() -> None:
    ours, liger, trl = Tried(0.1, 4 * GIB), Tried(0.08, GIB), Tried(0.07, 4 * GIB)
    assert chosen([{"onestage": ours, "liger": liger, "trl": trl}])[0] == "trl"
    more = Tried(0.07, 5 * GIB)
    name, told = chosen([{"onestage": ours, "liger": liger, "trl": more}])
    assert name == "liger"
    assert told == (
        "onestage: 100 ms, 4 GiB; liger: 80 ms, 1 GiB; trl: needs 5 GiB where ours needs 4 GiB"
    )


def test_a_way_that_is_hardly_faster_is_left() -> None:
    assert (
        chosen([{"onestage": Tried(0.1), "liger": Tried(0.095), "trl": Tried(0.2)}])[0]
        == "onestage"
    )


def test_all_ranks_take_what_all_of_them_can() -> None:
    """By the slowest rank, and not where one cannot."""
    first = {"onestage": Tried(0.1), "liger": Tried(0.05), "trl": Tried(0.08)}
    second = {"onestage": Tried(0.1), "liger": Tried(trouble="not exact here"), "trl": Tried(0.08)}
    third = first | {"trl": Tried(0.11)}
    assert chosen([first, second])[0] == "trl"
    assert chosen([first, second, third])[0] == "onestage"
    assert "liger: not exact here" in chosen([first, second])[1]


def test_ways_are_tried_and_compared_with_ours(put: Any) -> None:
    """The clock is given: an inexact way is not timed."""
    put(liger=of_the_sum, trl=plain)
    policy = Policy(tiny_llama())
    clock = iter([(9.0, 5)] * 3 + [(1.0, 3), (2.0, 4), (3.0, 3)])
    found = try_ways(policy, 100, 1e3, lambda work: (work(), next(clock))[1])
    assert found["onestage"] == Tried(9.0, 5)
    assert found["trl"] == Tried(1.0, 4)
    assert found["liger"].trouble.startswith("not exact here (a gradient differs by 1")
    assert chosen([found])[0] == "trl"
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_under_autocast_its_rounding_is_forgiven(put: Any) -> None:
    def rough(hidden: Any, weight: Any, *rest: Any) -> torch.Tensor:
        assert hidden.dtype == weight.dtype == torch.bfloat16
        return plain(hidden.float(), weight.float(), *rest)

    put(liger=rough, trl=of_the_sum)
    with torch.autocast("cpu", torch.bfloat16):
        found = try_ways(Policy(tiny_llama()), 30, 1e9, lambda work: (1.0, 0))
    assert not found["liger"].trouble
    assert found["trl"].trouble.startswith("not exact here (a gradient")


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (of_bad_values, "not exact here (values differ by 1.0e-02)"),
        (broken, "does not run here (RuntimeError: no kernel for this device)"),
    ],
)
def test_what_is_wrong_with_a_way_is_said(put: Any, way: Any, said: str) -> None:
    put(liger=way)
    found = try_ways(Policy(tiny_llama()), 30, 1e9, lambda work: (1.0, 0))
    assert found["liger"].trouble == said
    assert found["trl"].trouble == "none-such is not installed here (pip install none-such)"


def test_a_short_run_tries_none(put: Any) -> None:
    put(liger=plain, trl=plain)
    found = try_ways(Policy(tiny_llama()), 30, 10, lambda work: (1.0, 0))
    assert [*found] == ["onestage"]
    assert chosen([found]) == (
        "onestage",
        "onestage: 1e+03 ms, 0 GiB; too short a run for others to be tried",
    )


def test_what_a_way_is_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_ways, "installed", lambda name: "1.0")
    assert cannot("liger", "cpu") == "it runs on GPUs only"
    assert cannot("trl", "cpu") == cannot("onestage", "cpu") == cannot("liger", "cuda") == ""
    assert "does not scale logits, and this model does (by 0.5)" in cannot(
        "liger", "cuda", Shape(0.5)
    )
    assert cannot("trl", "cuda", Shape(0.5, 30.0)) == ""
    assert "in float64" in cannot("trl", "cuda", Shape(), torch.float64)


@pytest.mark.parametrize("frozen", [False, True])
def test_law_3_asks_for_unequal_factors(put: Any, frozen: bool) -> None:
    """A head that is right for the sum alone is found out; a right one is exact to rounding."""
    put(liger=of_the_sum, trl=plain)
    model = tiny_llama()
    model.requires_grad_(not frozen)
    assert max(head_difference(model, PATH)) < 1e-5
    assert max(head_difference(model, PATH, "trl")) < 1e-5
    values, gradients = head_difference(model, PATH, "liger")
    assert values < 1e-5
    assert gradients > 0.1


def test_law_3_looks_at_the_weights_gradient(put: Any) -> None:
    class Halved(torch.autograd.Function):
        forward = staticmethod(lambda ctx, weight: weight.clone())
        backward = staticmethod(lambda ctx, grad: grad / 2)

    def way(hidden: Any, weight: Any, *rest: Any) -> torch.Tensor:
        return plain(hidden, Halved.apply(weight), *rest)

    put(liger=way)
    model = tiny_llama()
    assert head_difference(model, PATH, "liger")[1] > 0.1
    assert head_difference(model, PATH, "liger", weights=False)[1] < 1e-5
    assert head_difference(model.requires_grad_(False), PATH, "liger")[1] < 1e-5


def test_law_3_is_held_against_sums_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts that divide neither positions nor rows; logits are 3 tanh((h W + b) / 2 / 3)."""
    monkeypatch.setattr(head_law, "POSITIONS", 2)
    monkeypatch.setattr(head_law, "ROWS", 7)
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 31)
    config = SimpleNamespace(logit_scale=0.5, final_logit_softcapping=3.0)
    model = SimpleNamespace(config=config, get_output_embeddings=lambda: head)
    states, target, factor = torch.randn(5, 8), torch.randint(31, (5,)), torch.randn(5)
    leaf = states.double().requires_grad_()
    product = leaf @ head.weight.double().t() + head.bias.double()
    product.retain_grad()
    logp = (3 * torch.tanh(product / 2 / 3)).log_softmax(-1)[range(5), target]
    (logp * factor).sum().backward()
    pulled, by_states = head_law._exactly(model, states, target, factor)
    assert torch.allclose(by_states, leaf.grad, rtol=1e-12, atol=1e-14)
    assert torch.allclose(pulled, product.grad.float(), rtol=1e-6)


def test_no_position_is_no_kernels_business(put: Any) -> None:
    put(liger=broken)
    hidden, weight = torch.zeros(0, 4), torch.zeros(9, 4)
    assert logps_by("liger", hidden, weight, torch.zeros(0, dtype=torch.long)).shape == (0,)


KERNELS = """
import torch
from trl.kernels import chunked_logprob
from onestage.models import head_ways
from onestage.models.head import Shape, token_logps
chunked_logprob._use_triton = lambda device: True   # by the interpreter, on this processor
head_ways.TILE = 13                                 # the vocabulary is no multiple of it
torch.manual_seed(0)
for dtype, rough in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
    for bias in (False, True):
        for shape in (Shape(), Shape(0.5, 3.0)):
            for trained in (False, True):
                h, w, b = (torch.randn(*n).to(dtype) for n in ((7, 8), (31, 8), (31,)))
                t, factor = torch.randint(31, (7,)), torch.randn(7)
                for name in ("liger", "trl")[shape != Shape():]:
                    found = []
                    for way in ("onestage", name):
                        leaves = [h.clone().requires_grad_(), w.clone().requires_grad_(trained)]
                        leaves += [b.clone().requires_grad_(trained)] if bias else []
                        of = leaves[2] if bias else None
                        logp = head_ways.logps_by(way, *leaves[:2], t, bias_V=of, shape=shape)
                        asked = [leaf for leaf in leaves if leaf.requires_grad]
                        grads = torch.autograd.grad((logp * factor).sum(), asked)
                        found.append((logp, *grads))
                    assert found[1][0].dtype == torch.float32
                    for one, other in zip(*found, strict=True):
                        gap = ((one.float() - other.float()).norm() / one.float().norm()).item()
                        assert gap < rough, (name, dtype, bias, shape, trained, gap)
print("all the same")
"""


@pytest.mark.skipif(
    not all(find_spec(name) for name in ("triton", "liger_kernel", "trl")),
    reason="needs triton, liger-kernel and trl",
)
def test_their_kernels_by_tritons_interpreter() -> None:
    """Values, and gradients for any factors, are ours. Liger's soft cap calls a function of the device
    that the interpreter has not."""
    done = subprocess.run(
        [sys.executable, "-c", KERNELS],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("all the same\n"), done.stderr[-3000:]
