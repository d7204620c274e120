"""Every architecture is right or refused: log-probabilities and gradients of plain transformers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from support.tiny import tiny_llama

from bench.trust.architectures import ARCHITECTURES, measure, plainly, records, tiny
from onestage.data.packing import pack
from onestage.models import attention
from onestage.models.attention import NAME
from onestage.models.policy import Policy
from onestage.models.yardstick import Rounding, not_finite

ALONE = set(
    "bamba bart bloom deepseek_v32 falcon_h1 falcon_mamba glm_moe_dsa gpt_neo granitemoehybrid jamba "
    "lfm2 lfm2_moe llama4_text mamba mamba2 mbart minimax mpt olmo_hybrid openai-gpt "
    "qwen3_5_text qwen3_next recurrent_gemma rwkv trocr".split()
)
"""What carries a state along the row, or takes no positions or masks from outside."""
REFUSED = {"bert", "xlm-roberta", "xlnet"}
"""What sees later tokens as transformers loads it."""


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.filterwarnings("ignore")
def test_an_architecture_is_right_or_refused(name: str) -> None:
    found = measure(name)
    layout = "refused" if name in REFUSED else "alone" if name in ALONE else "forest"
    assert found.layout == layout, found
    assert found.logp < 5e-5
    assert found.gradient < 1e-4
    assert (layout == "forest") or found.why
    if layout == "refused":
        assert "sees later tokens" in found.why


def test_there_are_many_architectures() -> None:
    assert len(ARCHITECTURES) >= 40


@pytest.mark.parametrize("name", ["gpt_oss", "mimo_v2_flash"])
def test_lost_attention_sinks_are_seen(name: str) -> None:
    """Forced into our attention, which has none, the model is put back into its own, and says why."""
    plain = tiny(name).eval()
    model = copy.deepcopy(plain)
    model.set_attn_implementation(NAME)
    policy = Policy(model)
    assert (policy.fit.layout, policy.fit.attention) == ("forest", "eager")
    assert "values differ" in policy.fit.reason
    (row,) = pack(records(), 1000)
    with torch.no_grad():
        theirs = torch.cat([plainly(plain, path) for path in row.paths])
        torch.testing.assert_close(policy(row), theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["bloom", "codegen", "xglm", "gpt_neox_japanese"])
def test_a_lost_causal_mask_is_refused(name: str) -> None:
    """Made with an attention that leaves their masks out, these see the future."""
    model = tiny(name).eval()
    model.config._attn_implementation_internal = NAME
    with pytest.raises(ValueError, match="sees later tokens"):
        Policy(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_token_that_sees_a_branch_beside_its_own(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 the fault is far below what an absolute tolerance would allow."""
    right = attention.dense_mask

    def wrong(exit_T: torch.Tensor, position_T: torch.Tensor, window: int | None) -> torch.Tensor:
        allowed = right(exit_T, position_T, window)
        exits = exit_T.tolist()
        branch = next((n for n in range(1, len(exits)) if exits[n] < exits[n - 1]), None)
        if branch is not None:
            allowed[0, 0, exits[branch], branch] = True
        return allowed

    model = tiny_llama(attention=NAME).to(dtype)
    assert Policy(model).fit.layout == "forest"
    monkeypatch.setattr(attention, "dense_mask", wrong)
    assert Policy(model).fit.layout == "alone"


def test_no_number_is_no_rounding() -> None:
    nan = torch.tensor([0.0, float("nan")])
    rounding = Rounding(0.1, lambda: [torch.tensor([0.2, 0.1])])
    assert rounding.covers(torch.tensor([0.3, -0.1]))
    assert not rounding.covers(torch.tensor([2.0, 0.0]))
    assert not rounding.covers(nan)
    assert not Rounding(0.1, lambda: [nan]).covers(torch.tensor([0.3]))
    asked: list[int] = []
    Rounding(0.1, lambda: asked.append(1) or [nan], at_once=True)
    assert asked  # though nothing was compared yet: all ranks ask together


def test_a_broken_tensor_is_named() -> None:
    model = tiny_llama()
    assert not_finite(model) == ""
    with torch.no_grad():  # finite, though their sum is not
        model.model.layers[0].mlp.up_proj.weight[0, :2] = torch.finfo(torch.float32).max
    assert not_finite(model) == ""
    with torch.no_grad():  # one against the other
        model.model.layers[0].mlp.up_proj.weight[0, :2] = torch.tensor([math.inf, -math.inf])
    assert "model.layers.0.mlp.up_proj.weight holds 2 of" in not_finite(model)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, :2] = 0.0
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, :3] = float("nan")
    assert "model.layers.1.mlp.up_proj.weight holds 3 of 2048 numbers" in not_finite(model)
    fit = Policy(model).fit
    assert "up_proj" in fit.reason
