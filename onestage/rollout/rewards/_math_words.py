r"""Words in a mathematical answer: units, scales, fillings, and words that change what is said.

`18 cm` is 18 where no unit was asked for, and is not 18 km; `5 million` is 5000000; `There are 73` is
73; `5 or more` is none of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from onestage.rollout.rewards._markup import characters

SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    **{"bn": 10**9, "lakh": 10**5, "crore": 10**7, "tausend": 10**3, "millionen": 10**6},
    **{"milliarde": 10**9, "milliarden": 10**9, "millones": 10**6, "milliard": 10**9},
    **{"\u767e": 100, "\u5343": 10**3, "\u4e07": 10**4, "\u842c": 10**4, "\u4ebf": 10**8},
}
_UNITS = {
    "length": {"mm": "0.001", "cm": "0.01", "m": "1", "km": "1000", "millimeter": "0.001"}
    | {"centimeter": "0.01", "meter": "1", "kilometer": "1000", "metre": "1"},
    "feet": {"in": "1", "inch": "1", "ft": "12", "foot": "12", "yd": "36", "yard": "36"}
    | {"mile": "63360", "mi": "63360"},
    "time": {"second": "1", "sec": "1", "s": "1", "minute": "60", "min": "60", "hour": "3600"}
    | {"hr": "3600", "h": "3600", "day": "86400", "week": "604800"},
    "money": {"cent": "1", "dollar": "100", "usd": "100"},
    "mass": {"mg": "0.001", "g": "1", "gram": "1", "kg": "1000", "kilogram": "1000"},
}
UNITS = {
    name: (kind, Fraction(size)) for kind, sizes in _UNITS.items() for name, size in sizes.items()
}
_FILLING = frozenset(
    "the a an it is are there so we get have answer final therefore thus hence equals equal to of "
    "total value that exactly per each "
    "antwort lautet ist die der das la le les el es est respuesta ergebnis r\u00e9ponse "
    "\u7b54\u6848\u662f \u7b54\u6848 \u662f \u4e3a".split()
)
FRACTIONS = frozenset(
    "third quarter fourth fifth sixth seventh eighth ninth tenth twentieth hundredth thousandth "
    "halves half".split()
)
"""Of which a number may count some, or say the rank of one."""
CHANGING = FRACTIONS | frozenset(
    "not no either neither nor at most least more less than over under but possibly maybe about "
    "approximately roughly around between minus plus negative positive percent except if when unless "
    "never up wrong incorrect false cannot doubt fewer half twice double triple almost nearly circa "
    "root rather instead probably likely guess perhaps beside onward onwards "
    "nicht kein weniger mehr als etwa ungef\u00e4hr pas moin environ entre ni nunca meno "
    "m\u00e1s".split()
)
"""Words with which a number is not that number, or not certainly."""
_OF_A_NUMBER = re.compile(
    r"\b(?:reciprocal|inverse|cube|square|multiple|factor|divisor|power|complement|opposite|sum|product"
    r"|negation)s?\s+of[\s}$\\({~]*-?\d|\btimes\s+(?:as|more|less|the)\b|\bor\s+so\b|\bbelow\s+zero\b"
    r"|\b(?:tr|det|adj)\s*\(?[A-Z]\b|\b(?:other\s+than|apart\s+from|starting\s+(?:from|at))\b",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    "[\u4e0d\u975e\u7ea6\u6216\u81f3]|\u5c0f\u4e8e|\u5927\u4e8e|\u4ee5[\u4e0a\u4e0b]|\u5de6\u53f3"
)
_ALIASES = {
    **{"square": "squared", "sq": "squared", "cubic": "cubed", "cu": "cubed", "cm2": "cm squared"},
    **{"mph": "mile hour", "kph": "km hour", "kmh": "km hour", "eur": "euro", "gbp": "pound"},
}
NAMING = frozenset("st nd rd th equation page step figure line problem question see".split())
"""Words with which a number is the name of something."""
POWERS = frozenset(("squared", "cubed"))
JOINING = {"or": "or", "oder": "or", "ou": "or", "and": "and", "und": "and", "et": "and"}
"""Words between answers, and which of two things they say."""
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp max min gcd lcm det "
    "dim arg deg mod lim sup inf Re Im".split()
)
KNOWN = frozenset((*UNITS, *SCALES, *_FILLING, *CHANGING, *_ALIASES, *NAMING, *POWERS, *JOINING))
KNOWN |= {name.lower() for name in FUNCTIONS}
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_DEGREES = re.compile(
    r"\^?\s*\{?\s*\\circ\s*\}?\s*(?:([CFK])\b)?|(?:\u00b0|\\degree(?![a-z]))\s*(?:([CFK])\b)?"
)
_WORD = re.compile(
    r"(?<![\\A-Za-z_])(?<!\\begin\{)(?<!\\end\{)(?:[A-Za-z]{2,}|[^\W\d_a-z]?[^\W\d_]{2,}|[\u4e00-\u9fff])(?:\.|(?![^\W\d_]|\())"
)
_POWER_OF_UNIT = re.compile("(?<=\u2223)\\s*\\^\\s*\\{?-?[123]\\}?")
_COUNTED = re.compile(r"(?<![\d.^_/])(-?\d[\d,.]*)\s*([A-Za-z]{2,})")


_RATES = {"mph": "hour", "kph": "hour", "kmh": "hour"}
"""What those rates are divided by."""


@dataclass(frozen=True)
class Worded:
    """A text with its words taken out; each leaves a bar, so that what stood apart stays apart."""

    core: str
    words: tuple[str, ...]
    """In order, in lower case and the singular; fillings left out."""
    below: tuple[str, ...] = ()
    """Those of them that stand behind `per` or a stroke: the hour of km/h."""

    @property
    def units(self) -> tuple[str, ...]:
        """Sorted, each in one spelling."""
        known = (*SCALES, *CHANGING, *JOINING)
        return _spelled([word for word in self.words if word not in known])

    @property
    def divided(self) -> tuple[str, ...]:
        """Of those units, what they are divided by; empty where that is not said."""
        rates = [_RATES[word] for word in self.words if word in _RATES]
        return _spelled([*self.below, *rates])

    @property
    def changing(self) -> bool:
        return any(word in CHANGING or _CHANGES.search(word) for word in self.words)

    @property
    def scale(self) -> int:
        product = 1
        for word in self.words:
            product *= SCALES.get(word, 1)
        return product


def taken_out(text: str) -> Worded:
    """The words of a text, and what is left."""
    words, below = list[str](), list[str]()
    per = False

    def take(found: re.Match[str]) -> str:
        said = found[1] if found.re is _WRAPPED else found[0]
        nonlocal per
        inner = re.findall(r"[^\W\d_]+|[\W\d_]+", said)
        left = []
        for part in inner:
            if not part.isalpha():
                per = per or part.strip() == "/"
                left.append(part if re.search(r"[\d:]", part) else " ")
            elif len(part) == 1 and (part.isupper() or "\u0370" <= part <= "\u03ff"):
                left.append(part)
            else:
                words.append(_singular(part))
                filling = words[-1] in _FILLING
                if filling:
                    per = words.pop() == "per" or per
                elif per:
                    below.append(words[-1])
                    per = False
                left.append(" " if filling else " \u2223 ")
        return "".join(left)

    def degrees(found: re.Match[str]) -> str:
        words.append("degree" + (found[1] or found[2] or "").lower())
        return " \u2223 "

    text = re.sub(r"~|(?<!\\)\\ |(?<!\d)\\[,;:]|\\[,;:](?!\d)", " ", characters(text))
    text = _WRAPPED.sub(take, text)
    text = _DEGREES.sub(degrees, text)
    text = _WORD.sub(lambda f: f[0] if f[0].rstrip(".") in FUNCTIONS else take(f), text)
    core = _POWER_OF_UNIT.sub("", text)
    core = re.sub(r"(\\q?quad(?![a-z])\s*)*\u2223(\s*\\q?quad(?![a-z]))*", " \u2223", core).strip(
        " \u2223"
    )
    return Worded(core.lstrip(":, ").rstrip(".,"), tuple(words), tuple(below))


def _spelled(words: list[str]) -> tuple[str, ...]:
    """Sorted, each unit in one spelling."""
    spelled = " ".join(_ALIASES.get(word, word) for word in words).split()
    return tuple(sorted(str(UNITS.get(word, word)) for word in spelled))


def of_a_number(text: str) -> bool:
    """Whether words make something else of a number: `the reciprocal of 5`, `5 times as many`."""
    return _OF_A_NUMBER.search(_WRAPPED.sub(r" \1 ", characters(text))) is not None


def counted(text: str) -> dict[str, Fraction]:
    """How many of what: `5 boys and 3 girls`."""
    plain = _WRAPPED.sub(r" \1 ", characters(text)).replace("\\", " ")
    found = _COUNTED.findall(plain)
    return {
        _singular(what): Fraction(number.replace(",", "").rstrip("."))
        for number, what in found
        if what not in JOINING and number.count(".") < 2
    }


def quantity(text: str) -> tuple[str, Fraction] | None:
    """A quantity of known units, as its kind and size: 5 hours 30 minutes; None for other texts."""
    plain = _WRAPPED.sub(r" \1 ", characters(text)).replace("\\", " ").replace("~", " ")
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)\.?[\s,]*(?:and\b)?\s*", plain)
    rebuilt = re.sub(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)\.?[\s,]*(?:and\b)?\s*", "", plain).strip()
    if not parts or rebuilt:
        return None
    found = [(number, UNITS.get(_singular(unit))) for number, unit in parts]
    kinds = {unit[0] if unit else None for _, unit in found}
    if None in kinds or len(kinds) != 1:
        return None
    size = sum((Fraction(number) * unit[1] for number, unit in found if unit), Fraction(0))
    return kinds.pop() or "", size


def _singular(word: str) -> str:
    word = word.lower()
    if word == "feet":
        return "foot"
    if word == "inches":
        return "inch"
    keeps = len(word) < 4 or word.endswith(("ss", "us", "is"))
    return word if keeps or not word.endswith("s") else word[:-1]
