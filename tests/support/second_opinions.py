"""Other people's losses on the numbers of a batch: TRL's own code, with a stand-in for its model alone.

TRL is imported once for all tests that ask it, and each of its losses gets one pair at a time: what it
gives is a mean over the batch, and some of its losses sort the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from onestage.objectives import Objective, Scored
from support.objective_batches import NAN, scored


def some_pairs(count: int = 3, seed: int = 3, spread: float = 1.0) -> Scored:
    """Pairs of a few tokens a side, in float64."""
    records = [("pair", [NAN, NAN])] * count
    return scored(records, seed=seed, spread=spread, dtype=torch.float64)


def agree(objective: Objective, batch: Scored, theirs: Callable[[Scored], Tensor]) -> None:
    """The sums of the losses, and their gradients by each token, are the same to 1e-5."""
    batch = replace(batch, logp_K=batch.logp_K.detach().clone().requires_grad_())
    mine, other = objective(batch).loss_U.sum(), theirs(batch).sum()
    (mine_K,) = torch.autograd.grad(mine, batch.logp_K)
    (other_K,) = torch.autograd.grad(other, batch.logp_K)
    torch.testing.assert_close(mine.double(), other.double(), rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(mine_K, other_K, rtol=1e-5, atol=1e-9)
    assert bool(mine_K.any())


def table(batch: Scored, value_K: Tensor) -> Tensor:
    """A token value as others hold it (N, T): a row a response, padded with zeros."""
    shape = len(batch.feedback.tokens_N), int(batch.feedback.tokens_N.max())
    places = (batch.response_K, batch.place_K())
    return value_K.new_zeros(shape).index_put(places, value_K)


def masked_mean(value: Tensor, mask: Tensor) -> Tensor:
    """verl's: of a table's tokens, over the mask."""
    return (value * mask).sum() / mask.sum()


def sides(batch: Scored, pair: int, value_K: Tensor) -> tuple[Tensor, Tensor]:
    """A token value of a pair's chosen and of its rejected side."""
    chosen, rejected = batch.feedback.pair_P2[pair].tolist()
    return value_K[batch.response_K == chosen], value_K[batch.response_K == rejected]


def means(batch: Scored, pair: int) -> tuple[Tensor, Tensor]:
    """Mean log-probabilities a token of both sides (1 each)."""
    chosen, rejected = sides(batch, pair, batch.logp_K)
    return chosen.mean()[None], rejected.mean()[None]


def trl_dpo(loss_type: str | list[str], beta: float, **options: Any) -> Callable[[Scored], Tensor]:
    """The losses (P) of TRL's DPO trainer."""
    trainer = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer
    types = [loss_type] if isinstance(loss_type, str) else loss_type
    one = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=_same, gather_for_metrics=_same),
        args=SimpleNamespace(gradient_checkpointing=False),
        loss_types=types,
        beta=beta,
        label_smoothing=0.0,
        f_divergence_type="reverse_kl",
        precompute_ref_logps=True,
        _metrics=defaultdict(lambda: defaultdict(list)),
        **{"aux_loss_enabled": False, "use_weighting": False, "ld_alpha": None},
        **{"_total_train_tokens": 0, "_tp_size": 1},
    )
    one.loss_weights = options.pop("loss_weights", [1.0] * len(types))
    vars(one).update(options)

    def loss(batch: Scored, pair: int) -> Tensor:
        logps, references = sides(batch, pair, batch.logp_K), sides(batch, pair, batch.ref_logp_K)
        longest = max(map(len, logps))
        padded = torch.stack(
            [torch.nn.functional.pad(side, (0, longest - len(side))) for side in logps]
        )
        scored_LK = torch.stack([torch.arange(longest) < len(side) for side in logps])
        mask = torch.nn.functional.pad(scored_LK.long(), (1, 0))  # a prompt of one token
        zeros = torch.zeros_like(padded)
        said = SimpleNamespace(
            log_probs=padded, entropy=zeros, mean_logits=zeros, is_top1=zeros > 1
        )
        inputs = {
            **{"input_ids": mask, "attention_mask": torch.ones_like(mask), "completion_mask": mask},
            "ref_chosen_logps": references[0].sum()[None],
            "ref_rejected_logps": references[1].sum()[None],
        }
        found: Tensor = trainer._compute_loss(one, lambda **_: said, inputs, False)
        return found

    return lambda batch: torch.stack([loss(batch, p) for p in range(len(batch.feedback.pair_P2))])


