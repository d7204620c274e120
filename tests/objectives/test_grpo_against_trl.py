"""TRL's own GRPO loss as a second opinion: the same completions, rewards and old log-probabilities.

TRL's `bnpo` is the mean over the tokens of what it is given at once, its `dapo` that over the whole
batch; both are our `dapo`, which counts the whole batch however it is cut. TRL 1.16 multiplies the KL
term by the ratio unless told otherwise (`use_bias_correction_kl`); here it is told.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.sampled_records import group, kept, largest_difference, loss_and_gradient, terms_of
from support.tiny import make_tokenizer, tiny_llama
from torch import Tensor

from onestage.models.attention import NAME
from onestage.models.policy import Policy
from onestage.objectives.grpo import GRPO

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

LIMIT = 9
PROMPTS = [[5, 17, 33, 8], [9, 50]]
ANSWERS = [
    [[11, 12, 13, 1], [14, 15], [16] * 9, [18, 1]],
    [[21, 1], [22, 23, 24, 25, 26, 1], [27, 28, 29], [30, 31, 32, 33, 1]],
]
REWARDS = [[1.0, 0.0, 0.3, 0.3], [0.0, 0.5, 1.0, 0.0]]
RECORDS = [
    group(*parts, number=n) for n, parts in enumerate(zip(PROMPTS, ANSWERS, REWARDS, strict=True))
]
FLAT = [(prompt, answer) for prompt, some in zip(PROMPTS, ANSWERS, strict=True) for answer in some]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer around a tiny model; its options are set by the tests."""
    config = trl.GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        **{"per_device_train_batch_size": 8, "num_generations": 4, "use_cpu": True, "bf16": False},
        **{"max_completion_length": LIMIT, "report_to": "none", "gradient_checkpointing": False},
    )
    made = trl.GRPOTrainer(
        model=tiny_llama(0),
        args=config,
        reward_funcs=lambda completions, **other: [0.0] * len(completions),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a"] * 8}),
        processing_class=make_tokenizer(),
    )
    missing = [name for name in INTERNALS if not hasattr(made, name)]
    if missing:
        pytest.skip(f"TRL {trl.__version__} has no {missing}")
    made.current_gradient_accumulation_steps = 1
    made.args.use_bias_correction_kl = False
    return made


INTERNALS = ["_compute_loss", "loss_type", "beta", "epsilon_low", "epsilon_high"]


def padded(rows: list[list[int]], left: bool) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids, mask = torch.ones(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest)
    for row, one in enumerate(rows):
        place = slice(longest - len(one), None) if left else slice(len(one))
        ids[row, place], mask[row, place] = torch.tensor(one), 1
    return ids, mask.long()


def logps(model: Any, answers: int) -> Tensor:
    """Log-probabilities of the completions, one sequence after another, padded with zeros."""
    found = torch.zeros(len(FLAT), answers)
    for row, (prompt, answer) in enumerate(FLAT):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        logp = torch.log_softmax(logits, -1)
        found[row, : len(answer)] = logp.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return found


def theirs(trainer: Any, old: Any, reference: Any) -> tuple[float, dict[str, Tensor]]:
    """TRL's loss and gradient, with advantages as its code has them: deviations plus 1e-4."""
    prompt_ids, prompt_mask = padded([prompt for prompt, _ in FLAT], left=True)
    ids, mask = padded([answer for _, answer in FLAT], left=False)
    reward = torch.tensor(REWARDS)
    centred = reward - reward.mean(1, keepdim=True)
    inputs = {
        **{"prompt_ids": prompt_ids, "prompt_mask": prompt_mask},
        **{"completion_ids": ids, "completion_mask": mask},
        "advantages": (centred / (reward.std(1, keepdim=True) + 1e-4)).flatten(),
        "num_items_in_batch": mask.sum(),
    }
    if old is not None:
        inputs["old_per_token_logps"] = logps(old, ids.shape[1])
    if reference is not None:
        inputs["ref_per_token_logps"] = logps(reference, ids.shape[1])
    trainer.model.train()
    trainer.model.zero_grad(set_to_none=True)
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("clip", [(0.2, None), (0.1, 0.28)], ids=["clip", "clip-higher"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("moved", [True, False], ids=["again", "once"])
@pytest.mark.parametrize(
    ("ours_type", "their_type", "level"),
    [
        ("grpo", "grpo", "token"),
        ("grpo", "grpo", "sequence"),
        ("dapo", "dapo", "token"),
        ("dapo", "bnpo", "token"),
        ("dr_grpo", "dr_grpo", "token"),
    ],
)
def test_loss_and_gradient(
    trainer: Any,
    ours_type: str,
    their_type: str,
    level: str,
    moved: bool,
    beta: float,
    clip: tuple[float, float | None],
) -> None:
    low, high = clip
    objective = GRPO(
        **{"loss_type": ours_type, "beta": beta, "epsilon": low, "epsilon_high": high},
        **{"max_completion_length": LIMIT, "importance_sampling_level": level, "eps": 1e-4},
    )
    terms, policy = terms_of(objective), Policy(tiny_llama(0, NAME))
    # old and reference: near the policy, so that some ratios are inside the clip range
    old, reference = near(policy.model, 1), near(policy.model, 2) if beta else None
    records = kept(
        RECORDS, terms, Policy(old), Policy(reference) if reference else None, again=moved
    )
    loss, gradient = loss_and_gradient(policy, terms, records)
    trainer.loss_type, trainer.beta, trainer.importance_sampling_level = their_type, beta, level
    trainer.epsilon_low, trainer.epsilon_high = low, low if high is None else high
    their_loss, theirs_g = theirs(trainer, old if moved else None, reference)
    assert loss == pytest.approx(their_loss, rel=1e-4, abs=1e-5)
    gap, scale = largest_difference(gradient, theirs_g)
    assert scale > 1e-3
    assert gap < 1e-4
    if moved:
        ratio = (logps(policy.model, LIMIT) - logps(old, LIMIT)).exp()
        assert (ratio > 1 + trainer.epsilon_high).any()
        assert (ratio < 1 - low).any()


def near(model: Any, seed: int) -> Any:
    """The model with slightly other weights."""
    moved = tiny_llama(0, NAME)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.3 * parameter.std() * torch.randn_like(parameter)
    return moved
