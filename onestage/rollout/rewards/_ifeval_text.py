"""What IFEval's instructions count: words, sentences, keywords, capital words.

Careful readers differ on some of it ("well-known": one word or two? a heading: a sentence or none?), so
a count is two numbers, the least and the most that it can be. Where a threshold falls between them, the
instruction is not judged. All of them take time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata

from onestage.rollout.rewards._markup import unmarked

Count = tuple[int, int]
_ALNUM = r"[^\W_]"
_JOINED = re.compile(rf"{_ALNUM}+(?:[-'.,:/@&+_=]{_ALNUM}+)*")
_SPLIT = re.compile(rf"{_ALNUM}+(?:(?:'|(?<=\d)[.,:](?=\d)){_ALNUM}+)*")
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese: scripts that do not divide words."""
_RUN = re.compile(f"[{_SPACELESS}]+")
_UNDIVIDED = re.compile("[\u0e00-\u0eff]")
"""Thai and Lao do not mark the ends of sentences either."""
_LIST_MARK = re.compile(
    r"^[ \t]*(?:(?:[-*+>#\u2022]+|\(?\d{1,3}[.)]|\(?[A-Za-z][.)]|\(?[ivxIVX]{1,5}[.)])[ \t]+)+",
    re.MULTILINE,
)
_OWN_MARKS = "\u3002\uff01\uff1f\uff61\u0964\u0965\u06d4\u061f\u0589\u1362\u104b"
_END = re.compile(rf"""[.!?{_OWN_MARKS}]++["')\]\u300d\u300f\u00bb\uff09]*+""")
_NEVER = frozenset(
    "mr mrs ms mx dr prof rev gen sen rep gov capt lt col sgt hon messrs vs e.g i.e cf viz al"
    " approx ca".split()
)
"""Abbreviations that something always follows."""
_NUMBERED = frozenset("no nos art p pp vol fig sec ch eq ref".split())
_SOMETIMES = frozenset(
    "etc inc ltd co corp jr sr a.m p.m st ave blvd dept est ph.d jan feb mar apr jun jul aug sep sept"
    " oct nov dec mon tue wed thu fri sat sun".split()
)
_STARTERS = frozenset(
    "the a an it its he she we they you i this that these those there here then so but and or if when"
    " while in on at for to from with what who why how my your his her our their no yes not now"
    " however".split()
)
_INITIALS = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_LAST_WORD = re.compile(r"[^\s\"'(\[]+\Z")
_NEXT = re.compile(r"""(\s*)["'(\[\u00bf\u00a1\u00ab\u300c\u300e]*(\S*)""")


def compares(count: Count, relation: str, threshold: int) -> bool | None:
    """None where it depends on how one counts."""
    low, high = count
    if relation == "less than":
        return True if high < threshold else False if low >= threshold else None
    return True if low >= threshold else False if high < threshold else None


def exactly(count: Count, number: int) -> bool | None:
    low, high = count
    return True if low == high == number else None if low <= number <= high else False


