"""LoRA's layers in fewer passes say what PEFT's do, and only where they are the plain case."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import tiny_llama

from onestage.models import low_rank
from onestage.models.low_rank import as_peft_does, in_fewer_passes

IDS = torch.arange(3, 40)[None]


def adapted(dtype: torch.dtype = torch.float32, bias: bool = False, **options: Any) -> Any:
    """A model whose adapters say something. `bias`: of its attention's layers."""
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", **options)
    model = get_peft_model(tiny_llama(attention_bias=bias).to(dtype), config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def said(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and gradients of adapters and embeddings."""
    model.zero_grad()
    logits = model(input_ids=IDS).logits
    logits.float().log_softmax(-1)[0, :, 7].sum().backward()
    return logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("below", [False, True])
def test_values_and_gradients_are_those_of_peft(dtype: torch.dtype, below: bool) -> None:
    """`below`: with gradients by what the first layer reads."""
    model = adapted(dtype)
    model.get_base_model().get_input_embeddings().weight.requires_grad_(below)
    exact = copy.deepcopy(model).double()
    theirs, gradients = said(model)
    truth, true_gradients = said(exact)
    in_fewer_passes(model)
    mine, found = said(model)
    assert found.keys() == gradients.keys() == true_gradients.keys()
    assert mine.dtype == theirs.dtype == dtype
    pairs = [(mine, theirs, truth)]
    pairs += [(found[name], gradients[name], true_gradients[name]) for name in found]
    rounded = []
    for one, other, right in pairs:
        assert one.dtype == other.dtype
        rounded.append([(x.double() - right).norm() / right.norm() for x in (one, other)])
        if dtype == torch.float32:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    ours, by_peft = torch.tensor(rounded).pow(2).mean(0).sqrt().tolist()
    assert ours <= (1.1 * by_peft if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_layer_with_a_bias_is_rounded_once(dtype: torch.dtype) -> None:
    """As PEFT has it, to the last bit but where sums of the adapter's own products lie on an edge."""
    model = adapted(dtype, bias=True)
    in_fewer_passes(model)
    torch.manual_seed(2)
    for name, layer in model.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj")):
            layer.base_layer.bias.data.normal_(std=3.0)
            x = torch.randn(3, 64, layer.in_features).to(dtype)
            mine, theirs = layer(x), type(layer).forward(layer, x)
            steps = (mine.view(torch.int16).int() - theirs.view(torch.int16).int()).abs()
            assert steps.max() <= 1
            assert (steps > 0).float().mean() < 1e-3
            layer.lora_B["default"].weight.data.zero_()
            assert torch.equal(layer(x), layer.base_layer(x))


def test_it_runs_where_it_is_the_plain_case_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = low_rank._Adapted.apply
    monkeypatch.setattr(low_rank._Adapted, "apply", lambda *given: calls.append(1) or real(*given))

    def used(model: Any) -> int:
        in_fewer_passes(model)
        calls.clear()
        with torch.no_grad():
            model(input_ids=IDS)
        return len(calls)

    layers = 2 * 7
    assert used(adapted()) == layers
    assert used(adapted(lora_dropout=0.1).eval()) == layers
    assert used(adapted(lora_dropout=0.1).train()) == 0
    assert used(adapted(use_dora=True)) == 0
    model = adapted()
    with model.disable_adapter():
        assert used(model) == 0
    with as_peft_does(model):
        calls.clear()
        model(input_ids=IDS)
        assert not calls
    assert used(model) == layers
    with torch.autocast("cpu", torch.bfloat16):
        assert used(model) == 0
    model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear"))
    model.base_model.set_adapter(["default", "other"])
    assert used(model) == 0
    model.base_model.set_adapter("default")
    model.merge_adapter()
    assert used(model) == 0
    assert used(tiny_llama()) == 0


def test_a_copy_is_run_by_its_own_weights() -> None:
    model = adapted()
    in_fewer_passes(model)
    before = said(model)[0]
    copied = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    torch.testing.assert_close(said(copied)[0], before)
    assert not torch.allclose(said(model)[0], before)
