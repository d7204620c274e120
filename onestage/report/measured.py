"""What the names in `metrics.jsonl` mean: which figure a measurement belongs to, its axis, its pick."""

from __future__ import annotations

from dataclasses import dataclass

LOSSES, BENCHMARKS, REWARD, PULL, KEPT, SAMPLED, OPTIMISER = (
    "Losses",
    "Benchmarks",
    "Implicit reward",
    "Gradients of the terms",
    "What is kept",
    "Sampled answers",
    "Optimiser",
)
FAMILIES = {
    LOSSES: "Each point is the mean since the one before; nothing is smoothed. Losses of different "
    "objectives have no unit in common, so each has axes of its own. What a policy gradient calls its "
    "loss says nothing of success: see the sampled answers.",
    BENCHMARKS: "Suites that were asked while the run went, of the same items each time.",
    REWARD: "beta times the log-ratio to the reference, and how it stands to the given feedback.",
    PULL: "How strong each term pulls, and where to: by probes, on batches of their own, or by gauges, "
    "of a sketch of the gradients of the steps themselves (a norm of one is none of the other's).",
    KEPT: "On held-out text that no term trains on: loss, and how far the model moved from its start.",
    SAMPLED: "Answers the policy gave, and what the reward said.",
    OPTIMISER: "Learning rate, gradient before clipping, weights of the terms, speed.",
}


@dataclass(frozen=True)
class Place:
    """Where a measurement is drawn."""

    family: str
    title: str
    unit: str
    pick: str = ""
    better: str = ""
    """"higher" or "lower", where one is."""

    @property
    def axis(self) -> str:
        return f"{self.unit} ({self.better} is better)" if self.better else self.unit


IMPLICIT = {
    "implicit_reward": ("Implicit reward", "beta x log-ratio"),
    "implicit_score": ("Implicit score", "score, 0 to 1"),
    "score_error": ("Distance of implicit and given score", "mean of the distance"),
    "margin": ("Margin of pairs", "difference of implicit rewards"),
    "accuracy": ("Pairs the right way round", "share"),
    "label_accuracy": ("Labels the right way round", "share"),
    "chosen_log_ratio": ("Log-ratio of the chosen", "log-ratio to the reference, nats"),
    "rejected_log_ratio": ("Log-ratio of the rejected", "log-ratio to the reference, nats"),
}
ANSWERS = {
    "reward": ("Reward", "mean reward"),
    "success": ("Success", "share of problems solved"),
    "hint_share": ("Share of the solution given as a hint", "share"),
    "hint_length": ("Length of the hint", "steps"),
    "completion_length": ("Length of an answer", "tokens"),
    "kl": ("KL divergence from the reference", "nats a token"),
    "entropy": ("Entropy of the policy", "nats a token"),
    "truncated": ("Answers cut off", "share"),
    "frac_reward_zero_std": ("Groups that teach nothing", "share with equal rewards"),
}
LOWER = {"score_error", "kl", "truncated", "frac_reward_zero_std"}
HIGHER = {"accuracy", "label_accuracy", "reward", "success"}
MOVED = "KL to the start"
WHOLE = {
    "loss": Place(LOSSES, "Training loss", "loss", "all terms", "lower"),
    "eval/loss": Place(LOSSES, "Held-out loss", "loss", "all terms", "lower"),
    "learning_rate": Place(OPTIMISER, "Learning rate", "learning rate"),
    "grad_norm": Place(OPTIMISER, "Gradient norm", "norm before clipping", "all terms"),
    "grad_clip_rate": Place(OPTIMISER, "Steps whose gradient was clipped", "share", "all terms"),
    "tokens_per_second": Place(OPTIMISER, "Speed", "tokens a second"),
    "ideal_distance": Place(LOSSES, "Distance from the ideal point", "loss", better="lower"),
}


def place_of(key: str) -> Place | None:
    """The figure of a measurement; None for what has none."""
    if key in WHOLE:
        return WHOLE[key]
    stem, _, what = key.rpartition("/")
    first, _, rest = stem.partition("/")
    if first == "eval":
        return _held_out(rest, what)
    if first == "retention":
        title = {"loss": "Loss on kept text", "kl": MOVED}.get(what)
        unit = "KL divergence, nats a token" if what == "kl" else "nats a token"
        return Place(KEPT, title, unit, rest, "lower") if title else None
    if first == "task" and what == "kl":
        return Place(KEPT, MOVED, "KL divergence, nats a token", f"task {rest}", "lower")
    if first == "suite":
        return Place(BENCHMARKS, f"Suite {rest}", what, what) if rest and what != "items" else None
    if first in ("probe", "gauge"):
        return _pull(rest, what, "" if first == "probe" else ", by gauge")
    if stem in ("weight", "grad_norm", "grad_clip_rate"):
        title, unit = {
            "weight": ("Weight of a term", "weight"),
            "grad_norm": ("Gradient norm", "norm before clipping"),
            "grad_clip_rate": ("Steps whose gradient was clipped", "share"),
        }[stem]
        return Place(OPTIMISER, title, unit, what)
    if stem == "gap":
        return Place(LOSSES, "Gap to the best", "loss above the best known", what, "lower")
    if rest:
        return None
    return _stream(first, what, "")


def _held_out(place: str, what: str) -> Place | None:
    if place == "terms":
        return Place(LOSSES, "Held-out loss", "loss", f"term {what}", "lower")
    if "/" not in place and what == "loss":
        return Place(LOSSES, "Held-out loss", "loss", f"stream {place}", "lower")
    return _stream(place, what, "held-out ") if what != "loss" else None


def _stream(stream: str, what: str, prefix: str) -> Place | None:
    if not stream:
        return None
    if what == "loss":
        return Place(LOSSES, "Training loss", "loss", f"stream {stream}", "lower")
    for family, known in ((REWARD, IMPLICIT), (SAMPLED, ANSWERS)):
        if what in known:
            title, unit = known[what]
            better = "lower" if what in LOWER else "higher" if what in HIGHER else ""
            return Place(family, title, unit, f"{prefix}{stream}", better)
    return None


def _pull(place: str, what: str, by: str) -> Place | None:
    if place == "grad_norm":
        return Place(PULL, f"Gradient norm of a term{by}", "norm", what)
    if place == "grad_share":
        return Place(PULL, f"Share of the gradient{by}", "share of the summed norms", what)
    if place == "noise":
        return Place(PULL, f"Noise of a term's gradient{by}", "part of the squared norm", what)
    if place.startswith("cosine/"):
        pick = f"{place.removeprefix('cosine/')} and {what}"
        title = f"Cosine between two terms' gradients{by}"
        return Place(PULL, title, "cosine (below 0: conflict)", pick)
    return None
