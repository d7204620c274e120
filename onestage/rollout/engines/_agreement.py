"""Whether an engine that runs a copy of the policy says what the policy says.

An engine with old weights, other arithmetic or another idea of the prompt samples from another policy
than the one that is trained, and nothing fails. So after each sampling the first completion of a few
requests is scored by the policy itself, at temperature 1, and compared with what the engine reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onestage.data.packing import pack
from onestage.data.trees import TokenPath
from onestage.models.policy import Policy
from onestage.rollout.engines import Completion, Request

CHECKED = 4
"""Requests of each sampling whose first completion is compared."""


class EngineGapError(RuntimeError):
    """The engine's log-probabilities are too far from the policy's."""


def gap(
    policy: Policy, requests: Sequence[Request], drawn: Sequence[Sequence[Completion]]
) -> float:
    """Mean distance (nats a token) of the engine's log-probabilities from the policy's."""
    distances = [np.zeros(0, np.float32)]
    for request, some in list(zip(requests, drawn, strict=True))[:CHECKED]:
        for one in some[:1]:
            ids, start = np.concatenate([request.ids, one.ids]), len(request.ids)
            (row,) = pack([[TokenPath(ids, ((start, len(ids)),), (0,))]], len(ids))
            distances.append(np.abs(policy(row).float().cpu().numpy() - one.logp))
    every = np.concatenate(distances)
    return float(every.mean()) if len(every) else 0.0


def complaint(found: float, tolerance: float) -> str:
    return (
        f"the rollout engine's log-probabilities are {found:.3g} nats a token from the policy's, more "
        f"than its tolerance of {tolerance:g}: its weights are old, its precision is lower, or it "
        "reports them after temperature (a vLLM server needs --logprobs-mode raw_logprobs)"
    )
