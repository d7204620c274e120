"""Instructions whose following a program can see: the 25 kinds of IFEval (Zhou et al., 2311.07911).

Each is a function of the text and the instruction's own arguments, named as in the data set. Where the
authors use a tokenizer of a library, a rule of this file stands in for it (sentences, capital words).
"The answer is all capitals" does not look at the language. All of them take time linear in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Rule = Callable[..., bool]
CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
RULES: dict[str, tuple[Rule, dict[str, type]]] = {}
"""By id: the rule, and its arguments with their types."""
_SENTENCE = re.compile(r"""(?<![.!?])[.!?]++["')\]”’]*+(?=\s|\Z)""")  # noqa: RUF001
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|No|Inc|Ltd|Co|[A-Z])\Z"
)
_CAPITAL = re.compile(r"\w+(?:[-.']\w+)*")


def rule(name: str, **arguments: type) -> Callable[[Rule], Rule]:
    def keep(function: Rule) -> Rule:
        RULES[name] = (function, arguments)
        return function

    return keep


def followed(name: str, arguments: dict[str, Any], text: str) -> bool:
    """Whether a text follows an instruction. `check` first."""
    function, known = RULES[name]
    return bool(text.strip()) and function(text, **{key: arguments[key] for key in known})


def check(name: str, arguments: dict[str, Any]) -> None:
    """`ValueError` where there is no such instruction, or its arguments are not right."""
    if name not in RULES:
        raise ValueError(f"no instruction {name!r}; known are {', '.join(sorted(RULES))}")
    for key, kind in RULES[name][1].items():
        value = arguments.get(key)
        if kind is list:
            right = isinstance(value, (list, tuple)) and all(isinstance(x, str) for x in value)
        elif kind is int:
            # Parquet makes a float of a whole number where a column has nulls.
            right = isinstance(value, (int, float)) and value == int(value)
        else:
            right = isinstance(value, str) and bool(value.strip())
        if not right or (key.endswith("relation") and value not in ("at least", "less than")):
            wanted = "'at least' or 'less than'" if key.endswith("relation") else kind.__name__
            raise ValueError(f"instruction {name}: {key} must be {wanted}, got {value!r}")
    if name == "language:response_language":
        detector()


def _compares(number: int, relation: str, threshold: int) -> bool:
    return number >= threshold if relation == "at least" else number < threshold


@rule("keywords:existence", keywords=list)
def _keywords(text: str, keywords: list[str]) -> bool:
    return all(re.search(re.escape(word), text, re.I) for word in keywords)


@rule("keywords:frequency", keyword=str, frequency=int, relation=str)
def _keyword_frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compares(len(re.findall(re.escape(keyword.strip()), text, re.I)), relation, frequency)


@rule("keywords:forbidden_words", forbidden_words=list)
def _forbidden(text: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(w)}\b", text, re.I) for w in forbidden_words)


@rule("keywords:letter_frequency", letter=str, let_frequency=int, let_relation=str)
def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compares(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


@rule("language:response_language", language=str)
def _language(text: str, language: str) -> bool:
    return detector()(text) == language


@rule("length_constraints:number_words", num_words=int, relation=str)
def _words(text: str, num_words: int, relation: str) -> bool:
    return _compares(len(re.findall(r"\w+", text)), relation, num_words)


@rule("length_constraints:number_sentences", num_sentences=int, relation=str)
def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _compares(count_sentences(text), relation, num_sentences)


@rule("length_constraints:number_paragraphs", num_paragraphs=int)
def _paragraphs(text: str, num_paragraphs: int) -> bool:
    """Divided by ***; the first and the last may be empty."""
    parts = [part.strip() for part in text.split("***")]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


@rule(
    "length_constraints:nth_paragraph_first_word",
    num_paragraphs=int,
    nth_paragraph=int,
    first_word=str,
)
def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Divided by a blank line; blank ones are not counted, but keep their places, as in IFEval."""
    parts = [part.strip() for part in text.split("\n\n")]
    count = sum(map(bool, parts))
    if not 1 <= nth_paragraph <= count or not parts[nth_paragraph - 1]:
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


@rule("detectable_content:number_placeholders", num_placeholders=int)
def _placeholders(text: str, num_placeholders: int) -> bool:
    """[like this]"""
    count = 0
    for line in text.split("\n"):
        place = line.find("[")
        while place >= 0 and (end := line.find("]", place)) >= 0:
            count += 1
            place = line.find("[", end)
    return count >= num_placeholders


@rule("detectable_content:postscript", postscript_marker=str)
def _postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip().lower()
    patterns = {"p.p.s": r"p\.\s?p\.\s?s", "p.s.": r"p\.\s?s\."}
    return re.search(patterns.get(marker, re.escape(marker)), text.lower()) is not None


@rule("detectable_format:number_bullet_lists", num_bullets=int)
def _bullets(text: str, num_bullets: int) -> bool:
    """Lines that begin with - or with one *."""
    lines = [line.lstrip() for line in text.split("\n")]
    return sum(bool(re.match(r"-|\*[^*]", line)) for line in lines) == num_bullets


@rule("detectable_format:constrained_response")
def _choice(text: str) -> bool:
    return any(choice in text for choice in CHOICES)


@rule("detectable_format:number_highlighted_sections", num_highlights=int)
def _highlights(text: str, num_highlights: int) -> bool:
    """*like this*; **this** counts, too."""
    single = re.findall(r"\*([^\n*]*)\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(part.strip()) for part in single + double) >= num_highlights


@rule("detectable_format:multiple_sections", section_spliter=str, num_sections=int)
def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    marks = re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)
    return len(marks) >= num_sections


@rule("detectable_format:json_format")
def _json(text: str) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


@rule("detectable_format:title")
def _title(text: str) -> bool:
    """<<like this>>"""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start:end].strip("<>").strip():
            return True
    return False


@rule("combination:two_responses")
def _two_responses(text: str) -> bool:
    """Divided by ******."""
    parts = [part.strip() for part in text.split("******")]
    said = [part for part in parts if part]
    return all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]


@rule("combination:repeat_prompt", prompt_to_repeat=str)
def _repeat(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


@rule("startend:end_checker", end_phrase=str)
def _end(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@rule("startend:quotation")
def _quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@rule("change_case:english_capital")
def _capital(text: str) -> bool:
    return text.isupper()


@rule("change_case:english_lowercase")
def _lowercase(text: str) -> bool:
    return text.islower()


@rule("change_case:capital_word_frequency", capital_frequency=int, capital_relation=str)
def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    count = sum(word.isupper() for word in _CAPITAL.findall(text))
    return _compares(count, capital_relation, capital_frequency)


@rule("punctuation:no_comma")
def _no_comma(text: str) -> bool:
    return "," not in text


def count_sentences(text: str) -> int:
    """Ends with . ! ? before white space, but for abbreviations and initials; a rest is one more."""
    count, last = 0, 0
    for end in _SENTENCE.finditer(text):
        if end.group()[0] == "." and _ABBREVIATION.search(
            text[max(0, end.start() - 8) : end.start()]
        ):
            continue
        if text[last : end.start()].strip():
            count, last = count + 1, end.end()
    return count + bool(text[last:].strip())


@lru_cache(maxsize=1)
def detector() -> Callable[[str], str]:
    """What tells the language of a text, as an ISO 639-1 code."""
    try:
        import py3langid
    except ImportError as error:
        raise ValueError(
            "the instruction language:response_language needs py3langid: pip install"
            " 'onestage[languages]'"
        ) from error
    return lambda text: str(py3langid.classify(text[:20_000])[0])
