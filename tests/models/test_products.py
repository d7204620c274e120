"""Products by oneDNN are the products, and are left to torch where there is nothing to win."""

from __future__ import annotations

import pytest
import torch

from onestage.models import products
from onestage.models.products import LEAST, product


@pytest.mark.skipif(products.ONEDNN is None, reason="this torch has no oneDNN")
@pytest.mark.parametrize("turned", [False, True])
def test_large_products(turned: bool) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(65, 300), torch.randn(300, 250) if turned else torch.randn(250, 300)
    right = right.t() if turned else right
    assert left.shape[0] * right.numel() >= LEAST
    exact = left.double() @ right.double().t()
    torch.testing.assert_close(product(left, right).double(), exact, rtol=1e-5, atol=1e-4)
    assert torch.equal(product(left, right), product(left, right))


def test_others_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "ONEDNN", lambda *given: pytest.fail("asked"))
    for left, right in (
        (torch.randn(3, 8), torch.randn(5, 8)),
        (torch.randn(65, 300).bfloat16(), torch.randn(250, 300).bfloat16()),
        (torch.randn(65, 300).double(), torch.randn(250, 300).double()),
    ):
        assert torch.equal(product(left, right), left @ right.t())
