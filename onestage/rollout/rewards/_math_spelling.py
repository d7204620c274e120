r"""Other spellings of one thing, made one before mathematical answers are compared.

Colours, sizes and ticks say nothing; `2\frac13`, `2 1/3` and `2⅓` are one number, `\$5` is 5 dollars,
`]0,1[` is `(0,1)`, and `3 \text{ percent}` is `3\%`. What could be read in another way is left alone.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate
from math import comb

from onestage.rollout.rewards._math_typed import typed
from onestage.rollout.rewards._math_words import UNITS

LONGEST = 4000
"""Characters of a text whose style is taken off."""
MOST_CHOSEN = 200
"""Of a binomial coefficient that is computed."""
_UNSEEN = re.compile(
    r"\\(?:text)?color(?:box)?\s*\{[^{}]*\}|\\[hv]?phantom\s*\{[^{}]*\}"
    r"|\\(?:large|Large|LARGE|huge|Huge|small|tiny|normalsize|bf|rm|displaystyle|textstyle)(?![A-Za-z])"
    r"|\\(?:bm|boldsymbol|pmb|underline|mathit|mathsf|mathtt)(?=\s*\{)"
)
_TEXT = re.compile(r"\\text(?:sf|tt|sc|normal|up|md)\s*(?=\{)")
_NESTED = re.compile(r"\\text\s*\{\s*(\\(?:text\w*|mathrm|mathbf)\s*\{[^{}]*\})\s*\}")
_END = (
    r"(?:\\(?:newline|checkmark|qed|blacksquare|square|Box|q?quad)(?![A-Za-z])|\\\\|\\[,;:! ]"
    r"|[\s\u2713\u2714\u2705])"
)
_ENDS = re.compile(rf"\A{_END}+|{_END}+\Z")
_ALIGNED = re.compile(
    r"\\begin\{(aligned|align\*?|gathered|split|equation\*?)\}(.*?)\\end\{\1\}", re.DOTALL
)
_ARRAY = re.compile(
    r"(?:\\left\s*)?[(\[]\s*\\begin\{array\}\s*\{[lcr|\s]*\}(.*?)\\end\{array\}"
    r"\s*(?:\\right\s*)?[)\]]",
    re.DOTALL,
)
_SIGNS = {
    **{
        "\\textdollar": "dollar",
        "\\$": "dollar",
        "$": "dollar",
        "\u20ac": "euro",
        "\\euro": "euro",
    },
    **{"\u00a3": "pound", "\\pounds": "pound", "\u00a5": "yen", "\u20b9": "rupee"},
}
_CURRENCY = re.compile("|".join(map(re.escape, _SIGNS)))
_WORDED = r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}"
_RATE = re.compile(rf"\\[dt]?frac\s*\{{\s*{_WORDED}\s*\}}\s*\{{\s*{_WORDED}\s*\}}")
_TYPED_RATE = re.compile(r"(?<=[\d}\s])([A-Za-z]{1,7})\s*/\s*([A-Za-z]{1,7})(?=[\s.]*\Z)")
_POWER = re.compile(r"(\\(?:text|mathrm|mbox)\s*\{[^{}]*[A-Za-z])\.?\s*\}\s*\^\s*\{?([23])\}?")
_TYPED_POWER = re.compile(r"(?<=[\d}\s])([A-Za-z]{2,7})\s*\^\s*\{?([23])\}?(?=[\s.]*\Z)")
_PERCENT = re.compile(r"\\text\s*\{\s*per\s?cent\s*\}|\bper\s?cent\b(?!age)")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_MIXED = re.compile(r"(?<![\w./}])(\d+)(?:\s|\\[, ;:])+(\d+)\s*/\s*(\d+)(?![\w./])")
_SCIENCE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w.])")
_ROOT = re.compile(r"\u221a\s*(?:(\d+|[A-Za-z])|\(([^()]*)\))")
_CHOOSE = re.compile(
    r"\\[dt]?binom\s*\{(\d{1,3})\}\s*\{(\d{1,3})\}"
    r"|\{\s*(\d{1,3})\s*\\choose\s*(\d{1,3})\s*\}|\A(\d{1,3})\s*\\choose\s*(\d{1,3})\Z"
)
_BUILT = re.compile(
    r"\A\s*\\\{\s*[A-Za-z]\s*(?:\\mid|\||:|\u2223)\s*([^|{}:]*(?:[<>]|\\[lg](?:e|t)(?![a-z])|\\[lg]eq)[^|:]*)"
    r"\\\}\s*\Z"
)
_ALL_REALS = re.compile(
    r"\\text\s*\{\s*(?:all|any)\s+reals?(?:\s+numbers?)?\s*\}|\ball\s+real\s+numbers\b"
)
_ROUNDED = re.compile(r"\A(.*[\d\\].*?)\s*(?:\\approx|\u2248)\s*-?\d*\.\d+\s*\Z", re.DOTALL)
"""What is exact, and what it is about: the former is meant."""
_TURNED = re.compile(r"\A\s*(-?[\d./]+)\s*=\s*([A-Za-z])\s*\Z")
_MEASURED = re.compile(
    r"\A\s*(?:\|[A-Z]{2}\||\\(?:angle|overline)\s*\{?\s*[A-Z]{1,3}\s*\}?|\\[dt]?frac\s*\{[A-Z]{2}\}\s*\{[A-Z]{2}\}"
    r"|[A-Z]{2}(?:\s*:\s*[A-Z]{2})?|\\(?:sin|cos|tan)\s*(?:\\angle\s*)?[A-Z]{1,3})\s*=\s*"
)
_MODULUS = re.compile(r"(?<=\d)\s*(?:\\pmod\s*\{?\d+\}?|\(\s*\\?mod\s*\d+\s*\))\s*\Z")
_NOTHING = re.compile(r"\A\s*(?:\\text\s*\{)?\s*[Nn]o\s+(?:real\s+)?solutions?\.?\s*\}?\s*\Z")
_CAPITALS = dict(
    zip(
        "NVJLWAKCFTH",
        "newton volt joule liter watt ampere kelvin coulomb farad tesla henry".split(),
        strict=True,
    )
)
_CAPITAL = re.compile(
    r"(?<=[\d}])\s*\\(?:text|mathrm)\s*\{(?:\s|~|\\[ ,])+([NVJLWAKCFTH])\s*\}\s*\Z"
    r"|(?<=\d)\s+([NVJLW])\s*\Z|(?<=\d)(?:\s|~|\\[ ,;])*(\\Omega)\s*\Z"
)
"""Units of one capital, which otherwise is a factor."""
_MEMBER = re.compile(r"\A\s*\\?[A-Za-z]\s*\\in\s*(?=[(\[\\])")
_TUPLE = re.compile(r"\A\s*\(\s*([A-Za-z](?:\s*,\s*[A-Za-z])+)\s*\)\s*=\s*(?=\()")
_POWER_TYPED = re.compile(r"(?<=[\w)}\]])\s*\^\s*(-?\d{2,}(?:\.\d+)?|-\d|\d\.\d+)(?![\d.])")
"""As nobody means it in LaTeX, which raises the first character alone: x^10."""


def unstyled(text: str) -> str:
    """Without what is seen and not read: colours, sizes, ticks, one line's alignment, outer braces."""
    if len(text) > LONGEST:
        return text
    text = _TEXT.sub(r"\\text", _UNSEEN.sub("", text))
    before = None
    while before != text:
        before, text = text, _NESTED.sub(r"\1", text)
    text = _ALIGNED.sub(lambda f: f[0] if "\\\\" in f[2] else f[2].replace("&", ""), text)
    text = _ENDS.sub("", _ENDS.sub("", text))
    while text.startswith("{") and text.endswith("}") and _whole(text):
        text = text[1:-1].strip()
    return text


