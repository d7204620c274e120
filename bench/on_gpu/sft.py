"""A step of SFT at the shape of Llama 3.2 1B, by onestage and by TRL (`training.py`)."""

from __future__ import annotations

from on_gpu import Found, Given
from on_gpu.training import Task, race


def measure(given: Given) -> Found:
    return race(Task("sft", "gpteacher_roleplay", 32, ("prompt", "completion")), given)