def trl_cpo(loss_type: str, beta: float, cpo_alpha: float) -> Callable[[Scored], Tensor]:
    """The losses (P) of TRL's CPO trainer, the likelihood of the chosen side included."""
    trainer = pytest.importorskip("trl.experimental.cpo.cpo_trainer").CPOTrainer
    one = SimpleNamespace(alpha=0.0, loss_type=loss_type, beta=beta, label_smoothing=0.0)
    one.accelerator = SimpleNamespace(device="cpu")

    def loss(batch: Scored, pair: int) -> Tensor:
        chosen, rejected = (side.sum()[None] for side in sides(batch, pair, batch.logp_K))
        found: Tensor = trainer.cpo_loss(one, chosen, rejected)[0][0]
        # The likelihood term is made in another method, of logits: a mean over the tokens.
        return found - cpo_alpha * means(batch, pair)[0][0]

    return lambda batch: torch.stack([loss(batch, p) for p in range(len(batch.feedback.pair_P2))])


def trl_orpo(beta: float) -> Callable[[Scored], Tensor]:
    """The losses (P) of TRL's ORPO trainer, with the likelihood of the chosen response alone."""
    trainer = pytest.importorskip("trl.experimental.orpo.orpo_trainer").ORPOTrainer
    one = SimpleNamespace(beta=beta, accelerator=SimpleNamespace(device="cpu"))

    def loss(batch: Scored, pair: int) -> Tensor:
        chosen, rejected = means(batch, pair)
        found: Tensor = -chosen[0] - trainer.odds_ratio_loss(one, chosen, rejected)[0][0]
        return found

    return lambda batch: torch.stack([loss(batch, p) for p in range(len(batch.feedback.pair_P2))])


def _same(value: Tensor) -> Tensor:
    return value


def trl_kto(beta: float, reference_point: float, **weights: float) -> Callable[[Scored], Tensor]:
    """The losses (N) of TRL's KTO trainer, of labels, where its mismatched pairs come to this z."""
    trainer = pytest.importorskip("trl.trainer.kto_trainer").KTOTrainer
    one = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=_same),
        **{"loss_type": "kto", "beta": beta, "calculate_KL": True, "precompute_ref_logps": True},
        **{"desirable_weight": 1.0, "undesirable_weight": 1.0, "aux_loss_enabled": False},
        **{"_total_train_tokens": 0, "_tp_size": 1},
        _metrics=defaultdict(lambda: defaultdict(list)),
        _compute_kl_logps=lambda model, batch: torch.tensor([reference_point]),
    )
    vars(one).update(weights)

    def loss(batch: Scored, response: int) -> Tensor:
        mine_K = batch.response_K == response
        logps = batch.logp_K[mine_K][None]
        mask = torch.nn.functional.pad(torch.ones_like(logps).long(), (1, 0))
        zeros = torch.zeros_like(logps)
        said = SimpleNamespace(log_probs=logps, entropy=zeros, mean_logits=zeros)
        inputs = {
            **{"input_ids": mask, "attention_mask": mask, "completion_mask": mask},
            "label": batch.feedback.score_N[response : response + 1] == 1,
            "ref_logps": batch.ref_logp_K[mine_K].sum()[None],
            "ref_KL_logps": torch.zeros(1),
        }
        found: Tensor = trainer._compute_loss(one, lambda **_: said, inputs, False)
        return found

    return lambda batch: torch.stack([loss(batch, n) for n in range(len(batch.feedback.tokens_N))])
