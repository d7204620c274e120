"""What a loss is a number of. Losses of two objectives have no unit in common (nats a token, a logistic
loss of pairs, a squared error of scores), so they share no axis."""

from __future__ import annotations

from typing import Any

from onestage.report.reading import mapping
from onestage.report.trained import Part


def unit_of(part: Part, key: str) -> str:
    """The objectives that a loss in `metrics.jsonl` is of; "" of what is no loss of a run's own."""
    first, _, rest = key.partition("/")
    if key in ("loss", "eval/loss", "ideal_distance"):
        return " + ".join(objectives_of(part))
    if key.startswith("eval/terms/") or first == "gap":
        return key.rpartition("/")[2]
    if key.endswith("/loss") and first not in ("retention", "suite"):
        return _of_stream(part, rest.removesuffix("/loss") if first == "eval" else first)
    return ""


def objectives_of(part: Part) -> list[str]:
    """Of all its terms, by name."""
    given = part.recipe.get("objective")
    if not isinstance(given, dict) or "name" in given:
        given = {"": given}
    return sorted({name for one in given.values() if (name := _name(one))})


def _of_stream(part: Part, stream: str) -> str:
    """The objectives of a stream's kinds of rows; a stream's name in the recipe goes before a kind's."""
    given, told = mapping(part.recipe.get("objective")), mapping(part.data.get("train"))
    kinds = [stream] if stream in given else mapping(mapping(told.get(stream)).get("records"))
    found = sorted({name for kind in kinds if (name := _name(given.get(kind)))})
    return " + ".join(found or objectives_of(part))


def _name(given: Any) -> str:
    name = mapping(given).get("name") if isinstance(given, dict) else given
    return name.rpartition(":")[2] if isinstance(name, str) else ""
