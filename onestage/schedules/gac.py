"""GAC: as much imitation as makes the mixed gradient least noisy about the one that is wanted.

    E |mu g_s + (1 - mu) g_r - (alpha E g_s + (1 - alpha) E g_r)|^2 is least at
    mu* = (alpha D^2 + s_r^2) / (D^2 + s_s^2 + s_r^2),   D = |E g_s - E g_r|

Hu et al. 2026 (arXiv 2605.26184), the noise-aware controller. Where the supervised gradient and the
others agree, the less noisy one has more weight; where they do not, mu is alpha. As in the released
code, noise and distance are running means, an estimate of mu follows mu* slowly, mu is a mean of that
and of a prior, and no step moves it by more than `cap`. Estimate and mu are one number there, drawn to
the prior again in every step, so that what was estimated has a weight of 2 % at rest; they are two here.
alpha and the prior are the given weight of the supervised term (in the paper alpha is 1/2, or follows a
KL, and the prior falls along a cosine: that is `chord`). The others share 1 - mu by their weights.

The paper reads noise and disagreement off the losses' coefficients (advantages, likelihoods), which only
SFT and GRPO have. Here they are those of the gradients themselves, of any terms, as a gauge sees them
(`training.gauges`): in a sketch of some trained layers, by two halves of each term's records. A term of
a single record in a step says nothing about its noise, and leaves mu where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.config import nearest
from onestage.schedules import Schedule, Slopes

KEPT = ("supervised", "others", "apart")
"""What running means are of: both gradients' noise, and the square of their distance."""


@dataclass
class GAC(Schedule):
    supervised: str = "sft"
    """The term that mu weighs."""
    ema_rate: float = 0.1
    """How much a step counts in the means of noise and distance, against those before."""
    rate: float = 0.01
    """How far the estimate goes to mu* in a step."""
    prior: float = 0.5
    """How much of mu is the given weight; the rest is the estimate."""
    cap: float = 0.01
    """The most that a step moves mu by."""
    least: float = 0.05
    most: float = 0.9
    """What mu is kept between."""
    mu: float | None = field(default=None, init=False)
    estimate: float | None = field(default=None, init=False)
    means: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights and self.supervised not in self.weights:
            known = list(self.weights)
            raise ValueError(
                f"gac: no term {self.supervised!r} to weigh by mu{nearest(self.supervised, known)}"
            )
        if self.weights and not any(w for t, w in self.weights.items() if t != self.supervised):
            raise ValueError(f"gac: needs another term beside {self.supervised!r}")
        if not (0 < self.ema_rate <= 1 and 0 < self.rate <= 1 and 0 <= self.prior <= 1):
            raise ValueError(
                "gac: needs ema_rate and rate in (0, 1] and prior in [0, 1], got "
                f"{self.ema_rate}, {self.rate}, {self.prior}"
            )
        if not (self.cap > 0 and 0 <= self.least < self.most <= 1):
            raise ValueError(
                "gac: needs cap > 0 and 0 <= least < most <= 1, got "
                f"{self.cap}, {self.least}, {self.most}"
            )

    @property
    def feels(self) -> bool:
        return True

    @property
    def alpha(self) -> float:
        """The given weight of the supervised term."""
        return self.share[self.supervised]

    def weigh(self, step: int) -> dict[str, float]:
        mu = self.mu if self.mu is not None else self._kept(self.alpha)
        others = self._others()
        return {term: (1 - mu) * others[term] if term in others else mu for term in self.weights}

    def _others(self) -> dict[str, float]:
        """Their shares of what mu leaves."""
        others = {term: w for term, w in self.share.items() if term != self.supervised}
        total = sum(others.values())
        return {term: w / total for term, w in others.items()}

    def _kept(self, mu: float) -> float:
        return min(self.most, max(self.least, mu)) if self.alpha else 0.0

    def feel(self, step: int, slopes: Slopes) -> None:
        others = {term: part for term, part in self._others().items() if part}
        every = [self.supervised, *others]
        if not self.alpha or not all(term in slopes.noise for term in every):
            return
        # g_s - g_r as a combination of the terms' gradients.
        part = {self.supervised: 1.0, **{term: -w for term, w in others.items()}}
        seen = {
            "supervised": slopes.noise[self.supervised],
            "others": sum(w**2 * slopes.noise[term] for term, w in others.items()),
            "apart": sum(part[a] * part[b] * slopes.inner[a][b] for a in part for b in part),
        }
        # Of the batches' gradients; that of their means is as much less as they are noisy.
        seen["apart"] -= seen["supervised"] + seen["others"]
        for name in KEPT:
            before = self.means.get(name, seen[name])
            self.means[name] = before + self.ema_rate * (seen[name] - before)
        self._move()

    def _move(self) -> None:
        apart, own, others = (max(0.0, self.means[name]) for name in ("apart", *KEPT[:2]))
        if not apart + own + others > 0:
            return
        best = (self.alpha * apart + others) / (apart + own + others)
        now = self._kept(self.alpha) if self.mu is None else self.mu
        before = now if self.estimate is None else self.estimate
        self.estimate = self._kept(before + self.rate * (best - before))
        wanted = self.prior * self.alpha + (1 - self.prior) * self.estimate
        self.mu = self._kept(now + max(-self.cap, min(self.cap, wanted - now)))

    def state(self) -> dict[str, Any]:
        return {"mu": self.mu, "estimate": self.estimate, "means": dict(self.means)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mu, self.estimate = state["mu"], state["estimate"]
        self.means = dict(state["means"])
