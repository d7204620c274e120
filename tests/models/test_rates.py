"""What is said of a precision in which this processor is slow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import onestage as one
from onestage.models import rates
from onestage.studies.worlds.folder import Folder

RATES = {torch.float32: 56e9, torch.bfloat16: 1.2e9, torch.float16: 20e9}


@pytest.fixture
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without instructions for bfloat16, as measured on one."""
    monkeypatch.setattr(rates, "SLOW", 4.0)
    monkeypatch.setattr(rates, "matmul_rate", lambda dtype=torch.float32: RATES[dtype])


def test_it_is_said_from_four_times_on_and_of_a_processor_alone(avx2: None) -> None:
    assert "take 47 times as long as in float32" in rates.slow_precision(torch.bfloat16, "cpu")
    for dtype, device in (("float16", "cpu"), ("float32", "cpu"), ("bfloat16", "cuda")):
        assert rates.slow_precision(getattr(torch, dtype), device) == ""


def test_rates_are_measured() -> None:
    assert all(rates.matmul_rate(dtype) > 1e6 for dtype in (torch.float32, torch.bfloat16))


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"model": {"dtype": "bfloat16"}}, "(model.dtype: float32)"),
        ({"train": {"bf16": True}}, "(leave out train.bf16)"),
        ({}, ""),
    ],
)
def test_check_and_the_run_say_it(
    recipe_of: Callable[..., dict[str, Any]],
    avx2: None,
    tmp_path: Path,
    changes: dict[str, Any],
    cure: str,
) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=1)
    for section, more in changes.items():
        recipe[section] = recipe[section] | more
    (checked,) = one.check(recipe)
    warned = [line for line in checked.findings.warnings if "no fast bfloat16" in line]
    assert [line.endswith(cure) for line in warned] == [True] * bool(cure)
    said: list[str] = []
    one.train(recipe, out=tmp_path / "out", say=said.append, self_check=False)
    assert any("no fast bfloat16" in line for line in said) == bool(cure)


def test_a_study_on_a_folder_says_it(avx2: None, model_folder: Path, tmp_path: Path) -> None:
    """Its measurements took ten times as long as its runs, and nothing said why."""
    said: list[str] = []
    for dtype in ("bfloat16", "float32"):
        Folder(str(model_folder), tmp_path, dtype=dtype).prepare(0, tmp_path, said.append)
    (line,) = said
    assert line.startswith(f"measuring {model_folder}: this processor has no fast bfloat16")
    assert line.endswith("(world: {dtype: float32})")
