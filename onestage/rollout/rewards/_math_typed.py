r"""Mathematics as it is typed, in ASCII or in Unicode, written as LaTeX.

To what reads words, the `pi` of `36 pi` is a unit that nobody asked for, and the answer would be 36; the
`sqrt` of `sqrt 2` would leave 2. What is known is written out before words are looked at.
"""

from __future__ import annotations

import re

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_CHARACTERS = str.maketrans(
    {
        **{
            "\u00b1": "\\pm ",
            "\u2213": "\\mp ",
            "\u2260": "\\neq ",
            "\u2a7d": "\\le ",
            "\u2a7e": "\\ge ",
        },
        **{"\u2264": "\\le ", "\u2265": "\\ge ", "\u221e": "\\infty ", "\u03c0": "\\pi "},
        **{"\u222a": "\\cup ", "\u2229": "\\cap ", "\u211d": "\\mathbb{R}", "\u2208": "\\in "},
        **{"\u00ba": "\u00b0", "\u02da": "\u00b0", "\uffe5": "\u00a5", "\u3001": ","},
    }
)
_RAISED = dict(
    zip(
        "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b",
        "0123456789-",
        strict=True,
    )
)
_POWERS = re.compile(f"[{''.join(_RAISED)}]+")
_FUNCTIONS = (
    "sinh cosh tanh sin cos tan cot sec csc arcsin arccos arctan ln log exp min max gcd lcm".split()
)
_GREEK = "alpha beta theta lambda sigma omega phi pi infty".split()
_BEFORE = r"(?<![\\A-Za-z_])"
_CALLED = re.compile(rf"{_BEFORE}({'|'.join(_FUNCTIONS)})(?=\s*\()")
_LETTER = re.compile(rf"{_BEFORE}({'|'.join(_GREEK)})(?![A-Za-z])")
_INFINITY = re.compile(r"(?<=[-+(\[,\s])infinity(?![A-Za-z])")
_ROOTS = {"sqrt": "\\sqrt", "cbrt": "\\sqrt[3]"}
_ROOT = re.compile(rf"{_BEFORE}(sqrt|cbrt)\s*(?:(?=\()|(\d+(?:\.\d+)?|[A-Za-z])(?![A-Za-z]))")
_CUBE_ROOT = re.compile("\u221b\\s*(?:(\\d+|[A-Za-z])|\\(([^()]*)\\))")
_WORDED = re.compile(
    r"\\(?:text|mathrm|mbox)\s*\{([^{}\\]*(?<![A-Za-z])"
    rf"(?:{'|'.join((*_GREEK, *_ROOTS))})(?![A-Za-z])[^{{}}\\]*)\}}"
)
_DEGREES_OF = re.compile(
    r"\\(sin|cos|tan|cot|sec|csc)\s*(?:\(\s*|\{\s*)?(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\u00b0)\s*[)}]?"
)


def typed(text: str) -> str:
    """The text with what is typed for mathematics as LaTeX; all else as it is."""
    text = text.translate(_FULL_WIDTH).translate(_CHARACTERS)
    text = _POWERS.sub(lambda f: f"^{{{''.join(_RAISED[one] for one in f[0])}}}", text)
    text = _WORDED.sub(r" \1 ", text)
    text = _CUBE_ROOT.sub(lambda f: f"\\sqrt[3]{{{f[1] or f[2]}}}", text)
    text = _ROOT.sub(lambda f: _ROOTS[f[1]] + (f"{{{f[2]}}}" if f[2] else ""), text)
    text = _CALLED.sub(r"\\\1", text)
    text = _INFINITY.sub(r"\\infty ", _LETTER.sub(r"\\\1 ", text))
    text = re.sub(r"\s*\*\*\s*", "^", text)
    text = re.sub(r"(?<=[\w)}\]\s])\*(?=[\w({\\\s])", r"\\cdot ", text)
    text = re.sub(r"!=", r"\\neq ", text)
    text = re.sub(r"\\([lr])brace(?![a-z])\s*", lambda f: "\\{" if f[1] == "l" else "\\}", text)
    text = re.sub(r"\\([dt]?frac)\s+(\d)\s+(\d)(?!\d)", r"\\\1{\2}{\3}", text)
    # The degrees of an angle that a function is taken of count; those of an angle are its unit.
    return _DEGREES_OF.sub(r"\\\1(\\frac{\2\\pi}{180})", text)
