"""A step on sampled groups: a prompt that stands once gives the same gradient as a repeated one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.sampled_records import group, kept, largest_difference, loss_and_gradient, terms_of
from support.tiny import tiny_llama

from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.models.attention import NAME
from onestage.models.policy import Policy
from onestage.objectives import make


def groups(prompt: int, answer: int, hint: int = 0, count: int = 2, size: int = 8) -> list[Encoded]:
    generator = np.random.default_rng(0)

    def ids(length: int) -> list[int]:
        return generator.integers(2, 400, size=length).tolist()

    return [
        group(
            ids(prompt),
            [ids(int(n)) for n in generator.integers(answer // 2, answer + 1, size=size)],
            generator.random(size).round(1).tolist(),
            ids(hint) if number % 2 == 0 else (),
            number,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo", {}),
        ("grpo", {"loss_type": "grpo", "beta": 0.05}),
        ("grpo", {"loss_type": "dr_grpo", "scale_rewards": "none", "entropy_coef": 0.01}),
        ("grpo", {"importance_sampling_level": "sequence", "loss_type": "grpo"}),
    ],
    ids=str,
)
@pytest.mark.parametrize(("prompt", "answer", "hint"), [(20, 20, 12), (90, 80, 40)])
def test_a_shared_prompt_changes_no_gradient(
    name: str, options: dict[str, Any], prompt: int, answer: int, hint: int
) -> None:
    objective = make({"name": name, **options})
    terms, policy = terms_of(objective), Policy(tiny_llama(0, NAME))
    reference = Policy(tiny_llama(1, NAME)) if "reference" in objective.needs else None
    # the policy has moved on since it sampled
    records = kept(groups(prompt, answer, hint), terms, Policy(tiny_llama(2, NAME)), reference)
    together, apart = (pack_records(records, 4096, share=share) for share in (True, False))
    assert sum(map(len, together.rows)) < 0.6 * sum(map(len, apart.rows))
    loss, gradient = loss_and_gradient(policy, terms, records)
    want_loss, want = loss_and_gradient(policy, terms, records, share=False)
    assert loss == pytest.approx(want_loss, rel=1e-5, abs=1e-6)
    gap, scale = largest_difference(gradient, want)
    assert scale > 1e-4
    assert gap < 1e-5