def words(text: str) -> Count:
    """Joined by hyphens or not, with the numbers of lists or not; four characters at most a word where
    the script does not divide words."""
    plain = _unaccented(unmarked(re.sub("\u2014|--+", " ", text)))
    runs = [len(run) for run in _RUN.findall(plain)]
    spaced = _RUN.sub(" ", plain)
    low = len(_JOINED.findall(_LIST_MARK.sub("", spaced))) + sum(-(-run // 4) for run in runs)
    return low, len(_SPLIT.findall(spaced)) + sum(runs)


def _unaccented(text: str) -> str:
    """Vowel signs of Indian scripts stand within words and are no letters to `re`."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(c for c in composed if unicodedata.category(c)[0] != "M")


def capital_words(text: str) -> Count:
    """I and A may be words in capitals, or just words; hyphenated ones may be several."""
    low = high = 0
    for found in _JOINED.findall(unmarked(text)):
        word = re.sub(r"'s\Z", "", found)
        letters = sum(map(str.isalpha, word))
        if word.isupper() and letters:
            low += letters > 1 and word == found
            high += sum(part.isupper() for part in re.split(r"[-/_&]", word))
    return low, high


def occurrences(keyword: str, text: str) -> Count:
    """As a word; at most also in other forms (`moms`) and as a part of compounds (`mom-like`)."""
    text = unicodedata.normalize("NFC", unmarked(text))
    pattern, left, right = _keyword(keyword)
    sure = rf"{left and rf'{left}(?<!{_ALNUM}-)'}{pattern}{right and rf'{right}(?!-{_ALNUM})'}"
    forms = rf"{left}{pattern}{right and rf'{_ALNUM}{{0,3}}{right}'}"
    low = len(re.findall(sure, text, re.IGNORECASE))
    return low, max(low, len(re.findall(forms, text, re.IGNORECASE)))


def forbids(word: str, text: str) -> bool | None:
    """Whether a text does without a word: other words that begin with it are other words."""
    plain = unicodedata.normalize("NFC", unmarked(text))
    pattern, left, right = _keyword(word)
    exact = re.escape(unicodedata.normalize("NFC", word.strip()))
    for version in (plain, re.sub(r"[*_~`]", "", plain)):
        if re.search(f"{left}{exact}{right}", version, re.IGNORECASE):
            return False
    return None if re.search(f"{left}{pattern}{right}", plain, re.IGNORECASE) else True


def _keyword(keyword: str) -> tuple[str, str, str]:
    """A pattern for it, and for its borders: of words only where it begins or ends in a letter."""
    plain = unicodedata.normalize("NFC", keyword.strip())

    def bounded(character: str) -> bool:
        return character.isalnum() and not _RUN.match(character)

    pattern = r"\s+".join(map(re.escape, plain.split()))
    left = rf"(?<!{_ALNUM})" if bounded(plain[0]) else ""
    return pattern, left, rf"(?!{_ALNUM})" if bounded(plain[-1]) else ""


def sentences(text: str) -> Count:
    """At most also lines without a stop, and stops that may be those of an abbreviation."""
    body = _LIST_MARK.sub("", unmarked(text))
    # Without capitals, what begins a sentence is not told by them.
    flat = not any(map(str.isupper, body))
    ends = [(found.end(), found) for found in _END.finditer(body)]
    stops = {place for place, _ in ends}
    places: list[tuple[int, bool]] = []
    last = 0
    for place, found in ends:
        sure = _ends(body, last, found, flat)
        if sure is not False:
            places.append((place, sure is True))
            last = place
    places += [(place, False) for place in _lines(body, flat) if place not in stops]
    low, high = _counted(body, sorted(places))
    if _UNDIVIDED.search(body):
        high = max(high, len(body.split()))
    return low, high


def _counted(body: str, places: list[tuple[int, bool]]) -> Count:
    low = high = sure_from = from_ = 0
    for place, sure in places:
        high += _said(body[from_:place])
        from_ = place
        if sure:
            low += _said(body[sure_from:place])
            sure_from = place
    # A rest that breaks off is a sentence, but a signature is none.
    low += any(len(_SPLIT.findall(line)) > 1 for line in body[sure_from:].split("\n"))
    return low, max(low, high + _said(body[from_:]))


def _said(text: str) -> bool:
    return any(map(str.isalnum, text))


def _lines(body: str, flat: bool) -> list[int]:
    """Ends of lines that may end a sentence without a stop, as headings do."""
    found = []
    for line in re.finditer(r"[^\s,;](?=[ \t]*\n\s*(\S))", body):
        blank = "\n\n" in body[line.end() : line.start(1)]
        if flat or blank or not line[1].islower():
            found.append(line.end())
    return found


def _ends(body: str, last: int, found: re.Match[str], flat: bool) -> bool | None:
    """Whether a stop ends a sentence; None where it may."""
    marks = found.group()
    after = _NEXT.match(body, found.end(), found.end() + 60)
    space, following = (after[1], after[2]) if after else ("", "")
    begun = body[max(last, found.start() - 60) : found.start()]
    if not any(map(str.isalpha, begun)) and (begun.strip().isdigit() or not _said(begun)):
        return False  # "2. Sleep." in a line
    if not following or "\n" in space:
        return True
    if marks[0] in _OWN_MARKS:
        return True if space or marks[-1] in _OWN_MARKS else None
    if not space:
        spaceless = _RUN.match(following) is not None
        joined = following[0].isupper() and begun[-1:].islower()
        return True if spaceless and marks[0] != "." else None if spaceless or joined else False
    small = following[0].islower() and not flat
    if marks.startswith(".."):
        return None if flat else not small
    if marks[0] == ".":
        return _after_stop(begun, following, small, marks[-1] == ".")
    return True if not small else None if marks[-1] in "!?" else False


def _after_stop(begun: str, following: str, small: bool, bare: bool) -> bool | None:
    """A stop and white space: abbreviations and initials may go on."""
    tail = _LAST_WORD.search(begun)
    word = tail[0] if tail else ""
    before = begun[: tail.start()].split() if tail else []
    if word.lower() in _NEVER or (word.lower() in _NUMBERED and following[0].isdigit()):
        return False
    short = word.lower() in _SOMETIMES or _INITIALS.fullmatch(word) is not None
    if small:
        return None if bare and not short else False
    next_word = re.split(r"\W", following)[0]
    if short or (len(word) == 1 and word.isupper()):
        starts = next_word.lower() in _STARTERS
        label = not short and before[-1:] == [next_word]
        pronoun = word == "I" and before[-1:] != [] and before[-1].islower()
        return True if starts or label or pronoun else None
    return True
