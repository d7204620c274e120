"""Options that act on other records than those an objective is given, and none that acts."""

from __future__ import annotations

from typing import Any

import pytest

from onestage.data.kinds import Kind
from onestage.objectives import make
from onestage.objectives._moot import moot

CASES: list[tuple[dict[str, Any], list[Kind], list[Kind], list[str]]] = [
    ({"name": "sft", "min_score": 0.5}, ["demonstration"], [], ["min_score"]),
    ({"name": "sft", "min_score": 0.5}, ["demonstration", "score"], [], []),
    ({"name": "uft", "pairs": "score"}, ["demonstration"], [], ["pairs"]),
    ({"name": "kto", "undesirable_weight": 2.0}, ["demonstration"], [], ["undesirable_weight"]),
    ({"name": "kto", "undesirable_weight": 2.0}, ["label"], [], []),
    ({"name": "bradley_terry", "margin": "score"}, ["pair"], ["pair"], ["margin"]),
    ({"name": "bradley_terry", "margin": "score"}, ["pair"], [], []),
    # of a policy that is far away alone
    ({"name": "iw_sft", "cap": 5.0}, ["demonstration"], [], []),
    ({"name": "dpo", "beta": 0.3, "label_smoothing": 0.1}, ["pair"], ["pair"], []),
]


@pytest.mark.parametrize(("given", "kinds", "unscored", "options"), CASES, ids=str)
def test_what_an_option_does_to_some_kinds(
    given: dict[str, Any], kinds: list[Kind], unscored: list[Kind], options: list[str]
) -> None:
    assert moot(make(given), kinds, unscored) == options
