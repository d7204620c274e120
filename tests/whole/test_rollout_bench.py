"""`bench/rollout.py --real` runs, in seconds, on a model that stands for a real one."""

from __future__ import annotations

import sys
from pathlib import Path

from support import forked

BENCH = Path(__file__).parents[2] / "bench" / "rollout.py"


def test_the_bench_of_sampling_runs(model_folder: Path) -> None:
    sizes = ["--tiny", "--rounds", "1", "--threads", "1", "--no-save"]
    told = ["--real", str(model_folder), "--modes", "spread", "--dtypes", "float32", *sizes]
    done = forked.run([sys.executable, str(BENCH), *told])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "spread float32, onestage, as it was: " in done.stdout
    assert "by the clock (target 1.5)" in done.stdout
