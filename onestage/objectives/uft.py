"""UFT and UNA: one implicit reward for every kind of feedback.

Wang et al. 2024, UNA (arXiv 2408.15339) and UFT (arXiv 2410.21438). With D = log pi(y|x) -
log pi_ref(y|x) summed over a response, the implicit score is s = sigma(beta * D + f), and

    score, group, check  (s - score)^2           UNA Eq. 13; the score of a check is its reward
    label         (s - 1)^2 or s^2               UNA Eq. 11; `loss: bce` gives Eq. 12
    demonstration (s - 1)^2                      UFT Eq. 7
    pair          - log sigma(beta (D_w - D_l))  UNA Eq. 10, which is DPO

The papers print some of these with a minus sign; their code minimises the positive forms above.
`loss: bce` is -t log s - (1 - t) log(1 - s), also for scores (soft labels), which the papers leave
out: it has the same minimiser and does not saturate.

The offset f(x) is beta log Z(x), forced by normalisation (it is DPO's Eq. 4), and the papers set it
to 0. Then s = 1/2 is where training starts and every score is read against it: scores above 1/2 pull
a response up, scores below push it down. `offset` makes the zero point explicit. It never applies to
demonstrations, whose target 1 would only drive it upwards.

Online (`check`: the policy answers, a reward judges) the regression is read two ways. As it stands,
rewards are scores: those outside [0, 1] are brought to its ends, and `clip_rate` says how many were.
With `loss: raw` the reward itself is met, without a sigmoid on either side,

    score, group, check  (reward - beta D - f)^2     UNA Eq. 6

whose gradient on the policy's own samples is -2 beta times that of the reward less beta KL to the
reference, whatever f is (una_uft T2; of the sigmoid form that is not so, T2b): f is a baseline and
takes variance away, which `offset: group` or `learned` do. Here D is to the reference, as the paper has
it; the authors' released online script compares with the policy that sampled instead, so nothing in its
loss ties the policy to the reference. Hints and worked answers are not responses of the policy and have
no loss.

Defaults: UFT's setting for the mixture, beta 0.01, MSE, f = 0. UNA-score on its own used beta 0.03.

The authors' scripts (`UNA_trainer_*` of ZhichaoWang970201/UNA-UFT) have these losses for scores and
thumbs, one pair at a time; of a larger batch they take all ratings from its first pair, and `log(1 -
sigmoid)` is infinite from beta D = 17 on. Of demonstrations and of UFT they hold no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from onestage.data.kinds import KINDS, Kind
from onestage.objectives import Feedback, Measured, Objective, Scored, Units
from onestage.objectives._host import places
from onestage.objectives._surrogate import group_means


@dataclass(frozen=True)
class UFT(Objective):
    paper = "2410.21438"
    equation = "`(sigma(beta D + f) - t)^2` or cross-entropy; pairs `-log sigma(beta (D_w - D_l))`"
    at_start = "1/4, ln 2, (s - 1/2)^2"
    second_opinion = "the authors' code, run beside ours (scores, thumbs); TRL's (pairs)"
    unit = "response"

    beta: float = 0.01
    loss: Literal["mse", "bce", "raw"] = "mse"
    """Distance between implicit score and target; `raw`: between implicit and given reward."""
    pairs: Literal["pair", "score"] = "pair"
    """How a pair is read: by UNA's pair loss (one unit), or as two scored responses, with its own
    scores where the record has them and 1 and 0 where not."""
    target_clip: float = 0.0
    """Targets are kept in [clip, 1 - clip]; 0 and 1 lie at infinite reward (una_uft T6)."""
    offset: Literal["none", "constant", "learned", "group"] = "none"
    """f: none (paper), `offset_value`, one number learned along, or chosen for each group such that
    implicit rewards and target log-odds have the same mean (only differences in a group count)."""
    offset_value: float = 0.0
    """The constant f, or the first value of the learned one."""
    offset_learning_rate: float = 1.0
    """Step of the learned offset, in units of a Newton step."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"uft: beta must be positive, got {self.beta}")
        if not 0 <= self.target_clip < 0.5:
            raise ValueError(f"uft: target_clip must be in [0, 0.5), got {self.target_clip}")
        if self.loss == "raw" and (self.target_clip or self.pairs == "score"):
            raise ValueError(
                "uft: loss `raw` meets rewards as they are: no target_clip, and pairs only as pairs"
            )
        if self.offset == "group" and self.target_clip == 0 and self.loss != "raw":
            raise ValueError("uft: offset `group` needs target_clip > 0: it uses targets' log-odds")

    @property
    def kinds(self) -> frozenset[Kind]:
        usable: frozenset[Kind] = frozenset(KINDS)
        if self.loss == "raw":
            usable = frozenset({"score", "group", "check", "pair"})
        return usable - {"score", "label"} if self.offset == "group" else usable

    def _single_N(self, feedback: Feedback) -> Tensor:
        """Mask (N) of the responses that are a unit of their own."""
        return feedback.are("response") & ~self._as_pair_N(feedback)

    def _as_pair_N(self, feedback: Feedback) -> Tensor:
        none_N = torch.zeros_like(feedback.kind_N, dtype=torch.bool)
        return feedback.of("pair") if self.pairs == "pair" else none_N

    def units(self, feedback: Feedback) -> Units:
        """The responses that are a unit of their own, then the pairs."""
        single_M = places(feedback, self._single_N)
        pairs = feedback.units("pair", feedback.weight_N)
        weight_M, record_M = feedback.weight_N[single_M], feedback.record_N[single_M]
        if self.pairs == "score":
            return Units(weight_M, record_M)
        return Units(torch.cat([weight_M, pairs.weight_U]), torch.cat([record_M, pairs.record_U]))

    def losses(self, batch: Scored) -> Tensor:
        logit_N, target_N = self._read_N(batch)
        single_M = places(batch.feedback, self._single_N)
        loss_M = DISTANCES[self.loss](logit_N, target_N)[single_M]
        if self.pairs == "score":
            return loss_M
        return torch.cat([loss_M, -F.logsigmoid(self.beta * batch.margin_P())])

    def _read_N(self, batch: Scored) -> tuple[Tensor, Tensor]:
        """Log-odds of each response's implicit score (of `raw`, implicit reward), and its target."""
        reward_N, target_N = self.beta * batch.log_ratio_N(), self._target_N(batch.feedback)
        return reward_N + self._offset_N(reward_N, target_N, batch), target_N

    def _target_N(self, feedback: Feedback) -> Tensor:
        good_N = feedback.of("demonstration", "text", "pair") & ~feedback.rejected_N
        read_N = torch.where(feedback.score_N.isnan(), good_N.float(), feedback.score_N)
        if self.loss == "raw":
            return read_N
        return read_N.clamp(self.target_clip, 1 - self.target_clip)

    def _offset_N(self, reward_N: Tensor, target_N: Tensor, batch: Scored) -> Tensor:
        if self.offset == "none":
            return torch.zeros_like(reward_N)
        feedback = batch.feedback
        judged_N = ~feedback.of("demonstration", "text")
        if self.offset == "group":
            aim_N = target_N if self.loss == "raw" else torch.logit(target_N)
            own_N = feedback.are("response")
            mean_N = group_means(aim_N - reward_N, own_N, feedback).to(reward_N.dtype)
            return torch.where(judged_N, mean_N, 0.0)
        return judged_N * batch.state["offset"]

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        logit_N, target_N = self._read_N(batch)
        feedback, single_N = batch.feedback, self._single_N(batch.feedback)
        score_N = logit_N if self.loss == "raw" else torch.sigmoid(logit_N)
        found = {"implicit_score": score_N, "score_error": (score_N - target_N).abs()}
        clipped_N = (feedback.score_N.nan_to_num(1.0) - target_N).abs() > 0
        may_N = single_N if self.target_clip else feedback.of("check")
        found["clip_rate"] = torch.where(may_N, clipped_N.float(), torch.nan)
        return {name: torch.where(single_N, v_N, torch.nan) for name, v_N in found.items()}

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        """Slope and curvature of the loss in a common offset, for the learned one."""
        if self.offset != "learned":
            return {}
        logit_N, target_N = self._read_N(batch)
        judged_N = ~batch.feedback.of("demonstration", "text") & self._single_N(batch.feedback)
        score_N = torch.sigmoid(logit_N)
        spread_N, error_N = score_N * (1 - score_N), score_N - target_N
        if self.loss == "raw":
            slope_N = 2 * (logit_N - target_N)
            curvature_N = torch.full_like(slope_N, 2.0)
        elif self.loss == "mse":
            slope_N, curvature_N = 2 * error_N * spread_N, 2 * spread_N**2
        else:
            slope_N, curvature_N = error_N, spread_N
        return {
            "slope": torch.where(judged_N, slope_N, torch.nan),
            "curvature": torch.where(judged_N, curvature_N, torch.nan),
        }

    def start(self) -> dict[str, float]:
        return {"offset": self.offset_value} if self.offset in ("constant", "learned") else {}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        if self.offset != "learned" or "slope" not in observed:
            return dict(state)
        # Where scores are near 0 or 1 the curvature vanishes, and a whole Newton step would never
        # come back.
        step = observed["slope"] / max(observed["curvature"], 1e-3)
        return {"offset": state["offset"] - self.offset_learning_rate * max(-1.0, min(1.0, step))}


def _mse(logit_N: Tensor, target_N: Tensor) -> Tensor:
    return (torch.sigmoid(logit_N) - target_N) ** 2


def _bce(logit_N: Tensor, target_N: Tensor) -> Tensor:
    return -target_N * F.logsigmoid(logit_N) - (1 - target_N) * F.logsigmoid(-logit_N)


def _raw(reward_N: Tensor, given_N: Tensor) -> Tensor:
    return (given_N - reward_N) ** 2


DISTANCES = {"mse": _mse, "bce": _bce, "raw": _raw}
