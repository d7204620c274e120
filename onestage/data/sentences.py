"""A text cut into sentences, so that a hint can end behind one. Formulas stay whole."""

from __future__ import annotations

import re

_FORMULA = re.compile(
    r"\$\$.*?\$\$|(?<!\\)\$(?!\s)[^$\n]*?(?<![\\\s])\$(?!\d)|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|\\begin\{(?P<name>[a-z]+\*?)\}.*?\\end\{(?P=name)\}|\[asy\].*?\[/asy\]",
    re.DOTALL,
)

_END = re.compile(r"""[ \t]*\n\s*|[.!?]+["'”’)\]]*[ \t]+(?=["'“‘(\[]*[A-Z0-9$\\])""")  # noqa: RUF001
_SHORT = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|viz|approx|resp|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Fig|Figs|Eq|Eqs|Eqn|No|Nos"
    r"|Thm|Lem|Ch|Sec|p|pp|ft|oz|lb|lbs|in|hr|hrs|min)|\b[A-Z]|^\s*\d+)\Z",
    re.MULTILINE,
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with the white space behind it."""
    formulas = [match.span() for match in _FORMULA.finditer(text)]
    found, start, next_formula = [], 0, 0
    for end in _END.finditer(text):
        while next_formula < len(formulas) and formulas[next_formula][1] <= end.start():
            next_formula += 1
        within = next_formula < len(formulas) and formulas[next_formula][0] < end.start()
        piece = text[start : end.start()]
        short = end.group().startswith(".") and _SHORT.search(piece[-24:])
        if within or not piece.strip() or (short and "\n" not in end.group()):
            continue
        found.append(text[start : end.end()])
        start = end.end()
    if text[start:].strip():
        found.append(text[start:])
    elif found:
        found[-1] += text[start:]
    return found
