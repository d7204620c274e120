r"""Are two mathematical answers the same, exactly?

math-verify reads LaTeX and knows many forms, and forgives much: it passes over words, takes letters for
factors that commute, sets for lists, and values that are near. So it reads here, and what it read is
compared by rules that say yes only where that is certain:

- words and units first (`_math_words`); texts and strings of letters as texts;
- lists, tuples, sets and intervals part by part, brackets and repeats included;
- numbers exactly: decimals are fractions, and irrational ones must agree in fifty digits.

`same` is True, False, or None where nobody could say (a base left out, percent or not): that is not
judged.
"""

from __future__ import annotations

import re

from onestage.rollout.rewards._markup import unmarked
from onestage.rollout.rewards._math_choices import chosen, lettered
from onestage.rollout.rewards._math_letters import cased, factors, one_case
from onestage.rollout.rewards._math_numbers import clocks
from onestage.rollout.rewards._math_ranges import (
    inequality,
)
from onestage.rollout.rewards._math_spelling import misordered, plain, unnamed, without_modulus
from onestage.rollout.rewards._math_values import Read, Values, Verify
from onestage.rollout.rewards._math_words import (
    FRACTIONS,
    FUNCTIONS,
    JOINING,
    NAMING,
    POWERS,
    Worded,
    counted,
    of_a_number,
    quantity,
    taken_out,
)

_UNSURE = FRACTIONS | set("percent minus most root probably likely guess perhaps doubt".split())


def same(final: str, gold: str, read: Read, verify: Verify) -> bool | None:
    """Whether a final answer is the right one."""
    if re.fullmatch(r"\s*\d+\s*:\s*\d+\s*", gold):
        final = re.sub(r"\\text\s*\{\s*to\s*\}|(?<=\d)\s+to\s+(?=\d)", ":", final)
    if misordered(final, gold):
        # Names that stand as usual (m, b) or not (y, x): right or wrong, nobody said.
        return None if same(plain(final), plain(gold), read, verify) else False
    final, gold = plain(final), plain(gold)
    if _spelled(final) == _spelled(gold):
        return True
    if _swapped(final, gold):
        return None  # yx for xy: a product or a word, nobody said
    choice = chosen(final, gold, lambda ours, theirs: same(ours, theirs, read, verify))
    if choice is not None:
        return choice[0]
    letters = _as_letters(final, gold)
    if letters is not None:
        return letters
    final, gold = unnamed(final, gold)
    bare = without_modulus(final), without_modulus(gold)
    if (bare[0] == final) != (bare[1] == gold):
        # A residue, or all that leave it: nobody said.
        return None if same(*bare, read, verify) else False
    times = clocks(final, gold)
    if times is not None:
        return times[0]
    if of_a_number(final) != of_a_number(gold):
        return None
    final, gold = factors(final), factors(gold)
    sizes = quantity(final), quantity(gold)
    if sizes[0] and sizes[1]:
        return sizes[0] == sizes[1]
    things = counted(final), counted(gold)
    if things[0].keys() == things[1].keys() and len(things[0]) > 1 and things[0] != things[1]:
        return False  # 5 boys and 3 girls for 3 boys and 5 girls
    ours, theirs = taken_out(final), taken_out(gold)
    if ours.changing != theirs.changing:
        return None if _UNSURE & set(ours.words) else False
    if NAMING & set(ours.words) or (ours.units and set(ours.units) <= POWERS):
        return None  # page 12, 12 squared
    units = ours.units, theirs.units
    if all(units) and "unit" not in (*units[0], *units[1]) and units[0] != units[1]:
        return False
    if ours.divided and theirs.divided and ours.divided != theirs.divided:
        return False  # h/km for km/h
    if ours.changing and ours.words != theirs.words:
        return False
    joins = _join(ours), _join(theirs)
    plainly = _joined(ours), _joined(theirs)
    cores = cased(*plainly)
    if all(joins) and joins[0] != joins[1] and not re.search(r"\d", "".join(cores)):
        return None  # I or II for I and II
    scales, compared = (ours.scale, theirs.scale), Values(read, verify, joins)
    found = compared.parts(*cores, scales)
    if found is False and cores != plainly and all(map(one_case, plainly)):
        # r for R, where no R is beside it.
        return None if compared.parts(*plainly, scales) else False
    return found


def _join(worded: Worded) -> str:
    """`and` or `or`, where one of them stands between answers; nothing where both do."""
    found = {JOINING[word] for word in worded.words if word in JOINING}
    return found.pop() if len(found) == 1 else ""


def _joined(worded: Worded) -> str:
    """`or` and `and` between answers are commas; other words that stood between two things stay bars."""
    if any(word in JOINING for word in worded.words) and not inequality(worded.core):
        return re.sub(r"(?:\s*,)?(?:\s*\u2223\s*)+", ",", worded.core)
    return worded.core


def _spelled(text: str) -> str:
    """A text as it is written, without what is mere setting."""
    text = re.sub(r"\\(?:left|right|displaystyle|limits)(?![a-z])|\\[!]", "", unmarked(text))
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\(?:begin|end)\{[bpB]?matrix\}", "M", text)
    text = re.sub(r"\s|~|\\ ", " ", text)
    if re.search(r"\d \d", text) and not re.fullmatch(r"\D*\d{1,3}(?: \d{3})+\D*", text.strip()):
        text = re.sub(r"(?<=\d) +(?=\d)", "|", text)  # 1 2 is not 12
    text = re.sub(r"(?<=[apAP])\.\s?[mM]\.?(?=\W|\Z)", "m", text)
    # Words in capitals are the same words; R and r are two letters, and so are \Omega and \omega.
    text = re.sub(
        r"(?<![\\A-Za-z])(?:[A-Za-z]{3,}|[A-Za-z]?[aeiouAEIOU][A-Za-z]?)(?![A-Za-z])", _folded, text
    )
    return text.replace(" ", "").rstrip(".")


def _folded(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) == 1 else found[0].casefold()


def _swapped(final: str, gold: str) -> bool:
    both = lettered(final), lettered(gold)
    few = all(re.fullmatch("[a-z]{2,4}", text) for text in both)
    return few and sorted(both[0]) == sorted(both[1])


def _as_letters(final: str, gold: str) -> bool | None:
    """Answers that are words or strings of letters are texts; None for other answers."""
    ours, theirs = (re.sub(r"^\\(?:angle|triangle)\s*", "", lettered(t)) for t in (final, gold))
    pattern = r"[A-Za-z]{2,}|\d*[A-Z][0-9A-Z]+|[0-9A-F]*[A-F][0-9A-F]*"
    if re.fullmatch(pattern, theirs) and re.fullmatch(pattern, ours):
        if theirs in FUNCTIONS or (theirs.isupper() == ours.isupper() and theirs != ours):
            return None if len(theirs) == 2 and theirs.islower() else False
        return ours.casefold() == theirs.casefold()
    return None
