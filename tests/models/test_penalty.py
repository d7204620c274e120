"""The L1 penalty on LoRA's delta, against autograd and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import tiny_llama

from onestage.models.penalty import DeltaL1
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe


def adapted(**options: Any) -> Any:
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], **options}
    model = get_peft_model(tiny_llama(), LoraConfig(**settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return model


def by_autograd(model: Any, weight: float) -> tuple[float, dict[str, torch.Tensor]]:
    """The penalty written down directly: weight * sum |(alpha / r) B A|."""
    parameters = {n: p for n, p in model.named_parameters() if "lora_" in n}
    total = torch.zeros(())
    for name, a in parameters.items():
        if "lora_A" in name:
            b = parameters[name.replace("lora_A", "lora_B")]
            total = total + (6 / 4 * b @ a).abs().sum()
    grads = torch.autograd.grad(weight * total, list(parameters.values()))
    return (weight * total).item(), dict(zip(parameters, grads, strict=True))


def test_value_and_gradient_are_those_of_autograd() -> None:
    model = adapted()
    value, gradients = by_autograd(model, 0.3)
    assert DeltaL1(0.3, model)(model) == pytest.approx(value, rel=1e-5)
    assert len(gradients) == 8
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)
        else:
            assert parameter.grad is None


def test_it_is_added_to_what_the_backward_pass_left() -> None:
    model = adapted()
    model(
        input_ids=torch.tensor([[3, 5, 7, 9]]), labels=torch.tensor([[3, 5, 7, 9]])
    ).loss.backward()
    names = [n for n, p in model.named_parameters() if p.grad is not None]
    before = {n: p.grad.clone() for n, p in model.named_parameters() if n in names}
    _, gradients = by_autograd(model, 0.5)
    DeltaL1(0.5, model)(model)
    for name, parameter in model.named_parameters():
        if name in names:
            expected = before[name] + gradients[name]
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4)


def test_by_hand() -> None:
    """B = [[1], [-2]], A = [[3, 0]], s = 2: delta = [[6, 0], [-12, 0]], |delta| sums to 18."""
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    model = get_peft_model(layer, LoraConfig(r=1, lora_alpha=2, target_modules=["0"]))
    part: Any = model.base_model.model[0]
    with torch.no_grad():
        part.lora_A["default"].weight.copy_(torch.tensor([[3.0, 0.0]]))
        part.lora_B["default"].weight.copy_(torch.tensor([[1.0], [-2.0]]))
    assert DeltaL1(0.1, model)(model) == pytest.approx(1.8)
    # S = [[1, 0], [-1, 0]]: dB = 0.1 * 2 * S A^T = [[.6], [-.6]], dA = 0.1 * 2 * B^T S = [[.6, 0]]
    torch.testing.assert_close(part.lora_B["default"].weight.grad, torch.tensor([[0.6], [-0.6]]))
    torch.testing.assert_close(part.lora_A["default"].weight.grad, torch.tensor([[0.6, 0.0]]))


def test_a_fresh_adapter_feels_nothing() -> None:
    model = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    assert DeltaL1(1.0, model)(model) == 0
    for parameter in model.parameters():
        assert parameter.grad is None or not parameter.grad.any()


def test_embeddings_and_bfloat16() -> None:
    exact = adapted(target_modules=["embed_tokens"])
    value, gradients = by_autograd_embedding(exact)
    assert DeltaL1(1.0, exact)(exact) == pytest.approx(value, rel=1e-5)
    for name, parameter in exact.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)
    rounded = adapted().to(torch.bfloat16)
    assert DeltaL1(1.0, rounded)(rounded) == pytest.approx(by_autograd(adapted(), 1.0)[0], rel=0.01)
    factor = next(p for n, p in rounded.named_parameters() if "lora_A" in n)
    assert factor.grad is not None
    assert factor.grad.dtype == torch.bfloat16


def by_autograd_embedding(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    names = {n: p for n, p in model.named_parameters() if "lora_embedding" in n}
    a, b = names.values()
    total = (6 / 4 * b @ a).abs().sum()
    return total.item(), dict(zip(names, torch.autograd.grad(total, [a, b]), strict=True))


def test_following_it_shrinks_the_delta() -> None:
    model = adapted(target_modules=["q_proj"])
    penalty = DeltaL1(1e-2, model)
    chosen = [p for n, p in model.named_parameters() if "lora_" in n]
    optimiser = torch.optim.SGD(chosen, lr=0.5)
    first = penalty(model)
    for _ in range(20):
        optimiser.zero_grad()
        last = penalty(model)
        optimiser.step()
    assert last < 0.5 * first


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_bad_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        DeltaL1(weight, adapted())


def test_models_without_plain_lora_are_refused() -> None:
    with pytest.raises(ValueError, match="has none: set"):
        DeltaL1(0.1, tiny_llama())
    with pytest.raises(ValueError, match="knows plain LoRA"):
        DeltaL1(0.1, adapted(use_dora=True))


def test_a_run_with_the_penalty_ends_with_a_smaller_delta(
    recipe_of: Any, model_folder: Any, tmp_path: Any
) -> None:
    from safetensors.torch import load_file

    sizes = []
    for weight in (0.0, 1e-2):
        recipe = recipe_of("demonstration", objective="sft", train__max_steps=12)
        recipe["model"] = {"name": str(model_folder), "lora": {"r": 2}}
        recipe["train"]["delta_l1"] = weight
        folder = carry_out(
            parse_recipe(recipe), tmp_path / str(weight), say=lambda line: None, self_check=False
        )
        kept = load_file(folder / "adapter_model.safetensors")
        pairs = [
            (kept[key], kept[key.replace("lora_A", "lora_B")]) for key in kept if "lora_A" in key
        ]
        sizes.append(sum((b @ a).abs().sum().item() for a, b in pairs))
    assert sizes[1] < 0.7 * sizes[0]
    recipe["model"].pop("lora")
    with pytest.raises(ValueError, match=r"set model\.lora"):
        carry_out(parse_recipe(recipe), tmp_path / "full", say=lambda line: None, self_check=False)
