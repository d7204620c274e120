"""Rewards as a user would write them, for tests by import path."""

from __future__ import annotations


def vowels(completion: str) -> float:
    """Part of the characters that are vowels: differs from answer to answer, also of a random model."""
    return sum(c in "aeiou" for c in completion) / max(len(completion), 1)


def never(completion: str) -> float:
    return 0.0


def fails(completion: str) -> float:
    raise RuntimeError("I like none of them")


def sometimes(completion: str) -> object:
    """A number for some answers; for others nothing, no number, a text, or an error."""
    kind = len(completion) % 5
    if kind == 4:
        raise RuntimeError("I do not like it")
    return [0.5, None, float("nan"), "good"][kind]
