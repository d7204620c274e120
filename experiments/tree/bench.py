"""The tree bench: hint_uft.md's toys A, B and C measured again, and the claims that they carry.

A `reference` column holds what section 1.10 prints: medians of 7 seeds and means of 5, of other code
with other random numbers. Claims are about shape (who learns, what grows how fast), not digits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.tables import Table
from experiments.tree.problem import Floats, Training, hint_rule, leaves_needed

SEED = 0
CHILDREN = 4
LAWS: dict[str, tuple[str, bool]] = {
    "no hint": ("none", False),
    "uniform": ("uniform", False),
    "UFT": ("uniform", True),
}
"""Toy A: the hint rule, and whether the likelihood of the hint is trained on."""
METHODS: dict[str, tuple[str, float]] = {
    "RFT": ("none", 0.0),
    "R3": ("uniform", 0.0),
    "staged": ("staged", 0.0),
    "adaptive": ("adaptive", 0.0),
    "cosine": ("cosine", 0.0),
    "UFT .001": ("cosine", 0.001),
    "UFT .01": ("cosine", 0.01),
    "UFT .1": ("cosine", 0.1),
    "adaptive .01": ("adaptive", 0.01),
}
"""Toys B and C: the hint rule, and the coefficient of the hint's log-likelihood."""
TAUGHT = ("UFT .01", "UFT .1", "adaptive .01")
"""Those that train on the hint's likelihood by enough for the hardest of toy C."""
LEAVES = {
    2: (63, 53, 53),
    3: (273, 133, 117),
    4: (833, 249, 211),
    5: (3528, 414, 354),
    6: (11_250, 628, 697),
    7: (43_761, 1173, 1019),
    8: (None, 1441, 1707),
}
"""Printed for toy A, by depth."""
DEPTHS = {
    4: {"RFT": 0.996, "R3": 0.996, "cosine": 0.996, "UFT .001": 0.996},
    6: {"RFT": 0.591, "R3": 0.992, "cosine": 0.995, "UFT .001": 0.995},
    8: {"RFT": 0.0, "R3": 0.979, "cosine": 0.991, "UFT .001": 0.992},
    10: {"RFT": 0.0, "R3": 0.953, "cosine": 0.986, "UFT .001": 0.987},
}
"""Printed for toy B, by depth. Of depth 4 only that all reach at least .996."""
BIASES = {
    2: {"RFT": 0.0, "R3": 0.992, "cosine": 0.996, "UFT .001": 0.997},
    4: {"RFT": 0.0, "R3": 0.0, "cosine": 0.0, "UFT .001": 0.996, "UFT .01": 0.997, "UFT .1": 0.997},
    6: {"RFT": 0.0, "R3": 0.0, "cosine": 0.0, "UFT .001": 0.0, "UFT .01": 0.997, "UFT .1": 0.997},
}
"""Printed for toy C, by bias."""


@dataclass(frozen=True)
class Size:
    """How much a bench runs."""

    seeds: int
    theory: tuple[int, ...]
    """Depths of toy A."""
    depths: tuple[int, ...]
    """Depths of toy B."""

    @classmethod
    def named(cls, name: Literal["quick", "default"], seeds: int) -> Size:
        if name == "quick":
            return cls(seeds, (2, 3, 4, 5), (4, 8))
        return cls(seeds, tuple(LEAVES), tuple(DEPTHS))


@dataclass(frozen=True)
class Claim:
    """What a table must show."""

    text: str
    holds: bool


Part = tuple[Table, list[Claim]]


def bench(size: Size) -> Iterator[Part]:
    """All tables with their claims, each as soon as it is measured."""
    parts: list[Callable[[Size], Part]] = [theory, deep, unknown]
    for part in parts:
        start = time.perf_counter()
        table, claims = part(size)
        table.seconds = round(time.perf_counter() - start, 2)
        yield table, claims


