"""DRO-V: regression on scores with a value function, the sound form of UNA's offset f(x).

Richemond et al. 2024, arXiv 2405.19107. With D = log pi(y|x) - log pi_ref(y|x) and r the score of one
answer,

    L = 1/2 (r - V(x) - beta D)^2

whose minimum over all answers to x is the optimal policy, with V(x) = beta log Z(x): the very offset
that the papers of UNA set to 0 (`uft`), learned for each prompt. Policy and value are two players: V is
stepped on L with the policy fixed, and the policy on L / beta with V fixed, which is

    - (r - V) grad log pi + beta / 2 grad D^2,

a policy gradient with a baseline and a squared penalty. V is the value head's number at the prompt's
last token, before the first token of the answer. The paper's value function is a model of its own; this
head stands on the policy's trunk, as in `ppo`, so that `vf_coef` says how much of the trunk it takes.

The loss that is told is L. Defaults: beta 1 (the paper's tau), vf_coef 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from onestage.objectives import Measured, Objective, Scored


@dataclass(frozen=True)
class DRO(Objective):
    paper = "2405.19107"
    equation = "`(s - V(x) - beta D)^2 / 2`, V the value head before the answer"
    at_start = "s^2 / 2"
    second_opinion = (
        "the paper's equation, and code of LLNL's protein_tune_rl run beside ours (the "
        "authors released none)"
    )
    unit = "response"
    kinds = frozenset({"score", "group", "label"})
    needs = frozenset({"logp", "reference", "value"})

    beta: float = 1.0
    """The paper's tau: what a nat of log-ratio is worth in score."""
    vf_coef: float = 1.0
    """Coefficient of the value function's own loss."""

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.vf_coef <= 0:
            raise ValueError(
                f"dro: beta and vf_coef must be positive, got {self.beta} and {self.vf_coef}"
            )

    def losses(self, batch: Scored) -> Tensor:
        reward_N, value_N = self.beta * batch.log_ratio_N(), _value_N(batch)
        left_N = batch.feedback.score_N.to(reward_N.dtype)
        policy_N = (left_N - value_N.detach() - reward_N) ** 2 / (2 * self.beta)
        return policy_N + self.vf_coef * (left_N - value_N - reward_N.detach()) ** 2 / 2

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        value_N = _value_N(batch)
        error_N = batch.feedback.score_N - value_N - self.beta * batch.log_ratio_N()
        return {"loss": error_N**2 / 2, "value": value_N}


def _value_N(batch: Scored) -> Tensor:
    """What the head expects before the first token of each response."""
    first_N = batch.feedback.tokens_N.cumsum(0) - batch.feedback.tokens_N
    value_N: Tensor = batch.extra["value"][first_N]
    return value_N
