"""Answers side by side under their prompt, a column for each method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from onestage.report.cells import Cell, Compared
from onestage.report.figures import Look
from onestage.report.markup import Html, el, fold, join
from onestage.report.numbers import UNKNOWN, number
from onestage.report.reading import is_number, texts

PROMPTS = 16
COLUMNS = 16
LENGTH = 600
ANSWERS = 4
LINES = 6
Key = tuple[str, str]
"""A prompt, and the metric that it is asked for."""


def samples_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """Answers of the test, then answers sampled while training."""
    parts = [_tested(found, looks), _sampled(found, looks)]
    return join(parts) if any(parts) else None


def _tested(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    cells = columns(found, [cell for cell in found.tested if cell.samples])
    if not cells:
        return None
    answers = [{_key(one): one for one in cell.samples} for cell in cells]
    keys = list(dict.fromkeys(key for answer in answers for key in answer))
    trained = [
        answer for cell, answer in zip(cells, answers, strict=True) if cell.method != found.base
    ]
    told = {key: (_differ(key, trained), _differ(key, answers)) for key in keys}
    shown = spread(sorted(keys, key=told.__getitem__, reverse=True))[:PROMPTS]
    heads = [_head(cell, looks) for cell in cells]
    blocks = [
        _block(
            prompt, metric, zip(heads, map(_answer, _of(answers, (prompt, metric))), strict=True)
        )
        for prompt, metric in shown
    ]
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(cell.seed for cell in cells))
    many = f"{len(shown)} of {len(keys)} prompts" if len(shown) < len(keys) else "All prompts"
    note = f"{many}, of seed {seeds}; of each metric those that are answered differently first."
    methods = len({cell.method for cell in found.tested if cell.samples})
    if methods > len(cells):
        note += f" The first {len(cells)} of {methods} methods."
    return join([el("p", note, class_="note"), *blocks])


def _of(
    answers: Sequence[Mapping[Key, Mapping[str, Any]]], key: Key
) -> list[Mapping[str, Any] | None]:
    return [answer.get(key) for answer in answers]


def _block(prompt: str, under: str, answers: Iterable[tuple[Html, Html]]) -> Html:
    """A prompt, which stays in sight, and under it the answers side by side."""
    told = el("small", under, class_="under") if under else None
    cards = [el("div", head, answer, class_="answer") for head, answer in answers]
    return el(
        "div",
        el("div", el("div", clipped(prompt), class_="text"), told, class_="prompt"),
        el("div", *cards, class_="answers", tabindex="0"),
        class_="sample",
    )


def columns(found: Compared, cells: Sequence[Cell]) -> list[Cell]:
    """One cell for each method, all of one seed if that can be."""
    if not cells:
        return []
    seeds = [cell.seed for cell in cells]
    common = max(sorted(set(seeds)), key=seeds.count)
    order = {one: n for n, one in enumerate(found.settings())}
    chosen: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda c: (c.seed != common, order[c.setting])):
        chosen.setdefault(cell.method, cell)
    return sorted(chosen.values(), key=lambda c: order[c.setting])[:COLUMNS]


def _sampled(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """What runs with rewards kept of their last sampled answers."""
    cells = columns(found, [c for c in found.tested if c.trained and _last(c)])
    parts: list[Html] = []
    for cell in cells:
        blocks = [_line(one) for one in _last(cell) if "suite" not in one][:LINES]
        blocks += _asked(cell)
        step = _last(cell)[0].get("step", UNKNOWN)
        parts.append(fold(join([_head(cell, looks), f", step {step}"]), *blocks, open_=not parts))
    return join([el("h3", "Sampled while training"), *parts]) if parts else None


def _asked(cell: Cell) -> list[Html]:
    """Questions that were asked again and again, the answers of some steps side by side."""
    found: dict[Key, list[Mapping[str, Any]]] = {}
    for part in cell.trained.parts if cell.trained else ():
        for one in part.samples:
            if "suite" in one and any(texts(one.get("completions"))):
                key = str(one.get("prompt", "")), str(one.get("suite"))
                found.setdefault(key, []).append({**one, "before": part.before})
    blocks = []
    for (prompt, suite), lines in list(found.items())[:LINES]:
        last = len(lines) - 1
        chosen = sorted({last * n // (ANSWERS - 1) for n in range(ANSWERS)})
        answers = [_one(lines[n]) for n in chosen]
        blocks.append(_block(prompt, "" if suite == "prompts" else f"suite {suite}", answers))
    return blocks


def _one(line: Mapping[str, Any]) -> tuple[Html, Html]:
    """The answer of a step, with what it was worth."""
    given = line.get("rewards")
    rewards = [one for one in given if is_number(one)] if isinstance(given, list) else []
    step, answers = line.get("step"), texts(line.get("completions"))
    told = f"step {step + line['before']}" if isinstance(step, int) else "a step"
    told += f", worth {number(rewards[0])}" if rewards else ""
    return el("small", told), el("div", clipped(answers[0]) or "(nothing)", class_="text")


def _line(one: Mapping[str, Any]) -> Html:
    """A line of `samples.jsonl`: a problem with its sampled answers, or a question with its answer."""
    given = one.get("rewards")
    rewards = given if isinstance(given, list) else []
    hint, answers = str(one.get("hint") or ""), []
    for n, text in enumerate(texts(one.get("completions"))[:ANSWERS]):
        reward = rewards[n] if n < len(rewards) else None
        told = f"reward {number(reward)}" if is_number(reward) else f"answer {n + 1}"
        answers.append((el("small", told), el("div", clipped(text), class_="text")))
    return _block(str(one.get("prompt", "")), f"hint: {clipped(hint)}" if hint else "", answers)


def _last(cell: Cell) -> list[dict[str, Any]]:
    """Lines of the last step that kept any, steps of stages added up."""
    for part in reversed(cell.trained.parts if cell.trained else []):
        if part.samples:
            step = part.samples[-1].get("step")
            at = step + part.before if isinstance(step, int) else step
            return [{**one, "step": at} for one in part.samples if one.get("step") == step]
    return []


def _head(cell: Cell, looks: Mapping[str, Look]) -> Html:
    return el("span", looks[cell.method].chip, cell.setting.label, class_="method")


def _key(one: Mapping[str, Any]) -> Key:
    return str(one.get("prompt", "")), str(one.get("metric") or "")


def _differ(key: Key, answers: Sequence[Mapping[Key, Mapping[str, Any]]]) -> bool:
    return len({bool(one[key].get("right")) for one in answers if key in one}) > 1


def spread(keys: Sequence[Key]) -> list[Key]:
    """The same, in turn from each metric."""
    of: dict[str, list[Key]] = {}
    for key in keys:
        of.setdefault(key[1], []).append(key)
    return [key for turn in zip_longest(*of.values()) for key in turn if key is not None]


def _answer(one: Mapping[str, Any] | None) -> Html:
    if one is None:
        return el("div", UNKNOWN, class_="none")
    right = one.get("right")
    told = None
    if isinstance(right, bool):
        mark, name = ("✓ right", "right") if right else ("✗ wrong", "wrong")
        told = el("small", mark, class_=f"mark {name}")
    text = clipped(str(one.get("response", "")))
    return join([el("div", text or "(nothing)", class_="text"), told])


def clipped(text: str) -> str:
    text = text.strip("\n")
    return text if len(text) <= LENGTH else f"{text[:LENGTH]} … ({len(text):,} characters)"
