"""A small real mixture that may be shipped: all of it was written for this project, by hand and by rule.

Sentences about everyday things, and instructions whose following the benchmark's own checkers can see
(IFEval, arXiv 2311.07911). A response follows its instruction because a rule makes it do so; of a pair
the rejected side is the same sentences without it. The topics that are asked at the end are others than
those that are trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

FACTS = {
    "bread": "Bread is made from flour, water and yeast. The dough rises before it goes into the oven.",
    "rain": "Rain falls when drops in a cloud grow heavy. It fills rivers, lakes and wells.",
    "bees": "Bees collect nectar from flowers. They turn it into honey, wax and food for winter.",
    "paper": "Paper is made from wood fibres. It is pressed, dried and cut into sheets.",
    "salt": "Salt comes from the sea or from mines. People use it for cooking, curing and cleaning.",
    "wool": "Wool grows on sheep. It is washed, spun and knitted into warm clothes.",
    "glass": "Glass is made from sand. It is melted, shaped and cooled slowly.",
    "trains": "Trains run on steel rails. They carry people, coal and grain over long distances.",
    "tea": "Tea is brewed from dried leaves. It can be black, green or white.",
    "owls": "Owls hunt at night. They have large eyes, soft feathers and sharp claws.",
    "bridges": "Bridges cross rivers and valleys. They are built of wood, stone or steel.",
    "soap": "Soap is made from fat and lye. It lifts dirt, oil and sweat from the skin.",
    "maps": "Maps show where things are. They help walkers, drivers and sailors.",
    "clocks": "Clocks measure time. Some have gears, some have quartz, and some have sand.",
    "milk": "Milk comes from cows, goats and sheep. It can become butter or cheese.",
    "snow": "Snow is made of ice crystals. It covers fields, roofs and roads in winter.",
    "books": "Books hold stories, facts and pictures. They are printed, bound and sold.",
    "boats": "Boats float on water. They are moved by oars, sails or engines.",
    "gardens": "Gardens grow flowers, herbs and vegetables. They need light, water and care.",
    "bicycles": "Bicycles have two wheels, pedals and a chain. They are quiet and cheap to run.",
    "stars": "Stars are hot balls of gas. They shine in blue, white, yellow and red.",
    "coins": "Coins are made of metal. They are stamped with numbers, faces and dates.",
    "horses": "Horses eat grass and hay. They can walk, trot and gallop.",
    "windows": "Windows let in light and air. They are made of glass, wood and metal.",
}
ASKED = {
    "apples": "Apples grow on trees. They are red, green or yellow when they are ripe.",
    "candles": "Candles are made of wax. They give light, warmth and a little smoke.",
    "rivers": "Rivers flow to the sea. They carry sand, leaves and fish.",
    "chess": "Chess is played on a board. Each side has pawns, rooks, bishops and a king.",
    "cats": "Cats sleep most of the day. They hunt mice, birds and insects.",
    "shoes": "Shoes protect the feet. They are made of leather, cloth or rubber.",
    "kites": "Kites fly in the wind. They are made of paper, string and sticks.",
    "onions": "Onions grow in the ground. They are used in soups, sauces and salads.",
}
Rule = tuple[str, str, dict[str, Any], Callable[[str], str]]
END = "That is all."


def _bullets(text: str) -> str:
    first, second = text.split(". ", 1)
    return f"* {first}.\n* {second}"


RULES: list[Rule] = [
    (
        "Highlight at least 1 section of it with markdown, such as *highlighted section*.",
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 1},
        lambda t: t.replace(t.split()[0], f"*{t.split()[0]}*", 1),
    ),
    (
        "At the end of your response, add a postscript that starts with P.S.",
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        lambda t: f"{t}\n\nP.S. {END}",
    ),
    ("Do not use any commas.", "punctuation:no_comma", {}, lambda t: t.replace(",", " and")),
    (
        "Wrap your entire response with double quotation marks.",
        "startend:quotation",
        {},
        lambda t: f'"{t}"',
    ),
    (
        f'Finish your response with this exact phrase: "{END}"',
        "startend:end_checker",
        {"end_phrase": END},
        lambda t: f"{t} {END}",
    ),
    (
        "Answer with exactly 2 bullet points. Use markdown bullets such as: * This is a point.",
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        _bullets,
    ),
    (
        "The entire output should be wrapped in JSON format.",
        "detectable_format:json_format",
        {},
        lambda t: json.dumps({"answer": t}),
    ),
    (
        "Your answer must contain a title, wrapped in double angular brackets, such as <<a title>>.",
        "detectable_format:title",
        {},
        lambda t: f"<<{t.split()[0]}>>\n{t}",
    ),
]
"""What is asked, the benchmark's name of it with its arguments, and what makes a text follow it."""


def demonstrations(count: int) -> Iterator[dict[str, Any]]:
    """Prompts with a response that follows its instruction."""
    for prompt, text, (_, _, _, follow) in _drawn(count, "demonstrations"):
        yield {
            "prompt": _message("user", prompt),
            "completion": _message("assistant", follow(text)),
        }


def pairs(count: int) -> Iterator[dict[str, Any]]:
    """Prompts with a response that follows the instruction and one that does not."""
    for prompt, text, (_, _, _, follow) in _drawn(count, "pairs"):
        sides = {"chosen": follow(text), "rejected": text}
        yield {"prompt": _message("user", prompt)} | {
            side: _message("assistant", answer) for side, answer in sides.items()
        }


def asked() -> Iterator[dict[str, Any]]:
    """Prompts in IFEval's columns, on topics that are not trained on: each rule of each topic."""
    key = 0
    for topic in ASKED:
        for told, name, arguments, _ in RULES:
            key += 1
            row = {"key": key, "prompt": _prompt(topic, told)}
            yield {**row, "instruction_id_list": [name], "kwargs": [arguments]}


def _drawn(count: int, key: str) -> Iterator[tuple[str, str, Rule]]:
    every = [(topic, rule) for topic in FACTS for rule in RULES]
    for topic, rule in random.Random(key).sample(every, count):
        yield _prompt(topic, rule[0]), FACTS[topic], rule


def _prompt(topic: str, told: str) -> str:
    return f"Write two short sentences about {topic}. {told}"


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]
