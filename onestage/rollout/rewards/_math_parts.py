r"""A mathematical answer in its parts: lists, what a \pm stands for, the brackets around the whole."""

from __future__ import annotations

import re

_UNICODE = {
    "\u03c0": "\\pi ",
    "\u221e": "\\infty ",
    "\u00d7": "\\times ",
    "\u00b7": "\\cdot ",
    "\u00f7": "\\div ",
    "\u2264": "\\le ",
    "\u2265": "\\ge ",
    "\u222a": "\\cup ",
}
_OPEN, _CLOSE = "([{", ")]}"


def each(text: str) -> list[str]:
    r"""The parts of a list, with a \pm as the two that it stands for."""
    parts = []
    for part in split(text):
        both = part.count("\\pm") == 1 and "\\mp" not in part
        parts += [part.replace("\\pm", sign) for sign in "+-"] if both else [part]
    return parts


def coordinates(parts: list[str]) -> bool:
    """x = 3, y = -4: names in the order of the alphabet."""
    names = [re.match(r"\s*([a-z])\s*=(?!=)", part) for part in parts]
    letters = [found[1] for found in names if found]
    return len(letters) == len(parts) and letters == sorted(set(letters))


def names_of(parts: list[str]) -> list[str]:
    """m = 3, n = 5: the names, where every part has one."""
    found = [re.match(r"\s*(\\?[A-Za-z]\w*)\s*=(?!=)", part) for part in parts]
    return [one[1] for one in found if one] if all(found) else []


def split(text: str) -> list[str]:
    """At commas outside of all brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in _OPEN) - (character in _CLOSE)
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def bracket(text: str) -> str:
    """The brackets around the whole of a text: (, [ or \\{; empty without."""
    text = text.strip()
    for opening, closing in (("\\{", "\\}"), ("(", ")"), ("[", "]")):
        if text.startswith(opening) and text.endswith(closing):
            depth = 0
            inside = text[len(opening) : -len(closing)]
            for character in inside:
                depth += (character in _OPEN) - (character in _CLOSE)
                if depth < 0:
                    return ""
            return opening if depth == 0 else ""
    return ""


def settled(text: str) -> str:
    for sign, latex in _UNICODE.items():
        text = text.replace(sign, latex)
    text = re.sub(r"\\(?:left|right|displaystyle)(?![a-z])", "", text)
    text = re.sub(r"(?<=\d)\{,\}(?=\d{3})|(?<=\d),?\\[!,](?=\d{3}(?!\d))", "", text)
    if re.fullmatch(r"\s*-?\\?\$?\s*\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*", text):
        text = text.replace(",", "")
    text = re.sub(r"\\sqrt(\[\d+\])?\(([^()]*)\)", r"\\sqrt\1{\2}", text)
    text = re.sub(r"^\s*\+\s*(?=[\d\\])", "", text)
    return text.replace("\\$", "").strip().rstrip(";.").strip()