def _whole(text: str) -> bool:
    depths = accumulate((c == "{") - (c == "}") for c in text[:-1])
    return min(depths, default=1) > 0


def plain(text: str) -> str:
    """Other spellings of numbers, units, intervals and sets, as one."""
    text = _ARRAY.sub(r"\\begin{pmatrix}\1\\end{pmatrix}", typed(text))
    text = _BUILT.sub(r"\1", _ALL_REALS.sub(r"\\mathbb{R}", text))
    text = re.sub(r"(\\mathbb\s*\{?R\}?)\s*-\s*(?=\\\{)", r"\1\\setminus ", text)
    text = re.sub(r"(?<=[\d)}])\s*[\u6216\u548c]\s*(?=[-\d(\\])", r"\\text{ or }", text)
    text = re.sub(r",\s*\\q?quad(?![a-z])", ", ", _ROUNDED.sub(r"\1", text))
    text = re.sub(r"_\s*(\\[A-Za-z]+)(?![A-Za-z{])", r"_{\1}", _TURNED.sub(r"\2=\1", text))
    text = _NOTHING.sub(r"\\emptyset", text)
    text = text.replace(";", ",") if re.fullmatch(r"[^,]*\d\s*;[^,]*", text) else text
    text = re.sub(r"\\varnothing|\u2205|\\\{\s*\\\}", r"\\emptyset", text)
    text = re.sub(r"\A\s*\](.+,.+)[\[]\s*\Z", r"(\1)", text)
    text = _TUPLE.sub("", _MEMBER.sub("", text))
    text = re.sub(r"\A\s*\+\s*(?=\\infty)", "", text)
    return _numbers(_units(text)).strip()


