"""The claims ledger: what a paper says, what was found here, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared
from onestage.report.markup import Html, el, join, prose, table
from onestage.report.numbers import UNKNOWN, number
from onestage.report.reading import is_number, mapping

VERDICTS = {"holds": "holds", "reversed": "fails", "refuted": "fails", "does not hold": "fails"}
"""The class of each; "does not hold" is of folders of version 0.1.0."""


def asked_again(claim: Mapping[str, Any]) -> str:
    """The study that asks once more, on seeds of its own, what is undecided here; else nothing. What is
    decided stays so, whatever another study finds later: else a second try would undo the first."""
    return str(claim.get("asked_again") or "") if claim.get("verdict") == "undecided" else ""


def claims_section(found: Compared) -> Html | None:
    if not found.claims:
        return None
    rows = []
    for claim in found.claims:
        verdict = str(claim.get("verdict") or "undecided")
        parts = claim.get("parts")
        ours = [_part(mapping(part)) for part in parts] if isinstance(parts, list) else []
        rows.append(
            [
                join(
                    [
                        prose(claim.get("claim", UNKNOWN)),
                        *(
                            el("small", prose(claim[key]), class_="under")
                            for key in ("source", "design")
                            if claim.get(key)
                        ),
                    ]
                ),
                join(
                    [
                        el("strong", verdict, class_=f"verdict {VERDICTS.get(verdict, 'open')}"),
                        el("small", _sureness(claim), class_="under"),
                    ]
                ),
                prose(claim.get("paper") or UNKNOWN),
                join(ours) if ours else UNKNOWN,
                claim.get("metric", UNKNOWN),
            ]
        )
    note = "Ours: mean difference over seeds with its 95 % interval."
    head = ("claim", "verdict", "the paper's numbers", "ours", "metric")
    return join([el("p", note, class_="note"), table(head, rows, class_="claims")])


def _sureness(claim: dict[str, Any]) -> str:
    """Why it is withdrawn; where it is asked again or how many seeds would decide what is undecided."""
    if study := asked_again(claim):
        return f"asked again in {study}"
    seeds = claim.get("seeds")
    decides = f"{seeds} seeds would decide" if is_number(seeds) else ""
    return str(claim.get("withdrawn") or decides)


def _part(part: dict[str, Any]) -> Html:
    mean, low, high = (part.get(key) for key in ("mean", "low", "high"))
    text = f"{mean:+.3f}" if is_number(mean) else UNKNOWN
    if is_number(low) and is_number(high):
        text += f" [{number(low)}, {number(high)}]"
    if is_number(part.get("n")):
        text += f", {part['n']} seeds"
    if part.get("absent"):
        text = str(part["absent"])
    if part.get("narrow"):
        text += "; too narrow: settings as chosen"
    return el("div", el("small", part.get("says", "")), " ", el("span", text, class_="figure"))
