r"""What a response says, without how it is set: one step before every checker of our own rules.

Models write answers in Markdown, in LaTeX and in typographic characters. None of that changes what is
said, so it is taken off here and nowhere else. What would change a value is left alone: a superscript
(18² is not 182), a power (`2 ** 3`), a thousands separator.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad]")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_LIKE = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2018\u2019\u201b\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u2033", '"'),
        "\uff0b": "+",
        "\uff1d": "=",
        "\uff08": "(",
        "\uff09": ")",
        "\uff0e": ".",
        "\uff1a": ":",
        "\u2026": "...",
    }
)
_SPECIAL = re.compile(r"<[|\uff5c][^<>\s]{1,40}[|\uff5c]>|</s>|<eos>|<end_of_turn>")
_BOLD = re.compile(
    r"(?<![\w*])(\*\*|__|\*|_|`{1,3}|~~)(?=[^\s*_`~])((?:(?!\1)[^\n])+?)(?<=\S)\1(?![\w*])"
)
_FORMULA = re.compile(r"\\[()\[\]]|(?<!\\)\${1,2}(?!\d)|(?<=[\d\w})])(?<!\\)\${1,2}")
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|emph|boldsymbol|operatorname)\s*"
    r"\{([^{}]*)\}"
)
_SPACING = re.compile(
    r"\\(?:[,;:! ]|quad\b|qquad\b|displaystyle\b|left\b|right\b|[Bb]igg?[lr]?\b)|~"
)
_SIGNS = {
    "\\times": "*",
    "\\cdot": "*",
    "\\ast": "*",
    "\\div": "/",
    "\u00d7": "*",
    "\u00b7": "*",
    "\u22c5": "*",
    "\u2217": "*",
    "\u2219": "*",
    **dict.fromkeys("\u2715\u2716\u2a2f", "*"),
    "\\*": "*",
    "\u00f7": "/",
    "\u2215": "/",
    "\u2044": "/",
}
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_THOUGHT = (
    r"<{0}(?:think(?:ing)?|thoughts?|reasoning|scratchpad|reflection|seed:think)>"
    r"|\[{0}THINK\]|\u25c1{0}think\u25b7"
)
_THINKS = re.compile(rf"{_THOUGHT.format('')}|<\|begin_of_thought\|>", re.IGNORECASE)
_PROMPTED = re.compile(rf"(?:{_THOUGHT.format('')})\Z", re.IGNORECASE)
_THOUGHT_OVER = re.compile(rf"{_THOUGHT.format('/')}|<\|end_of_thought\|>", re.IGNORECASE)


def characters(text: str) -> str:
    """Without characters that cannot be seen, and with plain ones for those that look like them."""
    return _SPACES.sub(" ", _INVISIBLE.sub("", text)).translate(_LIKE)


def visible(text: str) -> str:
    """Without characters that cannot be seen and special tokens written out; all else as it is."""
    return _SPECIAL.sub("", _INVISIBLE.sub("", text))


def unmarked(text: str) -> str:
    """Plain characters, no special tokens written out, no emphasis or code marks of Markdown."""
    text = _SPECIAL.sub("", characters(text))
    before = None
    while before != text:  # **_both_**
        before, text = text, _BOLD.sub(r"\2", text)
    return text.strip()


def untyped(text: str) -> str:
    """`unmarked`, and without the marks and spaces of LaTeX formulas: what stands in them."""
    text = _WRAPPED.sub(r"\1", unmarked(text))
    text = _SPACING.sub(lambda found: "" if found[0] in ("\\!", "\\left", "\\right") else " ", text)
    return _FORMULA.sub("", text).strip()


def arithmetic(text: str) -> str:
    """`untyped`, with fractions and the signs of operations as they are typed: `(8)/(4) + 3`."""
    text = untyped(text)
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    before = None
    while before != text:
        before, text = text, _FRACTION.sub(_divided, text)
    return text.translate(str.maketrans("[]{}", "()()"))


def _divided(found: re.Match[str]) -> str:
    above, below = found[1] or found[2], found[3] or found[4]
    return f"(({above})/({below}))"


def thought_over(response: str, prompt: str) -> int | None:
    """Where a response speaks after thinking aloud: 0 where it does not think, None where it never stops
    to. What is said inside is a draft. The prompt may have opened the thoughts, as templates of
    reasoning models do; where it begins to think anew and does not stop, that is one, too."""
    ends = [found.end() for found in _THOUGHT_OVER.finditer(response)]
    start = ends[-1] if ends else 0
    prompted = not ends and _PROMPTED.search(prompt.rstrip()[-40:])
    return None if prompted or _THINKS.search(response, start) else start


def without_thoughts(message: str) -> str:
    """What a message says behind its thoughts, and before any that never end."""
    ends = [found.end() for found in _THOUGHT_OVER.finditer(message)]
    said = message[ends[-1] :] if ends else message
    opened = _THINKS.search(said)
    return said[: opened.start()] if opened else said
