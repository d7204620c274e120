"""A real vLLM in this process, with a real model; skipped where one of them is absent.

vLLM for the CPU wants an environment of its own (`docs/rollout.md`): run this file there.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

import onestage as one

FOLDER = Path(os.environ.get("ONESTAGE_SMOLLM2", "not there"))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None or not (FOLDER / "config.json").is_file(),
    reason="no vLLM, or no real model",
)


def test_twenty_steps_of_grpo_with_adapters_handed_over_each_time(tmp_path: Path) -> None:
    """Every step has other weights; vLLM's log-probabilities stay those of the policy."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {n} + {n}? One number."}],
            "answer": str(2 * n),
        }
        for n in range(2, 12)
    ]
    one.train(
        model={"name": str(FOLDER), "dtype": "float32", "lora": {"r": 8}},
        data=[{"name": "sums", "path": rows, "kind": "check", "reward": "match"}],
        objective="grpo",
        rollout={
            "engine": {
                "name": "vllm",
                "mode": "colocate",
                "dtype": "float32",
                "max_model_len": 256,
            },
            "num_generations": 4,
            "max_completion_length": 8,
        },
        train={"max_steps": 20, "batch_size": 1, "learning_rate": 1e-3, "logging_steps": 1},
        out=tmp_path / "out",
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    gaps = [line["rollout/engine_gap"] for line in lines if "rollout/engine_gap" in line]
    assert len(gaps) == 20
    assert max(gaps) < 1e-3
