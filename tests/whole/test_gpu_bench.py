"""`bench/gpu.py` runs: its parts in their smallest shapes, on whatever device there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import forked

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_the_bench_for_gpus_runs(tmp_path: Path) -> None:
    told = ["--tiny", "--name", "here", "--out", str(tmp_path), "--data", str(DATA)]
    command = [sys.executable, str(ROOT / "bench" / "gpu.py"), *told]
    done = forked.run([*command, "--only", "laws"])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    page = (tmp_path / "gpu-here.md").read_text()
    assert "| gemma3, window 100 | bfloat16 | forest" in page
    assert "FAILED" not in page
