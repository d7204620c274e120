"""What a paper says, held against what a study found.

Differences are paired by seed; how a verdict comes of them: `verdicts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any, Literal

from onestage.config import nearest
from onestage.stats import Interval, interval, rank_slope
from onestage.studies.claim import Claim
from onestage.studies.file import StudyError, StudyFile
from onestage.studies.nested import widened
from onestage.studies.results import TidyRow, by_place, compared
from onestage.studies.verdicts import Difference, difference, together

Values = Mapping[Any, Mapping[int, float]]
"""Of a metric, by place and seed."""


def judged(
    study: StudyFile,
    rows: Sequence[TidyRow],
    better: Literal["higher", "lower"] = "higher",
    added: int = 0,
) -> list[dict[str, Any]]:
    """Every claim of the study with its verdict, as `claims.json` has it.

    better: which way the metric that settings are chosen by is better; added: how often seeds were added
    after it had been judged, for which p is doubled as for every look before the last.
    """
    parts = [list(_parts(claim, study, rows, better, added)) for claim in study.claims]
    of = [None if claim.withdrawn else one for claim, one in zip(study.claims, parts, strict=True)]
    entries = []
    for claim, some, whole in zip(study.claims, parts, together(of), strict=True):
        entries.append(
            {
                **{"claim": claim.claim, "source": claim.source, "paper": claim.paper},
                **{"metric": claim.metric, "direction": claim.direction, "margin": claim.margin},
                **{"design": claim.design, "overturned_by": claim.overturned_by},
                **{"decided": str(claim.decided or ""), "withdrawn": claim.withdrawn},
                **{"asked_again": claim.asked_again, "asked_before": claim.asked_before},
                **{"asked_otherwise": claim.asked_otherwise, "added": added},
                **asdict(whole),
                **{"study": study.name, "parts": [asdict(part) for part in some]},
            }
        )
    return entries


def check(study: StudyFile) -> None:
    """Raise `StudyError` where a claim speaks of a method or value that the study does not have."""
    for claim in study.claims:
        named = [claim.more, *claim.than] if claim.more is not None else [claim.trend]
        if claim.more is not None and claim.more in claim.than:
            raise StudyError(f"claim {claim.claim!r}: holds {_called(claim.more)} against itself")
        for one in named:
            method, at = _place(one)
            if method not in study.methods and method != study.base:
                raise StudyError(
                    f"claim {claim.claim!r}: no method {method!r} among {list(study.methods)}"
                )
            known = study.methods[method].judge_after if method in study.methods else []
            if _stage(one) is not None and _stage(one) not in known:
                raise StudyError(
                    f"claim {claim.claim!r}: {method} is not judged after {_stage(one)!r}; add it to "
                    f"the method's judge_after, which has {known}"
                )
            for axis, value in at.items():
                if value not in study.axes.get(axis, []):
                    raise StudyError(f"claim {claim.claim!r}: {axis} never is {value!r}")
        if claim.trend is not None and claim.trend.get("over") not in study.axes:
            raise StudyError(
                f"claim {claim.claim!r}: over {claim.trend.get('over')!r} is no axis; there are "
                f"{list(study.axes)}"
            )


def loose(study: StudyFile) -> list[str]:
    """What claims leave open that should be settled before the runs, for whoever runs them."""
    open_ = [claim for claim in study.claims if not claim.withdrawn]
    lacks = {
        "no margin: every difference is of practical size": [c for c in open_ if not c.margin],
        "no date on which direction and margin were settled": [c for c in open_ if not c.decided],
    }
    return [
        f"claims: {len(some)} of {len(open_)} have {what} (the first: {some[0].claim!r})"
        for what, some in lacks.items()
        if some
    ]


def require_known(study: StudyFile, known: Sequence[str], runs: Sequence[str] = ()) -> None:
    """Raise `StudyError` where a claim is of what is not measured. runs: how names begin of what only
    runs tell."""
    for claim in study.claims:
        if claim.metric not in known and not claim.metric.startswith(tuple(runs)):
            also = f"; runs measure {'..., '.join(runs)}..., too" if runs else ""
            raise StudyError(
                f"claim {claim.claim!r}: {claim.metric!r} is not measured"
                f"{nearest(claim.metric, list(known))}{also}"
            )


def _parts(
    claim: Claim,
    study: StudyFile,
    rows: Sequence[TidyRow],
    better: Literal["higher", "lower"],
    added: int,
) -> Iterator[Difference]:
    looks = 1 + len(claim.asked_before) + added
    if claim.trend is not None:
        metric = _metric(claim, claim.trend)
        values = by_place(rows, metric)
        says, slopes = _trend(claim, study, values)
        part = difference(says, slopes, claim.direction, claim.margin, looks)
        absent = _lacking(study, [(metric, values, claim.trend)])
        chosen = study.tune is None or study.tune.report == "chosen"
        # Slopes do not include the choice of settings.
        yield replace(part, narrow=not chosen, absent=absent)
        return
    for other in claim.than:
        metrics = _metric(claim, claim.more), _metric(claim, other)
        sides = [
            (metric, by_place(rows, metric), given)
            for metric, given in zip(metrics, (claim.more, other), strict=True)
        ]
        found, _, _ = compared(*(_values(study, values, given) for _, values, given in sides))
        whole = True
        if study.tune is not None and study.tune.report != "chosen":
            both = _place(claim.more), _place(other)
            found, whole = widened(found, rows, study.tune, metrics, both, better)
        says = f"{_called(claim.more)} - {_called(other)}"
        part = difference(says, found, claim.direction, claim.margin, looks)
        absent = _absent(claim, other, rows) or _lacking(study, sides)
        yield replace(part, narrow=not whole, absent=absent)


def _absent(claim: Claim, other: Any, rows: Sequence[TidyRow]) -> str:
    """Which of two methods was tried and is not reported, since nothing of it reaches and keeps what a
    choice must; else nothing."""
    tried, told = ({row.method for row in rows if row.purpose == p} for p in ("tune", "test"))
    unfit = [one for one in (_place(claim.more)[0], _place(other)[0]) if one in tried - told]
    return f"no setting of {' or of '.join(unfit)} kept the limits of the choice" if unfit else ""


def _lacking(study: StudyFile, sides: Sequence[tuple[str, Values, Any]]) -> str:
    """Places without any number of what is compared over several; else nothing. sides: a metric, its
    values, and what is meant by a side."""
    told = []
    for metric, values, given in sides:
        for place in _wanted(study, values, given):
            if not values.get(place):
                at = ", ".join(f"{axis} {value}" for axis, value in place[1])
                told.append(f"{place[0]} has no {metric} at {at}")
    return "; ".join(dict.fromkeys(told))


def _trend(claim: Claim, study: StudyFile, values: Values) -> tuple[str, Interval]:
    """Kendall's tau of the metric along an axis, for each seed that has all of it; its mean lies in
    [-1, 1], and so does its interval."""
    given = dict(claim.trend or {})
    over = given.pop("over")
    along = [_values(study, values, {**given, over: value}) for value in study.axes[over]]
    seeds = sorted(set.intersection(*(set(found) for found in along)))
    slopes = interval([rank_slope([found[seed] for found in along]) for seed in seeds])
    inside = replace(slopes, low=max(slopes.low, -1.0), high=min(slopes.high, 1.0))
    says = f"{_called(given)} over {over} (Kendall's tau)"
    return says, inside if slopes.n > 1 else slopes


def _place(given: Any) -> tuple[str, dict[str, Any]]:
    table = {"method": given} if isinstance(given, str) else dict(given or {})
    method = table.pop("method", None)
    table.pop("over", None)
    table.pop("after", None)
    if not isinstance(method, str):
        raise StudyError(
            f"claims: expected a method or {{method: ..., axis: value}}, got {given!r}"
        )
    return method, table


def _stage(given: Any) -> Any:
    """The stage after which a method is meant; None: at its end."""
    return given.get("after") if isinstance(given, Mapping) else None


def _metric(claim: Claim, given: Any) -> str:
    stage = _stage(given)
    return claim.metric if stage is None else f"after/{stage}/{claim.metric}"


def _called(given: Any) -> str:
    method, at = _place(given)
    said = at if _stage(given) is None else {**at, "after": _stage(given)}
    values = ", ".join(f"{axis} {value}" for axis, value in said.items())
    return f"{method} ({values})" if values else method


def _values(study: StudyFile, values: Values, given: Any) -> Mapping[int, float]:
    """By seed, of the one place that is meant; where axes are left open, the mean over all of them, of
    seeds with a number at each: a mean over what is there would be of other places than another's."""
    many = [values.get(place, {}) for place in _wanted(study, values, given)]
    seeds = set.intersection(*(set(v) for v in many)) if many else set()
    return {seed: sum(v[seed] for v in many) / len(many) for seed in sorted(seeds)}


def _wanted(
    study: StudyFile, values: Values, given: Any
) -> list[tuple[str, tuple[tuple[str, Any], ...]]]:
    """The places that are meant, as rows have them: every value of the axes that the metric of this
    method depends on, but for those that are given."""
    method, at = _place(given)
    there = [dict(place) for name, place in values if name == method]
    axes = [axis for axis in study.axes if any(axis in one for one in there)]
    every = (
        dict(zip(axes, some, strict=True)) for some in product(*(study.axes[axis] for axis in axes))
    )
    return [(method, tuple(sorted(place.items(), key=str))) for place in every if _fits(place, at)]


def _fits(place: Mapping[str, Any], at: Mapping[str, Any]) -> bool:
    return all(place.get(axis) == value for axis, value in at.items())


def asked(study: StudyFile) -> list[dict[str, Any]]:
    """What the claims ask, without their words: what may not change once the answers are seen."""
    keys = {"metric", "more", "than", "trend", "direction", "margin"}
    return [
        json.loads(claim.model_dump_json(include=keys))
        for claim in study.claims
        if not claim.withdrawn
    ]
