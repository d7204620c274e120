"""What is logged of every step beside the loss, whatever the objective.

Log-ratios of chosen and rejected responses are kept apart: a margin can grow while both fall.
"""

from __future__ import annotations

import torch

from onestage.objectives.contract import Feedback, Measured, Scored


def measure(batch: Scored, beta: float, *, reference: bool) -> dict[str, Measured]:
    """Detached measurements by name; with `reference`, those that need one.

    `logp` is per token; log-ratios and implicit rewards (beta times them) are per response. In an
    evaluation, where nothing is trained, implicit rewards are also told by given score:
    `implicit_reward_at_0.3` is of the responses whose score is nearest 0.3.
    """
    feedback, trained = batch.feedback, batch.logp_K.requires_grad
    batch = Scored(feedback, batch.logp_K.detach(), batch.ref_logp_K, batch.response_K)
    record_N, own_N = feedback.record_N, feedback.are("response")
    owner_M = record_N[own_N]
    logp_N = batch.per_response(batch.logp_K)
    found = {"logp": Measured((logp_N / feedback.tokens_N)[own_N], owner_M)}
    check_N = feedback.of("check") & own_N
    if bool(check_N.any()):
        found["reward"] = Measured(feedback.score_N[check_N], record_N[check_N])
    if not reference:
        return found
    log_ratio_N = batch.log_ratio_N()
    found["log_ratio"] = Measured(log_ratio_N[own_N], owner_M)
    if beta:
        found["implicit_reward"] = Measured(beta * log_ratio_N[own_N], owner_M)
    if len(feedback.pair_P2):
        chosen_P, rejected_P = feedback.pair_P2.unbind(1)
        owner_P = record_N[chosen_P]
        margin_P = log_ratio_N[chosen_P] - log_ratio_N[rejected_P]
        found["chosen_log_ratio"] = Measured(log_ratio_N[chosen_P], owner_P)
        found["rejected_log_ratio"] = Measured(log_ratio_N[rejected_P], owner_P)
        found["margin"] = Measured((beta or 1.0) * margin_P, owner_P)
        found["accuracy"] = Measured(_right(margin_P), owner_P)
    if beta and not trained:
        found |= _by_score(beta * log_ratio_N, feedback)
    label_N = feedback.of("label")
    if bool(label_N.any()):
        side_N = torch.where(feedback.score_N > 0.5, log_ratio_N, -log_ratio_N)
        found["label_accuracy"] = Measured(_right(side_N[label_N]), record_N[label_N])
    return found


def _by_score(reward_N: torch.Tensor, feedback: Feedback) -> dict[str, Measured]:
    """Implicit rewards of the responses whose given score lies nearest each tenth."""
    scored_N = feedback.of("score", "group", "check") & feedback.are("response")
    tenth_N = (10 * feedback.score_N).round().where(scored_N, -1)
    return {
        f"implicit_reward_at_{tenth / 10:g}": Measured(
            reward_N[tenth_N == tenth], feedback.record_N[tenth_N == tenth]
        )
        for tenth in tenth_N.unique().tolist()
        if 0 <= tenth <= 10
    }


def _right(margin: torch.Tensor) -> torch.Tensor:
    """1 where the margin is positive, 1/2 where it is zero (as before training), else 0."""
    return (torch.sign(margin) + 1) / 2
