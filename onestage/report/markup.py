"""HTML from Python values. Text is escaped where it enters; only `Html` passes as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

VOID = {"br", "hr", "meta"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(child: object) -> Html:
    """A child of an element: `Html` as it is, nothing for None, anything else as text."""
    if child is None:
        return Html()
    return child if isinstance(child, Html) else Html(html.escape(str(child)))


def el(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Attributes: `class_` is class, `data_x` is data-x; None and False leave one out."""
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{told}>")
    return Html(f"<{name}{told}>{join(children)}</{name}>")


def prose(text: object) -> Html:
    """A text that people wrote: what stands between backticks is code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # one backtick is only that
        return escaped(str(text))
    return join(el("code", part) if n % 2 else part for n, part in enumerate(parts))


def join(children: Iterable[object]) -> Html:
    return Html("".join(escaped(child) for child in children))


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    class_: str = "",
    caption: object = None,
) -> Html:
    """A table in a box that scrolls by itself. The first cell of a row is its heading; an `Html` cell
    that begins with <td or <th is put in as it is."""
    top = el("tr", *(_cell("th", one, scope="col") for one in head))
    body = [
        el(
            "tr",
            *(
                _cell("th", one, scope="row") if n == 0 else _cell("td", one)
                for n, one in enumerate(row)
            ),
        )
        for row in rows
    ]
    told = el("caption", caption) if caption else None
    whole = el("table", told, el("thead", top), el("tbody", *body), class_=class_ or None)
    return el("div", whole, class_="wide", tabindex="0")


def _cell(name: str, content: object, **attributes: object) -> Html:
    if isinstance(content, Html) and content.startswith(("<td", "<th")):
        return content
    return el(name, content, **attributes)


def fold(summary: object, *children: object, open_: bool = False) -> Html:
    """Something that opens on a click."""
    return el("details", el("summary", summary), *children, open=open_)
