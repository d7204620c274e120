"""In which language a text is, for IFEval's instructions about it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

from onestage.rollout.rewards._markup import unmarked

SCRIPTS = {"zh-cn": ("gb2312", "big5"), "zh-tw": ("big5", "gb2312")}
"""Codes of the data set's detector that name a script: an encoding that has it, and one of the other."""
RELATED = (
    {"zh", "wuu", "yue"}, {"no", "nn"}, {"hr", "bs", "sr"}, {"id", "ms"}, {"en", "pcm"},
    {"ar", "arz", "ary"}, {"he", "hbo"}, {"el", "grc"}, {"es", "ext"}, {"ku", "sdh"}, {"uz", "uzs"},
)  # fmt: skip
"""Labels of the detector that a reader would not hold against each other in a short text."""
ENGLISH = frozenset(
    "the of and to a is it you that he for are with as i his they be at this have from or had by not"
    " but what all were we when your can said there use each which she do how their if will other about"
    " out many then them these some would make like him into has two more see could my than first been"
    " its who now did get may yes hello please thank our me her us".split()
)
FOREIGN = frozenset(
    "der die das und ist ein eine nicht ich sie wir le la les et est une des du pas je vous nous el los"
    " las y es que un una por para con il di che non sono e o os um uma em het van een de"
    " och att det som jag ni na wa ya kwa".split()
)
ONLY_ENGLISH = frozenset("the here this that your you and with answer".split())
LEAST_LETTERS = 20
"""Of a line that is looked at by itself."""
MOST_LINES = 200
"""That are; a line takes the detector a millisecond."""


@lru_cache(maxsize=1)
def detector() -> Callable[[str], list[tuple[str, float]]]:
    """What ranks the languages of a text, as ISO 639 codes with their probabilities, best first."""
    try:
        import py3langid
    except ImportError as error:
        raise ValueError(
            "the instruction language:response_language needs py3langid: pip install"
            " 'onestage[languages]'"
        ) from error

    def ranked(text: str) -> list[tuple[str, float]]:
        found = py3langid.rank(text[:20_000])
        # Naive Bayes is too sure of long texts; the root of the length calibrates it.
        scale = math.sqrt(len(text[:20_000].encode(errors="replace")) or 1)
        weights = [math.exp((score - found[0][1]) / scale) for _, score in found]
        return [
            (label, weight / sum(weights))
            for (label, _), weight in zip(found, weights, strict=True)
        ]

    return ranked


def known(language: str) -> bool:
    return language.lower() in {*SCRIPTS, *(label for label, _ in detector()("a"))}


def is_in(language: str, text: str) -> bool | None:
    """Whether all of a text is in a language; None where it is too short to tell, or where a line of it
    is in another one."""
    text = unmarked(text)
    if not known(language) or not any(map(str.isalpha, text)):
        return False
    whole = _judged(language, text)
    if whole is not True:
        return whole
    lines = [line for line in text.split("\n") if sum(map(str.isalpha, line)) >= LEAST_LETTERS]
    looked = list(dict.fromkeys(lines))[:MOST_LINES]
    if any(_judged(language, line) is False for line in looked):
        return None
    return None if language.lower() != "en" and _introduced(text) else True


def _introduced(text: str) -> bool:
    """ "Here is the translation:", which is too short for the detector."""
    short = [line for line in text.split("\n") if sum(map(str.isalpha, line)) < LEAST_LETTERS]
    return any(ONLY_ENGLISH & set(re.findall(r"\w+", line.lower())) for line in short)


def _judged(language: str, text: str) -> bool | None:
    code = language.lower()
    if code in SCRIPTS:
        own, other = SCRIPTS[code]
        if _writes(text, other) > _writes(text, own):
            return False
        code = "zh"
    meant = next((group for group in RELATED if code in group), {code})
    ranked = detector()(text)
    share = sum(chance for label, chance in ranked if label in meant)
    if ranked[0][0] in meant and share >= 0.4:
        return True
    return False if share < 0.05 and ranked[0][1] >= 0.4 else None


def _writes(text: str, encoding: str) -> int:
    return len(text.encode(encoding, errors="ignore").decode(encoding))


def is_english(text: str) -> bool | None:
    """By its small words; nothing needs to be installed for it."""
    said = re.findall(r"[^\W\d_]+", unmarked(text).lower())
    ours = sum(word in ENGLISH for word in said)
    theirs = sum(word in FOREIGN for word in said)
    plain = sum(map(str.isascii, said))
    if not said or plain < 0.8 * len(said) or theirs > ours:
        return False
    if ours > theirs and ours >= 0.1 * len(said):
        return True
    return True if not theirs and len(said) < 6 else None
