"""Figures as plain data: traces and a layout, which `draw.js` makes an SVG of when the page is read.

Colours are names (`@m0`), so that a figure follows the light or dark page. Keys are those that plotly.js
has for the same. The library itself is 4.8 MB, which is more than all that is told of a run, and a part
of it is not to be had from PyPI.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onestage.report.markup import Html, el

COLOURS = 8
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
PATTERNS = ("", "/", ".", "x")
STROKES = {"solid": None, "dash": "6 3", "dot": "2 2", "dashdot": "6 2 2 2", "longdash": "10 2"}


@dataclass(frozen=True)
class Look:
    """How a method looks, the same in every figure."""

    colour: str
    symbol: str = "circle"
    dash: str = "solid"

    @property
    def pattern(self) -> str:
        """Of bars: what `dash` is for lines."""
        return PATTERNS[DASHES.index(self.dash)] if self.dash in DASHES else "-"

    @property
    def bar(self) -> dict[str, Any]:
        return {"color": self.colour, "pattern": {"shape": self.pattern}}

    def faint(self, part: float) -> str:
        """The colour with an opacity."""
        return f"{self.colour}/{part}"

    @property
    def chip(self) -> Html:
        """A short line in the method's colour and dash, for tables and legends."""
        stroke = el(
            "line",
            x1="1",
            y1="6",
            x2="21",
            y2="6",
            stroke_dasharray=STROKES[self.dash],
            stroke_width="3.5",
        )
        svg = el("svg", stroke, viewBox="0 0 22 12", width="22", height="12", aria_hidden="true")
        return el("span", svg, class_="chip", style=f"stroke:var(--{self.colour[1:]})")


def looks_of(methods: Sequence[str], base: str | None) -> dict[str, Look]:
    """Grey for the base; the others differ in colour, and twelve of them without it, by dash or mark."""
    found = {base: Look("@m-base", "x", "longdash")} if base is not None else {}
    for number, method in enumerate(method for method in methods if method != base):
        # Shifted by one where the colours begin again, or the same colour would have the same dash.
        dash = DASHES[(number + number // COLOURS) % len(DASHES)]
        symbol = SYMBOLS[number % len(SYMBOLS)]
        found[method] = Look(f"@m{number % COLOURS}", symbol, dash)
    return found


@dataclass(frozen=True)
class Figure:
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    note: object = ""
    height: int = 300
    pick: str = ""
    """What can be picked; traces say theirs as `pick`."""
    kind: str = "plot"
    """What `page.js` makes of it."""
    more: dict[str, Any] = field(default_factory=dict)
    """Whatever else a kind needs."""

    def html(self) -> Html:
        options = list(dict.fromkeys(trace["pick"] for trace in self.data if "pick" in trace))
        chooser = None
        if len(options) > 1:
            chosen = [el("option", name) for name in options]
            chooser = el(
                "label", self.pick, " ", el("select", *chosen, data_pick=True), class_="pick"
            )
        spec = {"kind": self.kind, "data": self.data, "layout": self.layout, **self.more}
        return el(
            "figure",
            el("figcaption", self.title),
            chooser,
            el(
                "div",
                class_="canvas",
                style=f"min-height:{self.height}px",
                data_height=self.height,
                role="img",
                aria_label=self.title,
            ),
            el("script", embedded(spec), type="application/json"),
            el("p", self.note, class_="note") if self.note else None,
        )


def embedded(content: Any) -> Html:
    """JSON that can stand inside a script element whatever texts it holds."""
    # `</script>` in somebody's answer would end the element.
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Html(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


def rounded(value: float | None) -> float | None:
    """Six digits: what a figure can show."""
    return None if value is None else float(f"{value:.6g}")
