"""What the names in `metrics.jsonl` mean: which figure a measurement belongs to, its axis, its pick."""

from __future__ import annotations

from dataclasses import dataclass

LOSSES, REWARD, PULL, KEPT, SAMPLED, OPTIMISER = (
    "Losses",
    "Implicit reward",
    "Gradients of the terms",
    "What is kept",
    "Sampled answers",
    "Optimiser",
)
FAMILIES = {
    LOSSES: "Each point is the mean since the one before; nothing is smoothed.",
    REWARD: "beta times the log-ratio to the reference, and how it stands to the given feedback.",
    PULL: "Measured by probes on batches of their own: how strong each term pulls, and where to.",
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
    "kl": ("KL to the reference", "nats a token"),
    "entropy": ("Entropy of the policy", "nats a token"),
    "truncated": ("Answers cut off", "share"),
    "frac_reward_zero_std": ("Groups that teach nothing", "share with equal rewards"),
}
BOUNDS = {
    "measured": ("Against a bound", "nats"),
    "multiplier": ("Multiplier of a bound", "nats of the goal a nat"),
}
"""Of `keep`: what is drawn while a run goes."""
WHOLE = {
    "loss": Place(LOSSES, "Training loss", "loss", "all terms"),
    "eval/loss": Place(LOSSES, "Held-out loss", "loss", "all terms"),
    "learning_rate": Place(OPTIMISER, "Learning rate", "learning rate"),
    "grad_norm": Place(OPTIMISER, "Gradient norm", "norm before clipping", "all terms"),
    "grad_clip_rate": Place(OPTIMISER, "Steps whose gradient was clipped", "share", "all terms"),
    "tokens_per_second": Place(OPTIMISER, "Speed", "tokens a second"),
    "ideal_distance": Place(LOSSES, "Distance from the ideal point", "loss"),
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
        title = {"loss": "Loss on kept text", "kl": "KL to the start"}.get(what)
        unit = "nats a token" if what == "kl" else "loss"
        return Place(KEPT, title, unit, rest) if title else None
    if first == "keep":
        title, unit = BOUNDS.get(what, ("", ""))
        return Place(KEPT, title, unit, rest) if title else None
    if first == "task" and what == "kl":
        return Place(KEPT, "KL to the start", "nats a token", f"task {rest}")
    if first == "probe":
        return _probe(rest, what)
    if stem in ("weight", "grad_norm", "grad_clip_rate"):
        title, unit = {
            "weight": ("Weight of a term", "weight"),
            "grad_norm": ("Gradient norm", "norm before clipping"),
            "grad_clip_rate": ("Steps whose gradient was clipped", "share"),
        }[stem]
        return Place(OPTIMISER, title, unit, what)
    if stem == "gap":
        return Place(LOSSES, "Gap to the best", "loss above f*", what)
    if rest:
        return None
    return _stream(first, what, "")


def _held_out(place: str, what: str) -> Place | None:
    if place == "terms":
        return Place(LOSSES, "Held-out loss", "loss", f"term {what}")
    if "/" not in place and what == "loss":
        return Place(LOSSES, "Held-out loss", "loss", f"stream {place}")
    return _stream(place, what, "held-out ") if what != "loss" else None


def _stream(stream: str, what: str, prefix: str) -> Place | None:
    if not stream:
        return None
    if what == "loss":
        return Place(LOSSES, "Training loss", "loss", f"stream {stream}")
    for family, known in ((REWARD, IMPLICIT), (SAMPLED, ANSWERS)):
        if what in known:
            title, unit = known[what]
            return Place(family, title, unit, f"{prefix}{stream}")
    return None


def _probe(place: str, what: str) -> Place | None:
    if place == "grad_norm":
        return Place(PULL, "Gradient norm of a term", "norm", what)
    if place == "grad_share":
        return Place(PULL, "Share of the gradient", "share of the summed norms", what)
    if place.startswith("cosine/"):
        pick = f"{place.removeprefix('cosine/')} and {what}"
        return Place(
            PULL, "Cosine between two terms' gradients", "cosine (below 0: conflict)", pick
        )
    return None
