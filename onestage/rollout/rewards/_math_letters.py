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
