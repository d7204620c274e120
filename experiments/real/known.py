"""What any small model knows before it is trained: does it still, afterwards?

Questions with four answers, as a task of `lm-eval`, and plain sentences; all written for this project.
A wrong answer is the right one of another question of the same sort.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

ANSWERS = 4
"""To choose from."""

CAPITALS = {
    **{"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin"},
    **{"Greece": "Athens", "Egypt": "Cairo", "Japan": "Tokyo", "China": "Beijing"},
    **{"Russia": "Moscow", "Portugal": "Lisbon", "Austria": "Vienna", "Ireland": "Dublin"},
    **{"Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw", "Cuba": "Havana"},
    **{"Canada": "Ottawa", "Peru": "Lima", "Kenya": "Nairobi", "Thailand": "Bangkok"},
}
KINDS = {
    **{"sparrow": "bird", "salmon": "fish", "oak": "tree", "hammer": "tool", "rose": "flower"},
    **{"violin": "musical instrument", "apple": "fruit", "carrot": "vegetable", "ant": "insect"},
    **{"snake": "reptile", "iron": "metal", "sofa": "piece of furniture", "bus": "vehicle"},
    **{"shirt": "piece of clothing", "football": "sport", "red": "color", "milk": "drink"},
    **{"Monday": "day of the week", "July": "month", "winter": "season"},
}
OPPOSITES = {
    **{"hot": "cold", "big": "small", "up": "down", "day": "night", "open": "closed"},
    **{"fast": "slow", "old": "young", "wet": "dry", "full": "empty", "light": "dark"},
    **{"happy": "sad", "hard": "soft", "rich": "poor", "strong": "weak", "early": "late"},
    **{"left": "right", "first": "last", "love": "hate", "begin": "end", "buy": "sell"},
}
PASTS = {
    **{"go": "went", "see": "saw", "eat": "ate", "buy": "bought", "think": "thought"},
    **{"run": "ran", "write": "wrote", "take": "took", "give": "gave", "come": "came"},
    **{"find": "found", "know": "knew", "make": "made", "say": "said", "sing": "sang"},
    **{"drink": "drank", "fly": "flew", "teach": "taught", "win": "won", "break": "broke"},
}
TABLES = {
    "What is the capital of {}?": CAPITALS,
    "What kind of thing is this: {}?": KINDS,
    "What is the opposite of {}?": OPPOSITES,
    "What is the past tense of {}?": PASTS,
}
SENTENCES = [
    "Water freezes at zero degrees Celsius and boils at one hundred degrees.",
    "The Earth goes around the Sun once a year, and the Moon goes around the Earth once a month.",
    "A spider has eight legs, and an insect has six.",
    "The heart pumps blood through the body, and the lungs take in oxygen from the air.",
    "Plants use sunlight to make sugar from water and carbon dioxide.",
    "There are seven days in a week, twelve months in a year, and one hundred years in a century.",
    "The largest ocean on Earth is the Pacific Ocean, and the largest desert is the Sahara.",
    "William Shakespeare wrote Hamlet, Macbeth, and Romeo and Juliet.",
    "A triangle has three sides, a square has four, and a hexagon has six.",
    "In winter the days are short and cold; in summer they are long and warm.",
    "The United States declared its independence from Great Britain in 1776.",
    "Sound travels more slowly than light, so thunder is heard after lightning is seen.",
]


def questions() -> Iterator[dict[str, Any]]:
    """Rows of `question`, `choices`, and `gold`, the place of the right one."""
    for asked, table in TABLES.items():
        for subject, answer in table.items():
            draw = random.Random(f"{asked} {subject}")
            others = sorted({*table.values()} - {answer})
            choices = sorted([answer, *draw.sample(others, ANSWERS - 1)])
            row = {"question": asked.format(subject), "choices": choices}
            yield {**row, "gold": choices.index(answer)}


def texts() -> Iterator[dict[str, Any]]:
    """Rows of `text`."""
    for text in SENTENCES:
        yield {"text": text}


def task(rows: str, cache: str) -> dict[str, Any]:
    """The questions as a task of `lm-eval`. rows: the file of them; cache: where it is kept as read."""
    return {
        "task": "everyday",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": rows}, "cache_dir": cache},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
