"""Instructions whose following a program can see: the 25 kinds of IFEval (Zhou et al., 2311.07911).

Each is a function of the text and the instruction's own arguments, named as in the data set. It answers
as a careful reader would: followed, not followed, or None where readers would differ (a nested list's
bullets, `* * *` for `***`, curly quotation marks). The benchmark's own verdicts are in
`_ifeval_benchmark`. All of them take time linear in the text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Literal

from onestage.rollout.rewards._ifeval_language import is_english, is_in
from onestage.rollout.rewards._ifeval_marks import (
    OTHER_RULE,
    bullets,
    highlights,
    placeholders,
)
from onestage.rollout.rewards._ifeval_text import (
    capital_words,
    compares,
    exactly,
    forbids,
    occurrences,
    sentences,
    words,
)
from onestage.rollout.rewards._markup import unmarked, visible

Rule = Callable[..., bool | None]
CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
RULES: dict[str, tuple[Rule, dict[str, type]]] = {}
"""By id: the rule, and its arguments with their types."""
_RULE_OF_STARS = r"(?<!\S)\*{3}(?!\S)"
_BOLD_ITALIC = re.compile(r"(?<![\w*])\*{3}(?=[^\s*])([^*\n]+)(?<=\S)\*{3}(?![\w*])")
_NUMERAL = r"(?:\d+|[IVXLC]+\b|[A-Z]\b|(?:one|two|three|four|five|six|seven|eight|nine|ten)\b)"


def rule(name: str, **arguments: type) -> Callable[[Rule], Rule]:
    def keep(function: Rule) -> Rule:
        RULES[name] = (function, arguments)
        return function

    return keep


def followed(name: str, arguments: dict[str, Any], text: str) -> bool | None:
    """Whether a text follows an instruction; None where that cannot be decided."""
    function, known = RULES[name]
    text = visible(text)
    if not text.strip():
        return False
    return function(text, **{key: arguments[key] for key in known})


def _agreed(*readings: bool) -> bool | None:
    return readings[0] if len(set(readings)) == 1 else None


def _all(*verdicts: bool | None) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


@rule("keywords:existence", keywords=list)
def _keywords(text: str, keywords: list[str]) -> bool | None:
    return _all(*(compares(occurrences(word, text), "at least", 1) for word in keywords))


@rule("keywords:frequency", keyword=str, frequency=int, relation=str)
def _keyword_frequency(text: str, keyword: str, frequency: int, relation: str) -> bool | None:
    return compares(occurrences(keyword, text), relation, frequency)


@rule("keywords:forbidden_words", forbidden_words=list)
def _forbidden(text: str, forbidden_words: list[str]) -> bool | None:
    return _all(*(forbids(word, text) for word in forbidden_words))


@rule("keywords:letter_frequency", letter=str, let_frequency=int, let_relation=str)
def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool | None:
    """At most also with accents, where the letter has none."""
    forms: tuple[Literal["NFC", "NFKD"], ...] = ("NFC", "NFKD") if letter.isascii() else ("NFC",)
    mark = unicodedata.normalize("NFC", letter.strip()).lower()
    counts = [unicodedata.normalize(form, text).lower().count(mark) for form in forms]
    return compares((min(counts), max(counts)), let_relation, let_frequency)


@rule("language:response_language", language=str)
def _language(text: str, language: str) -> bool | None:
    return is_in(language, text)


@rule("length_constraints:number_words", num_words=int, relation=str)
def _words(text: str, num_words: int, relation: str) -> bool | None:
    return compares(words(text), relation, num_words)


@rule("length_constraints:number_sentences", num_sentences=int, relation=str)
def _sentences(text: str, num_sentences: int, relation: str) -> bool | None:
    return compares(sentences(text), relation, num_sentences)


@rule("length_constraints:number_paragraphs", num_paragraphs=int)
def _paragraphs(text: str, num_paragraphs: int) -> bool | None:
    """Divided by ***; the first and the last may be empty. ***this*** divides nothing."""
    text = _BOLD_ITALIC.sub(r"\1", text)
    sure = re.split(_RULE_OF_STARS, text)
    wide = re.split(rf"{OTHER_RULE}|\*{{3}}", text, flags=re.MULTILINE)
    readings = [
        all(part.strip() for part in parts[1:-1])
        and sum(bool(part.strip()) for part in parts) == num_paragraphs
        for parts in (sure, wide)
    ]
    return _agreed(*readings)


@rule(
    "length_constraints:nth_paragraph_first_word",
    num_paragraphs=int,
    nth_paragraph=int,
    first_word=str,
)
def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool | None:
    """Divided by blank lines; lines that hold a rule alone may be paragraphs or none."""
    parts = [part for part in re.split(r"\n[ \t\r]*\n\s*", text.strip()) if part.strip()]
    readings = [
        len(kept) == num_paragraphs and _begins(kept[nth_paragraph - 1], first_word)
        for kept in (parts, [part for part in parts if any(map(str.isalnum, part))])
        if nth_paragraph >= 1
    ]
    found = set(readings)
    return found.pop() if len(found) == 1 else None


def _begins(paragraph: str, first_word: str) -> bool | None:
    plain = re.sub(r"\A[\W_]+", "", unmarked(paragraph)).casefold()
    word = re.sub(r"\A[\W_]+", "", first_word.strip()).casefold()
    if not plain.startswith(word):
        return None if re.match(r"\d+[.)]\s+" + re.escape(word), plain) else False
    rest = plain[len(word) :]
    if re.match(r"'s?(?!\w)", rest):
        return None
    return re.match(r"[^\W_]|[-'][^\W_]", rest) is None


@rule("detectable_content:number_placeholders", num_placeholders=int)
def _placeholders(text: str, num_placeholders: int) -> bool | None:
    return compares(placeholders(text), "at least", num_placeholders)


@rule("detectable_content:postscript", postscript_marker=str)
def _postscript(text: str, postscript_marker: str) -> bool | None:
    """Begins a line or follows the end of a sentence, and says something."""
    plain = unmarked(text)
    known = {"p.p.s": r"p\.\s?p\.\s?s\b\.?", "p.s.": r"p\.\s?s\."}
    marker = known.get(postscript_marker.strip().lower(), re.escape(postscript_marker.strip()))
    free = rf"(?<![\w.])(?<!p\.\s){marker}"
    begins = rf"(?:^[^\w\n]*|(?<=[.!?])[\"')*]*\s+){marker}[^\w\n]*\s*[^\W_]"
    if re.search(begins, _without_longer(plain), re.IGNORECASE | re.MULTILINE):
        return True
    loose = re.search(rf"{free}|(?<!\w){marker.replace(chr(92) + '.', '[.:]?')}", plain, re.I)
    return None if loose else False


def _without_longer(text: str) -> str:
    """P.P.P.S. is neither."""
    return re.sub(r"(?<!p\.)(?<!p\.\s)(?:p\.\s?){3,}+s\b\.?", "", text, flags=re.IGNORECASE)


@rule("detectable_format:number_bullet_lists", num_bullets=int)
def _bullets(text: str, num_bullets: int) -> bool | None:
    return exactly(bullets(text), num_bullets)


@rule("detectable_format:constrained_response")
def _choice(text: str) -> bool | None:
    """One of them."""
    plain = unmarked(text)
    found = sum(choice in plain for choice in CHOICES)
    if found == 1:
        return True
    near = sum(choice.lower().rstrip(".") in plain.lower() for choice in CHOICES)
    return None if near == 1 else False


@rule("detectable_format:number_highlighted_sections", num_highlights=int)
def _highlights(text: str, num_highlights: int) -> bool | None:
    return compares(highlights(text), "at least", num_highlights)


@rule("detectable_format:multiple_sections", section_spliter=str, num_sections=int)
def _sections(text: str, section_spliter: str, num_sections: int) -> bool | None:
    """Begun by the word and a number; other numerals, cases and places may count or not."""
    word = re.escape(section_spliter.strip())
    begun = re.findall(rf"^(?:[^\w\n]|_)*{word}\s?(\d+)", text, re.MULTILINE)
    loose = re.findall(rf"(?<!\w){word}[ \t]*[:#.-]?[ \t]*{_NUMERAL}", text, re.IGNORECASE)
    low = len(set(begun))
    return compares((low, max(low, len(loose))), "at least", num_sections)


@rule("detectable_format:json_format")
def _json(text: str) -> bool | None:
    """Of an object or a list; NaN and Infinity are none. A bare number or text is JSON to a parser."""
    text = text.strip()
    opened, closed = text.startswith("```"), len(text) > 5 and text.endswith("```")
    inner = re.sub(r"\A```(?:json)?", "", text, flags=re.IGNORECASE) if opened else text
    if closed:
        inner = inner.removesuffix("```")
    try:
        value = json.loads(inner.strip(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return None if opened != closed or not isinstance(value, (dict, list)) else True


def _no_constant(name: str) -> None:
    raise ValueError(name)


@rule("detectable_format:title")
def _title(text: str) -> bool | None:
    """<<like this>>; over lines, or spaced like operators within a line, it may be one or not."""
    for line in text.split("\n"):
        for found in re.finditer(r"(?<![\w<])<<([^<>\n]*)>>(?![\w>])", line):
            if not any(map(str.isalnum, found[1])):
                continue
            alone = line.strip(" \t#*_") == found[0].strip()
            if alone or found[1] == found[1].strip():
                return True
    loose = re.findall(r"<<([^<>]*)>>", text)
    return None if any(map(str.isalnum, "".join(loose))) else False


@rule("combination:two_responses")
def _two_responses(text: str) -> bool | None:
    """Divided by ******."""
    parts = [part.strip() for part in re.split(r"(?<!\*)\*{6}(?!\*)", text)]
    said = [part for part in parts if part]
    if not all(parts[1:-1]) or len(said) != 2:
        return None if re.search(r"\*{7,}|(?:\*[ \t]+){5,}\*", text) else False
    first, second = (re.sub(r"[\W\d_]+", "", part).lower() for part in said)
    return False if said[0] == said[1] else None if first == second else True


@rule("combination:repeat_prompt", prompt_to_repeat=str)
def _repeat(text: str, prompt_to_repeat: str) -> bool | None:
    """Then the answer."""
    said, asked = text.strip().lower(), prompt_to_repeat.strip().lower()
    if not said.startswith(asked):
        near = re.sub(r"[\W_]+", "", said).startswith(re.sub(r"[\W_]+", "", asked) or " ")
        return None if near else False
    rest = said[len(asked) :]
    if asked[-1].isalnum() and rest[:1].isalnum():
        return False
    return True if any(map(str.isalnum, rest)) else None


@rule("startend:end_checker", end_phrase=str)
def _end(text: str, end_phrase: str) -> bool | None:
    """Whatever closes emphasis or a quotation behind it."""
    said, phrase = (" ".join(unmarked(x).lower().split()) for x in (text, end_phrase))
    said, phrase = said.rstrip(" \"'*_`"), phrase.strip(" \"'*_`")
    if said.endswith(phrase):
        before = said[: len(said) - len(phrase)][-1:]
        return not (before.isalnum() and phrase[:1].isalnum())
    bare = re.sub(r"[\W_]+\Z", "", said)
    return None if bare.endswith(re.sub(r"[\W_]+\Z", "", phrase) or " ") else False


@rule("startend:quotation")
def _quotation(text: str) -> bool | None:
    """By one pair of straight marks; of another kind, or of several pairs, it may be wrapped or not."""
    text = text.strip()
    if not any(map(str.isalnum, text)):
        return False
    if not (len(text) > 1 and text[0] == text[-1] == '"'):
        inner = text.strip("*_")
        marked = inner[0] in "\u201c\u201d\u201e\u00ab\u300c"
        return None if marked or (inner != text and inner[0] == inner[-1] == '"') else False
    depth = 0
    for mark in re.finditer('"', text[:-1]):
        place = mark.start()
        before, after = text[max(place - 1, 0) : place], text[place + 1 : place + 2]
        opens = not (before.isalnum() or (before and before in ".,!?") or not after.strip())
        depth += 1 if opens else -1
        if depth == 0:
            return None
    return True


@rule("change_case:english_capital")
def _capital(text: str) -> bool | None:
    return is_english(text) if text.isupper() else False


@rule("change_case:english_lowercase")
def _lowercase(text: str) -> bool | None:
    return is_english(text) if text.islower() else False


@rule("change_case:capital_word_frequency", capital_frequency=int, capital_relation=str)
def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool | None:
    return compares(capital_words(text), capital_relation, capital_frequency)


@rule("punctuation:no_comma")
def _no_comma(text: str) -> bool:
    """Of any script."""
    return (
        not any(
            "COMMA" in unicodedata.name(c, "") and unicodedata.category(c) == "Po"
            for c in set(text)
        )
        and "\u201a" not in text
    )
