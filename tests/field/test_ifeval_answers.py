"""IFEval's answers by the benchmark's own verdicts (`test_answers` has ours)."""

from __future__ import annotations

import pytest

from bench.trust.answers import BENCHMARK, FOLDER, outcomes, rows


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no field data")
def test_the_benchmark_pays_wrong_ones() -> None:
    """So it is to compare scores by, and no reward."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("punkt")
    given = rows("ifeval")
    found = list(zip(given, outcomes(BENCHMARK, given), strict=True))
    assert [row for row, how in found if how == "paid" and row["want"] == 0]
    assert [row for row, how in found if how != "paid" and row["want"] == 1]
    agree = [how == "paid" for row, how in found if row["want"] == 1]
    assert agree.count(True) > agree.count(False)
