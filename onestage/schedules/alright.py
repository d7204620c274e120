"""ALRIGHT: one term a step, drawn with probability lambda.

    i_t = i with probability lambda_i;  theta <- theta - alpha grad f_{i_t}     (not times lambda)

Fernando et al. 2024 (arXiv 2410.15483), algorithm 2: the expected step is that of Mix at the cost of
one term. The draw is a function of (seed, step), so it is the same on all processes and after a
resume, and the two kinds of records need no equal lengths (xright.md T10, T11).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from onestage.schedules import Schedule, only


@dataclass
class Alright(Schedule):
    one_at_a_time = True

    def weigh(self, step: int) -> dict[str, float]:
        left = uniform(self.seed, step)
        share = self.share
        for term, part in share.items():
            left -= part
            if left < 0:
                return only(term, self.weights)
        # Shares may add up to a little less than 1: what is missing is the last term's.
        return only([term for term, part in share.items() if part][-1], self.weights)


def uniform(seed: int, step: int) -> float:
    """A number in [0, 1), a function of its arguments alone."""
    digest = hashlib.blake2b(f"alright/{seed}/{step}".encode(), digest_size=8).digest()
    # 53 bits: all that a float in [0, 1) can hold.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
