"""The gauge beside autograd's gradients of the layers that it looks at, and its sketch in the mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onestage.models.gauge import LAYERS, SIZE, Gauge

CPU = torch.device("cpu")


def layers(*sides: tuple[int, int]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(inputs, outputs) for inputs, outputs in sides))


def through(model: nn.Module, share_NG: np.ndarray, states: Tensor, wanted: Tensor) -> Tensor:
    """The sketches (G, D) of a pass with these losses, which changes no gradient."""
    gauge = Gauge(share_NG.shape[1], model, CPU)
    gauge.expect([share_NG])
    (model(states[None])[0] * wanted).sum().backward()
    gauge.expect(None)
    (model(states[None])[0] * wanted).sum().backward()  # is not looked at
    found = gauge.take()
    assert not bool(gauge.take().any())
    return found


def exact(model: nn.Module, states: Tensor, wanted: Tensor, share_N: Tensor) -> list[Tensor]:
    model.zero_grad()
    (model(states[None])[0] * wanted * share_N[:, None]).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None and p.dim() == 2]


def batch(inputs: int, outputs: int, size: int = 40) -> tuple[Tensor, Tensor, np.ndarray]:
    draw = torch.Generator().manual_seed(1)
    states = torch.randn(size, inputs, generator=draw)
    wanted = torch.randn(size, outputs, generator=draw)
    group_N = torch.randint(0, 2, (size,), generator=draw)
    return states, wanted, np.eye(2, dtype=np.float32)[group_N.numpy()]


def test_of_small_layers_it_is_the_gradient_itself() -> None:
    """Of each group, of all layers, where nothing is nonlinear between them."""
    model, (states, wanted, share_NG) = layers((6, 5), (5, 3)), batch(6, 3)
    found = through(model, share_NG, states, wanted)
    for group in range(2):
        want = exact(model, states, wanted, torch.from_numpy(share_NG[:, group]))
        torch.testing.assert_close(found[group], torch.cat([w.flatten() for w in want]))


def test_the_sketch_keeps_inner_products() -> None:
    """Of long ones: within four standard errors, 4 sqrt(4 / S), of the product of the lengths."""
    model, (states, wanted, share_NG) = layers((600, 700)), batch(600, 700)
    found = through(model, share_NG, states, wanted)
    assert found.shape == (2, SIZE * SIZE)
    want = [
        exact(model, states, wanted, torch.from_numpy(share_NG[:, n]))[0].flatten() for n in (0, 1)
    ]
    for i in range(2):
        for j in range(2):
            size = float(want[i].norm() * want[j].norm())
            apart = float(found[i] @ found[j] - want[i] @ want[j])
            assert abs(apart) < 4 * (4 / SIZE) ** 0.5 * size


@pytest.mark.parametrize("earlier", [False, True])
def test_of_lora_it_is_the_gradient_by_b(earlier: bool) -> None:
    """Also where B is not 0, in the fewer passes over memory that its layers are run in; and of the new
    adapter where it lies on an earlier one, which is frozen."""
    from peft import LoraConfig, get_peft_model

    from onestage.models.low_rank import in_fewer_passes
    from onestage.models.stacking import stack

    config = LoraConfig(r=2, target_modules=["0", "1"], init_lora_weights=False)
    model = get_peft_model(layers((6, 5), (5, 3)), config)
    if earlier:
        stack(model, config)
    in_fewer_passes(model)
    states, wanted, share_NG = batch(6, 3)
    found = through(model, share_NG, states, wanted)
    model.zero_grad()
    (model(states[None])[0] * wanted * torch.from_numpy(share_NG[:, :1])).sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    want = [p.grad.flatten() for name, p in trained.items() if "lora_B" in name]
    assert len(want) == 2
    torch.testing.assert_close(found[0], torch.cat(want))


def test_passes_are_told_apart_in_order_and_what_fills_a_row_up_is_left_out() -> None:
    model = layers((4, 4))
    gauge = Gauge(2, model, CPU)
    one, two = (np.eye(2, dtype=np.float32)[[group] * 2] for group in (0, 1))
    gauge.expect([one, two])
    first, second = (
        torch.ones(1, 3, 4),
        torch.full((1, 2, 4), 2.0),
    )  # the first has a token too many
    (model(first).sum() + model(second).sum()).backward()
    assert gauge.take()[:, 0].tolist() == [2.0, 4.0]


def test_a_row_that_goes_another_way_than_it_was_announced_is_no_number() -> None:
    """Path by path, say, since a reference beside the policy takes no whole rows."""
    model = layers((4, 4))
    gauge = Gauge(2, model, CPU)
    gauge.expect([np.ones((3, 2), np.float32)])
    (model(torch.ones(1, 2, 4)).sum() + model(torch.ones(1, 3, 4)).sum()).backward()
    assert bool(gauge.take().isnan().all())
    assert not bool(gauge.take().any())


def test_layers_are_spread_over_a_deep_model() -> None:
    model = layers(*[(2, 2)] * 100)
    found = [
        next(n for n, x in enumerate(model) if x is y.module) for y in Gauge(2, model, CPU).layers
    ]
    assert len(found) == LAYERS
    assert found[0] == 2
    assert found[-1] == 97
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no linear layer of it is trained"):
        Gauge(2, model, CPU)