def unnamed(final: str, gold: str) -> tuple[str, str]:
    """Without what is measured, where one of both says it: |AB| = 1."""
    said = [_MEASURED.match(text) for text in (final, gold)]
    if (said[0] is None) != (said[1] is None):
        return _MEASURED.sub("", final), _MEASURED.sub("", gold)
    return final, gold


def without_modulus(text: str) -> str:
    """7 for 7 (mod 11)."""
    return _MODULUS.sub("", text)


def misordered(final: str, gold: str) -> bool:
    """Whether coordinates are named in another order than the right answer's: (y,x) = (1,2). Where that
    has no names, in another than the alphabet's."""
    ours, theirs = (
        "".join(re.findall(r"[A-Za-z]", found[1])) if found else ""
        for found in (_TUPLE.match(final), _TUPLE.match(gold))
    )
    return ours != theirs if ours and theirs else list(ours) != sorted(ours)


def _numbers(text: str) -> str:
    text = _VULGAR.sub(_vulgar, text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _POWER_TYPED.sub(r"^{\1}", text)
    text = _SCIENCE.sub(r"\1\\cdot 10^{\2}", text)
    text = _ROOT.sub(lambda f: f"\\sqrt{{{f[1] or f[2]}}}", text)
    text = re.sub(r"\\(?:bar|dot)\s*\{(\d)\}", r"\\overline{\1}", text)
    text = re.sub(r"\\log_\s*(?:(\w)|\{([^{}]*)\})\s*(\d+)", _logarithm, text)
    text = re.sub(r"(?<=\d),\\!\s*(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"(?<![\d,])\\[,;:!](?=\d)", "", text)
    return _CHOOSE.sub(_chosen, text)


def _logarithm(found: re.Match[str]) -> str:
    return f"\\log_{{{found[1] or found[2]}}}{{{found[3]}}}"


def _vulgar(found: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", found[0]).partition("\u2044")
    return f"\\frac{{{above}}}{{{below}}}"


def _chosen(found: re.Match[str]) -> str:
    of, some = (int(number) for number in found.groups() if number)
    return str(comb(of, some)) if of <= MOST_CHOSEN else found[0]


def _units(text: str) -> str:
    text = _CAPITAL.sub(lambda f: f"\\text{{ {_CAPITALS.get(f[1] or f[2], 'ohm')}}}", text)
    text = _RATE.sub(r"\\text{ \1/\2}", _PERCENT.sub(r"\\%", text))
    text = _TYPED_RATE.sub(lambda f: _known(f[0], f[1], f[2]), text)
    text = _TYPED_POWER.sub(lambda f: _known(f"{f[1]} {_raised(f[2])}", f[1]), text)
    text = _POWER.sub(lambda f: f"{f[1]} {_raised(f[2])}}}", text)
    signs = _CURRENCY.findall(text)
    if len(signs) != 1:
        return text
    return f"{_CURRENCY.sub('', text)}\\text{{ {_SIGNS[signs[0]]}}}"


def _known(text: str, *units: str) -> str:
    known = all(unit.lower().removesuffix("s") in UNITS or unit in UNITS for unit in units)
    return f"\\text{{ {text}}}" if known else text


def _raised(power: str) -> str:
    return {"2": "squared", "3": "cubed"}[power]
