r"""The string normalisation of MATH (Hendrycks et al., arXiv 2103.03874), rule by rule.

The authors' scorers compare answers as strings after it: 0.5, 1/2 and \frac12 are one, 12 and 12.0 are
two. Kept as it is, so that numbers can be compared with theirs.
"""

from __future__ import annotations

import re

_DROPPED = ("\\left", "\\right", "^{\\circ}", "^\\circ", "\\$")


def equivalent(left: str, right: str) -> bool:
    """Equal after normalisation; as they stand where one of them cannot be normalised."""
    try:
        return normalised(left) == normalised(right)
    except (ValueError, IndexError):
        return left == right


def normalised(text: str) -> str:
    """`ValueError` or `IndexError` where the original fails."""
    text = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for dropped in _DROPPED:
        text = text.replace(dropped, "")
    if "\\text{ " in text:  # a unit
        text, _unit = text.split("\\text{ ")
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = "0" + text if text[0] == "." else text
    before, equals, after = text.partition("=")
    if equals and "=" not in after and len(before) <= 2:
        text = after
    text = _one_argument(text).replace(" ", "")
    text = _two_arguments(text)
    if text == "0.5":
        return "\\frac{1}{2}"
    return _as_fraction(text)


def _one_argument(text: str) -> str:
    r"""\sqrt3 becomes \sqrt{3}."""
    head, *rest = text.split("\\sqrt")
    return head + "".join(
        "\\sqrt" + (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}") for part in rest
    )


def _two_arguments(text: str) -> str:
    r"""\frac12 and \frac1{2} become \frac{1}{2}."""
    head, *rest = text.split("\\frac")
    if any(part[0] != "{" and len(part) < 2 for part in rest):
        return text
    for part in rest:
        if part[0] == "{":
            head += "\\frac" + part
            continue
        below = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
        head += f"\\frac{{{part[0]}}}{below}"
    return head


def _as_fraction(text: str) -> str:
    """a/b of whole numbers, as Python writes them, becomes a fraction."""
    parts = text.split("/")
    if len(parts) != 2:
        return text
    above, below = (int(part) for part in parts)
    return f"\\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text


def without_words(text: str) -> str:
    r"""\text{..} and its kin taken off: what it says."""
    return re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
