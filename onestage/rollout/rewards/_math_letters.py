r"""Letters that stand side by side as factors: the `xy` of `2xy`, the `mx` of `mx + b`.

To what reads words, two letters and more are a word, and a word beside a number is a unit that nobody
asked for: `6ab` was `6`. Here the letters of a product are told from words by where they stand and by
the words that are known, and are written as a product.
"""

from __future__ import annotations

import re

from onestage.rollout.rewards._math_words import KNOWN

_SHORT_WORDS = frozenset(
    "am pm oz lb lbs ml cl dl kl gal qt pt hz khz mhz rpm kb mb gb tb kw kwh mw ev pa kpa psi atm mol "
    "nm ms ns ps yr yrs hrs pts pcs rad kn mpg fps ha mins secs kcal pi "
    "as be by do en es go he hi id if im in it ja me my ok on si so un us we zu".split()
)
"""Units that are in no table of sizes, and words as short as products."""
_RUN = re.compile(
    r"\\(?:text\w*|math[a-z]+|mbox|operatorname|begin|end)\s*\{[^{}]*\}"  # passed over
    r"|(?<![\\A-Za-z_])(?<!_\{)([A-Za-z]{2,4})(?![A-Za-z_'])"
)
_NO_LETTERS = re.compile(
    r"\\(?:text\w*|math[a-z]+|mbox|operatorname|begin|end)\s*(?:\{[^{}]*\}|[A-Z])|\\[A-Za-z]+"
)
_LETTERS = re.compile(rf"{_NO_LETTERS.pattern}|([A-Z])")
_CONSTANT = re.compile(r"\+\s*([cC])\s*\Z")
_CAPITALS = re.compile(r"\\((?:Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega)(?![A-Za-z]))")
_COMMAND = re.compile(r"\\([A-Za-z]+)\s*\Z")
_FACTORS = frozenset(
    "cdot times div pm mp pi alpha beta gamma theta lambda mu sigma omega phi left right".split()
)
"""Commands behind which a run is no argument."""


def factors(text: str) -> str:
    """The text with a sign between letters that are factors; words and units stay."""

    def written(found: re.Match[str]) -> str:
        run, after = found[1], text[found.end() :]
        if run is None or not _product(run, text[: found.start()], after):
            return found[0]
        product = " \\cdot ".join(run)
        # Of ab^2 only the last is raised.
        return product if after.startswith("^") else f"{{{product}}}"

    return _RUN.sub(written, text)


def cased(ours: str, theirs: str) -> tuple[str, str]:
    """Two texts, with capitals whose small letter stands in one of them as letters that stand in none:
    to what reads them R and r are one."""
    constants = [_CONSTANT.search(text) for text in (ours, theirs)]
    if constants[0] and constants[1]:  # of an integral, in either case
        ours = ours[: constants[0].start(1)] + constants[1][1] + ours[constants[0].end(1) :]
    both = _NO_LETTERS.sub(" ", f"{ours} {theirs}")
    letters = set(re.findall(r"[A-Za-z]", both)) | {
        "\\" + one for one in _CAPITALS.findall(f"{ours} {theirs}")
    }
    free = [one for one in "qwzvkphgujlyrsmnbca" if not {one, one.upper()} & letters]
    twice = sorted(
        one for one in letters if one[0] == "\\" or (one.isupper() and one.lower() in letters)
    )
    names = dict(zip(twice, free, strict=False))

    def renamed(text: str) -> str:
        text = _CAPITALS.sub(lambda f: names.get(f[0], f[0]) + " ", text)
        return _LETTERS.sub(lambda f: names.get(str(f[1]), str(f[0])), text)

    return (renamed(ours), renamed(theirs)) if names else (ours, theirs)


def one_case(text: str) -> bool:
    """Whether no letter stands in a text both as a capital and as a small one."""
    letters = set(re.findall(r"[A-Za-z]", _NO_LETTERS.sub(" ", text)))
    return not {one.lower() for one in letters if one.isupper()} & letters


def _product(run: str, before: str, after: str) -> bool:
    word = run.lower()
    if word in KNOWN or word in _SHORT_WORDS or word.removesuffix("s") in KNOWN:
        return False
    command = _COMMAND.search(before)
    if command and command[1] not in _FACTORS:
        return False
    left, right = before.rstrip()[-1:], after.lstrip()[:1]
    if right == "=":
        return False  # a name
    joined = left in tuple("+-*^(") or right in tuple("+-*^") or bool(command)
    if before[-1:].isdigit() or joined:
        return len(run) < 4 or not re.search("[aeiou]", word)
    if run != word:
        return False  # AB is a segment
    inside = left in tuple("{|,[") or right in tuple("}),]|") or left in tuple("/=")
    consonants = not re.search("[aeiou]", word)
    if inside or right == "/":
        return len(run) == 2 or consonants
    alone = not left and not right
    return (alone or left.isdigit() or left in tuple("})")) and (len(run) == 2 or consonants)