def theory(size: Size) -> Part:
    """Toy A: leaves that algorithm 2 explores until pass@1 is one half."""
    table = Table(
        "theory",
        "Toy A: leaves explored until pass@1 is 1/2 (algorithm 2)",
        ["H", "B^H/4", *LAWS, *(f"{name}: reference" for name in LAWS)],
        f"Median of {size.seeds} seeds; the reference's, of 7. Uniform: uniform hints without their "
        "likelihood (as R3).",
    )
    leaves: dict[str, dict[int, float]] = {name: {} for name in LAWS}
    for depth in size.theory:
        for name, (rule, likelihood) in LAWS.items():
            found = leaves_needed(
                depth, hint_rule(rule, depth), likelihood, size.seeds, SEED, CHILDREN
            )
            leaves[name][depth] = float(np.median(found))
        measured = [round(leaves[name][depth]) for name in LAWS]
        table.rows.append([depth, CHILDREN**depth // 4, *measured, *LEAVES[depth]])
    bare, hinted = leaves["no hint"], leaves["UFT"]
    claims = [
        Claim(
            "A: without hints at least B^H/4 leaves at every depth (theorem 4.2)",
            all(bare[depth] >= CHILDREN**depth / 4 for depth in size.theory),
        )
    ]
    if max(size.theory) >= 8:
        claims += [
            Claim(
                "A: UFT needs less than 16 times more at H = 8 than at 4", _grows(hinted, 8) < 16
            ),
            Claim(
                "A: without hints more than 30 times more at H = 7 than at 4", _grows(bare, 7) > 30
            ),
        ]
    return table, claims


def _grows(leaves: dict[int, float], depth: int) -> float:
    return leaves[depth] / leaves[4]


def ends(training: Training, name: str, seeds: int) -> Floats:
    """Exact pass@1 (S,) after training."""
    return curve(training, name, seeds)[-1]


def curve(training: Training, name: str, seeds: int) -> Floats:
    """Exact pass@1 (T + 1, S) of a method during training."""
    rule, likelihood = METHODS[name]
    return training.run(hint_rule(rule, training.depth), likelihood, seeds, SEED)


def deep(size: Size) -> Part:
    """Toy B: GRPO with hints on deeper and deeper trees."""
    names = list(METHODS)[:6]
    mean = {
        depth: {n: float(ends(Training(depth), n, size.seeds).mean()) for n in names}
        for depth in size.depths
    }
    table = _table(
        "deep",
        "Toy B: pass@1 after 500 steps of GRPO, by depth",
        "H",
        mean,
        DEPTHS,
        f"Mean of {size.seeds} seeds; the reference's, of 5 (at H = 4: at least .996).",
    )
    claims = []
    for depth, found in mean.items():
        hints = [value for name, value in found.items() if name != "RFT"]
        if depth == 4:
            claims.append(Claim("B: at H = 4 all learn", min(found.values()) > 0.99))
        if depth == 6:
            holds = found["RFT"] < 0.9 and min(hints) > 0.98
            claims.append(Claim("B: at H = 6 hints always learn, RFT not always", holds))
        if depth >= 8:
            holds = found["RFT"] < 0.01 and min(hints) > 0.9
            claims.append(Claim(f"B: at H = {depth} hints learn, RFT does not", holds))
            claims.append(
                Claim(
                    f"B: at H = {depth} hints that fade end higher than hints for ever (R3)",
                    found["R3"] < min(found["cosine"], found["UFT .001"]),
                )
            )
    return table, claims


def unknown(size: Size) -> Part:
    """Toy C: the right child is one that the policy would hardly choose."""
    final = {
        bias: {name: ends(Training(5, bias=bias), name, size.seeds) for name in METHODS}
        for bias in BIASES
    }
    mean = {
        bias: {name: float(value.mean()) for name, value in found.items()}
        for bias, found in final.items()
    }
    table = _table(
        "unknown",
        "Toy C: pass@1 after 500 steps of GRPO, H = 5, the right child's logit starting at -b",
        "b",
        mean,
        BIASES,
        f"Mean of {size.seeds} seeds; the reference's, of 5.",
    )
    # .5: a run ends near 0 or near 1
    cosine = float((final[4]["cosine"] > 0.5).mean())
    known = [value for name, value in mean[2].items() if name != "RFT"]
    lost = [value for name, value in mean[6].items() if name not in TAUGHT]
    claims = [
        Claim(
            "C: at b = 2 hints of any kind learn, RFT does not",
            mean[2]["RFT"] < 0.01 and min(known) > 0.98,
        ),
        Claim(
            "C: at b = 4 R3 does not learn and the cosine alone mostly does not",
            max(mean[4]["RFT"], mean[4]["R3"]) < 0.05 and cosine < 0.5,
        ),
        Claim(
            "C: at b = 4 the hint's likelihood makes all learn, from a coefficient of .001 on",
            min(mean[4][name] for name in ("UFT .001", *TAUGHT)) > 0.9,
        ),
        Claim("C: at b = 6 nothing learns with a coefficient below .01", max(lost) < 0.05),
        Claim("C: at b = 6 from .01 on it does", min(mean[6][name] for name in TAUGHT) > 0.7),
    ]
    return table, claims


def _table(
    name: str,
    title: str,
    key: str,
    mean: dict[int, dict[str, float]],
    printed: dict[int, dict[str, float]],
    note: str,
) -> Table:
    """A row for each method; for each setting what was measured and what the reference prints."""
    columns = [text for setting in mean for text in (f"{key} = {setting}", "reference")]
    table = Table(name, title, ["", *columns], note)
    for method in next(iter(mean.values())):
        cells: list[float | None] = []
        for setting, found in mean.items():
            cells += [round(found[method], 4), printed[setting].get(method)]
        table.rows.append([method, *cells])
    return table


CURVES = ("RFT", "R3", "cosine", "UFT .001")


def curves(seeds: int) -> dict[str, dict[str, Floats]]:
    """pass@1 (T + 1, S) for the figure: toy B at depth 8, toy C at bias 4."""
    shown = {"deep": Training(8), "unknown": Training(5, bias=4)}
    return {key: {n: curve(training, n, seeds) for n in CURVES} for key, training in shown.items()}
