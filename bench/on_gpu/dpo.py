"""A step of DPO at the shape of Llama 3.2 1B, by onestage and by TRL (`training.py`)."""

from __future__ import annotations

from on_gpu import Found, Given
from on_gpu.training import Task, race


def measure(given: Given) -> Found:
    return race(Task("dpo", "hh_harmless_pairs", 16, ("prompt", "chosen", "rejected")), given)
