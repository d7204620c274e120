"""The gauge beside the gradient of a linear map that is really there, and its sketch in the mean."""

from __future__ import annotations

import numpy as np
import torch

from onestage.models.gauge import SIZE, Gauge


def through(gauge: Gauge, hidden: int, nodes: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """States of some nodes, the gradients by them, and their groups, after these went backward."""
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(nodes, hidden, generator=draw, requires_grad=True)
    wanted = torch.randn(nodes, hidden, generator=draw)
    group = torch.randint(0, 2, (nodes,), generator=draw)
    read = states.clone()
    gauge.expect(group.numpy())
    gauge.watch(read, np.arange(nodes))
    (read * wanted).sum().backward()
    assert states.grad is not None
    assert torch.equal(states.grad, wanted)  # looking on changes nothing
    return states.detach(), wanted, group


def test_it_is_the_gradient_of_a_map_that_changes_nothing() -> None:
    """Of states no longer than the sketch: autograd's own, of W = 1 before the losses, by group."""
    gauge = Gauge(2, 8, torch.device("cpu"))
    states, wanted, group = through(gauge, 8, 12)
    found = gauge.take()
    for number in range(2):
        weight = torch.eye(8, requires_grad=True)
        mine = group == number
        ((states[mine] @ weight.T) * wanted[mine]).sum().backward()
        torch.testing.assert_close(found[number], weight.grad)
    assert not bool(gauge.take().any())


def test_the_sketch_keeps_inner_products() -> None:
    """Of long states: within four standard errors, 4 sqrt(4 / S), of the product of the lengths."""
    gauge = Gauge(2, 600, torch.device("cpu"))
    states, wanted, group = through(gauge, 600, 60, seed=3)
    found = gauge.take()
    exact = [wanted[group == n].T @ states[group == n] for n in range(2)]
    for i in range(2):
        for j in range(2):
            size = float(exact[i].norm() * exact[j].norm())
            apart = float((found[i] * found[j]).sum() - (exact[i] * exact[j]).sum())
            assert abs(apart) < 4 * (4 / SIZE) ** 0.5 * size


def test_a_row_in_several_passes_is_told_apart_in_order() -> None:
    gauge = Gauge(2, 4, torch.device("cpu"))
    gauge.expect(np.array([0, 0, 1]))
    parts = [torch.ones(2, 4, requires_grad=True), torch.full((1, 4), 2.0, requires_grad=True)]
    for part in parts:
        gauge.watch(part, np.arange(len(part)))
    torch.stack([part.sum() for part in parts]).sum().backward()
    assert gauge.take()[:, 0, 0].tolist() == [2.0, 2.0]


def test_what_was_not_expected_is_not_looked_at() -> None:
    gauge = Gauge(2, 4, torch.device("cpu"))
    states = torch.ones(2, 4, requires_grad=True)
    gauge.watch(states, np.arange(2))
    states.sum().backward()
    assert not bool(gauge.take().any())


def test_a_state_that_several_entries_are_read_off_counts_for_each() -> None:
    """Two answers that begin alike, or one record twice: as if their tokens stood apart."""
    gauge = Gauge(2, 4, torch.device("cpu"))
    gauge.expect(np.array([0, 1, 1]))
    states = torch.ones(2, 4, requires_grad=True)
    read = states.clone()
    gauge.watch(read, np.array([0, 0, 1]))
    read.sum().backward()
    assert gauge.take()[:, 0, 0].tolist() == [0.5, 1.5]
