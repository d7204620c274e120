"""Losses under other tools' names: the same word with another meaning is carried by its meaning.

What stands here of TRL, ms-swift and Axolotl have too: their losses of pairs are TRL's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.training.imports import Carried

LOSSES: Mapping[str, Mapping[str, Any]] = {
    "sigmoid": {"name": "dpo"},
    "robust": {"name": "robust_dpo"},
    "hinge": {"name": "slic"},
    # The paper's is of whole responses, and ours by default; theirs is a mean over tokens.
    "ipo": {"name": "ipo", "average": True},
    "bco_pair": {"name": "bco", "shift": "zero"},
    "nca_pair": {"name": "nca"},
    "apo_zero": {"name": "apo"},
    "apo_down": {"name": "apo", "anchor": "down"},
    "sppo_hard": {"name": "sppo"},
    "orpo": {"name": "orpo"},
    "simpo": {"name": "simpo"},
    "cpo": {"name": "cpo"},
}
"""`loss_type` of pairs."""

THUMBS = {"kto": "mismatched", "apo_zero_unpaired": "zero"}
"""`loss_type` of thumbs: what ours calls its reference point."""

ANOTHER_BETA = ("nca", "sppo", "simpo")
"""Whose beta is not 0.1 here, as it is there where nothing is said."""
SMOOTHED = ("dpo", "robust_dpo")
"""What takes `label_smoothing`; of others it is left, and so told."""
POLICY_GRADIENT = ("epsilon", "epsilon_high", "importance_sampling_level")
"""Options of GRPO that go by the same name and meaning."""
SAMPLED = {
    **{"num_generations": "rollout.num_generations", "temperature": "rollout.temperature"},
    **{"max_completion_length": "rollout.max_completion_length", "top_p": "rollout.top_p"},
    **{"top_k": "rollout.top_k", "min_p": "rollout.min_p"},
    "num_iterations": "rollout.num_iterations",
}
"""How answers are drawn."""


def strength(carried: Carried, name: str, beta: Any, **more: Any) -> None:
    """An objective with the options that were given."""
    options = {k: v for k, v in {"beta": beta, **more}.items() if v is not None}
    carried.put("objective", {"name": name, **options} if options else name)


def preference(carried: Carried, loss: str, beta: Any, smoothing: str = "label_smoothing") -> None:
    """A loss of pairs or thumbs. smoothing: what the tool calls the part of labels that are wrong."""
    more = dict(LOSSES[loss])
    name = more.pop("name")
    if beta is None and name in ANOTHER_BETA:
        beta = 0.1
        carried.unsaid.append(f"beta is not given: {beta}, the tool's own default")
    if name == "simpo":
        with_likelihood(carried, beta, 0.5)
        return
    if name in SMOOTHED:
        more["label_smoothing"] = carried.take(smoothing) or None
        # Robust DPO of labels that are never wrong is DPO; ours has a part of them by default.
        name = "dpo" if more["label_smoothing"] is None else name
    if name == "orpo":
        carried.unsaid.append(
            "orpo: there the likelihood term is of the prompt and the answer, as its authors' code has "
            "it; here of the answer alone"
        )
    strength(carried, name, beta, **more)


def thumbs(carried: Carried, beta: Any, good: str, bad: str, loss: str = "kto") -> None:
    """KTO, with the weights of desirable and undesirable answers under the tool's names. loss: one of
    `THUMBS`; the tools' KTO takes its reference point of mismatched pairs, as published."""
    weights = {"desirable_weight": carried.take(good), "undesirable_weight": carried.take(bad)}
    strength(carried, "kto", beta, baseline=THUMBS[loss], **weights)


def with_margin(carried: Carried, beta: float, gamma: float) -> None:
    """SimPO, whose margin is ours as a part of beta."""
    strength(carried, "simpo", beta, gamma_beta_ratio=gamma / beta)


def with_likelihood(carried: Carried, beta: float, gamma: float) -> None:
    """The same of a tool that adds the likelihood of chosen answers to it, if not told otherwise: ours
    has no such term, which is left, and so told."""
    with_margin(carried, beta, carried.take("simpo_gamma", gamma))
    carried.given.setdefault("cpo_alpha", 1.0)


def single(carried: Carried) -> Any:
    """`loss_type`, of which TRL writes a list of one, too."""
    loss = carried.given.get("loss_type")
    if isinstance(loss, list) and len(loss) == 1:
        (loss,) = loss
        carried.given["loss_type"] = loss
    return loss


def left_one_out(carried: Carried, beta: Any) -> None:
    """RLOO."""
    more = {key: carried.take(key) for key in ("epsilon", "epsilon_high")}
    strength(carried, "rloo", beta, **more)
    _drawn(carried)


def answers_to_problems(carried: Carried, beta: Any, usual_loss: str) -> None:
    """GRPO, of a file or of a section of one. usual_loss: the tool's own `loss_type`."""
    given = carried.given
    more = {key: carried.take(key) for key in POLICY_GRADIENT}
    loss = given.get("loss_type") or usual_loss
    if loss in ("grpo", "dapo", "dr_grpo"):
        carried.take("loss_type")
        more["loss_type"] = loss
    if "scale_rewards" in given:
        scale = given.pop("scale_rewards")
        more["scale_rewards"] = {True: "group", False: "none"}.get(scale, scale)
    strength(carried, "grpo", beta, **more)
    _drawn(carried)


def _drawn(carried: Carried) -> None:
    """How answers are drawn; of `top_k` 0 or less is all of them."""
    for key, path in SAMPLED.items():
        value = carried.take(key)
        value = max(0, value) if key == "top_k" and isinstance(value, int) else value
        if value is not None:
            carried.put(path, value)


def judged(carried: Carried) -> None:
    """A reward model."""
    carried.put("model.task", "reward")
    strength(carried, "bradley_terry", None, centering=carried.take("center_rewards_coefficient"))
