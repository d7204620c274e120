"""Arguments of IFEval's instructions that somebody can satisfy, alone and together.

What an answer must repeat of the prompt (`combination:repeat_prompt`) is not held against the other
instructions: they may be meant for the answer alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from onestage.rollout.rewards._ifeval_language import known
from onestage.rollout.rewards._ifeval_rules import RULES
from onestage.rollout.rewards._ifeval_text import occurrences

Asked = Sequence[tuple[str, dict[str, Any]]]
COMPARED = {
    "keywords:frequency": ("keyword", "frequency", "relation"),
    "keywords:letter_frequency": ("letter", "let_frequency", "let_relation"),
    "length_constraints:number_words": (None, "num_words", "relation"),
    "length_constraints:number_sentences": (None, "num_sentences", "relation"),
    "change_case:capital_word_frequency": (None, "capital_frequency", "capital_relation"),
}
"""By id: what is counted (an argument, or always the same), the threshold and the relation."""
EXACT = {
    "length_constraints:number_paragraphs": "num_paragraphs",
    "detectable_format:number_bullet_lists": "num_bullets",
}
NOT_EMPTY = ("length_constraints:number_words", "length_constraints:number_sentences")
CASES = {"change_case:english_capital", "change_case:english_lowercase"}


def check(asked: Asked) -> None:
    """`ValueError` where there is no such instruction, its arguments are not right, or nobody can
    satisfy them."""
    for name, arguments in asked:
        _check(name, arguments)
    for sentence in _conflicts(asked):
        raise ValueError(f"nobody can follow these instructions: {sentence}")


def _check(name: str, arguments: dict[str, Any]) -> None:
    if name not in RULES:
        raise ValueError(f"no instruction {name!r}; known are {', '.join(sorted(RULES))}")
    for key, kind in RULES[name][1].items():
        value = arguments.get(key)
        relation = key.endswith("relation")
        if not _right(value, kind) or (relation and value not in ("at least", "less than")):
            wanted = "'at least' or 'less than'" if relation else kind.__name__
            raise ValueError(f"instruction {name}: {key} must be {wanted}, got {value!r}")
    if name == "language:response_language" and not known(arguments["language"]):
        raise ValueError(
            f"instruction {name}: no language {arguments['language']!r} is known; give an ISO 639-1"
            " code, as de or zh"
        )
    for sentence in _impossible(name, arguments):
        raise ValueError(f"instruction {name}: nobody can satisfy {sentence}")


def _right(value: Any, kind: type) -> bool:
    if kind is list:
        some = isinstance(value, (list, tuple)) and len(value) > 0
        return some and all(isinstance(each, str) and each.strip() for each in value)
    if kind is int:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Parquet makes a float of a whole number where a column has nulls.
        return number and math.isfinite(value) and value == int(value)
    return isinstance(value, str) and bool(value.strip())


def _impossible(name: str, arguments: dict[str, Any]) -> Iterator[str]:
    for key, kind in RULES[name][1].items():
        if kind is int and arguments[key] < 0:
            yield f"{key} {arguments[key]}"
    if name in COMPARED:
        _, key, relation = COMPARED[name]
        least = 1 if name in NOT_EMPTY else 0
        if arguments[relation] == "less than" and arguments[key] <= least:
            yield f"{key} less than {arguments[key]}"
    if arguments.get("num_paragraphs") == 0 and "num_paragraphs" in RULES[name][1]:
        yield "num_paragraphs 0"
    if name == "length_constraints:nth_paragraph_first_word":
        nth, number = arguments["nth_paragraph"], arguments["num_paragraphs"]
        if not 1 <= nth <= number:
            yield f"nth_paragraph {nth} of {number}"
    if name == "keywords:letter_frequency" and len(arguments["letter"].strip()) != 1:
        yield f"letter {arguments['letter']!r}, which is more than one"


def _conflicts(asked: Asked) -> Iterator[str]:
    yield from _bounds(asked)
    required = list(_required(asked))
    for name, arguments in asked:
        for text in required:
            if name == "keywords:forbidden_words":
                for word in arguments["forbidden_words"]:
                    if occurrences(word, text)[0]:
                        yield f"{word!r} is forbidden, and {text!r} asked for"
            if name == "punctuation:no_comma" and "," in text:
                yield f"no comma, and {text!r}"
    names = {name for name, _ in asked}
    if len(names & CASES) == 2:
        yield "all in capital and all in small letters"
    for case in sorted(names & CASES):
        if "detectable_format:constrained_response" in names:
            yield f"{case}, and one of three answers in both"
        for name, arguments in asked:
            language = arguments.get("language", "en")
            if name == "language:response_language" and language.lower() != "en":
                yield f"{case}, which is in English, and in the language {language!r}"


def _bounds(asked: Asked) -> Iterator[str]:
    """Counts of one thing: at least so many, fewer than so many, exactly so many."""
    least: dict[tuple[str, str], float] = {}
    most: dict[tuple[str, str], float] = {}
    for name, arguments in asked:
        for (what, thing), low, high in _bounded(name, arguments):
            key = (what, thing)
            least[key] = max(low, least.get(key, 0))
            most[key] = min(high, most.get(key, math.inf))
            if least[key] > most[key]:
                counted = f"{what} of {thing!r}" if thing else what
                yield f"{counted} at least {least[key]:g} and at most {most[key]:g}"


def _bounded(
    name: str, arguments: dict[str, Any]
) -> Iterator[tuple[tuple[str, str], float, float]]:
    if name in COMPARED:
        thing, key, relation = COMPARED[name]
        what = str(arguments[thing]).strip().lower() if thing else ""
        number = arguments[key]
        low, high = (number, math.inf) if arguments[relation] == "at least" else (0, number - 1)
        yield (name, what), low, high
    if name in EXACT:
        yield (name, ""), arguments[EXACT[name]], arguments[EXACT[name]]
    if name == "keywords:existence":
        for word in arguments["keywords"]:
            yield ("keywords:frequency", word.strip().lower()), 1, math.inf
    if name == "change_case:english_lowercase":
        yield ("change_case:capital_word_frequency", ""), 0, 0


def _required(asked: Asked) -> Iterator[str]:
    """Texts that every answer holds."""
    for name, arguments in asked:
        if name == "keywords:existence":
            yield from arguments["keywords"]
        if name == "keywords:frequency" and arguments["relation"] == "at least":
            yield from [arguments["keyword"]] * (arguments["frequency"] > 0)
        if name == "startend:end_checker":
            yield arguments["end_phrase"]
        if name == "length_constraints:nth_paragraph_first_word":
            yield arguments["first_word"]
