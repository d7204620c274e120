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


def asked_before(claim: Mapping[str, Any]) -> str:
    """Which studies asked it before; nothing where none did."""
    names = claim.get("asked_before")
    if not (isinstance(names, list) and names):
        return ""
    return (
        f"asked before in {' and '.join(map(str, names))}, and p is doubled for each; what the seeds of "
        "all say stands in the ledger (onestage claims)"
    )


def p_of(claim: Mapping[str, Any]) -> str:
    """Beside a verdict that decides: p, adjusted for the claims of its study; else nothing."""
    p, open_ = claim.get("p_holm"), claim.get("verdict") in ("undecided", "withdrawn")
    # 0 of seeds that agree to the last digit.
    return f"p {p:.2g}" if is_number(p) and p > 0 and not open_ else ""


def undecided_for(claim: Mapping[str, Any]) -> str:
    """What stands beside `undecided`: what it would be alone, and how many seeds would decide; nothing
    beside any other verdict, and where no spread is known."""
    parts = claim.get("parts")
    parts = [mapping(part) for part in parts] if isinstance(parts, list) else []
    if claim.get("verdict") != "undecided" or not parts:
        return ""
    said, alone = [], claim.get("alone")
    if alone not in (None, "undecided"):
        p, of_all = (claim.get(key) for key in ("p", "p_holm"))
        if is_number(p) and is_number(of_all):
            said.append(f"{alone} alone, p {p:.2g}; not among so many: {of_all:.2g}")
    if "seeds" in claim and all(is_number(n := part.get("n")) and n > 1 for part in parts):
        chosen = any(part.get("choice") for part in parts)
        more = "more than 1,000 seeds, or more of tuning," if chosen else "more than 1,000 seeds"
        seeds = f"{claim['seeds']} seeds" if is_number(claim["seeds"]) else more
        said.append(f"{seeds} would decide")
    return "; ".join(said)


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
    """Why it is withdrawn; its p; where it is asked again, how often it was before, how many seeds would
    decide what is undecided; and what would change our mind."""
    if claim.get("withdrawn"):
        return str(claim["withdrawn"])
    again, other = asked_again(claim), claim.get("overturned_by")
    said = [p_of(claim), f"asked again in {again}" if again else ""]
    said += [undecided_for(claim), asked_before(claim)]
    return "; ".join(filter(None, [*said, f"overturned by: {other}" if other else ""]))


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


def seeds_of(claim: Mapping[str, Any]) -> str:
    """Of how many seeds its differences are."""
    counts = {part["n"] for part in claim["parts"]}
    least = f"{min(counts)} to " if len(counts) > 1 else ""
    return f"{least}{max(counts)} seeds"
