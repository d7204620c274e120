"""Where the final answer of a response stands."""

from __future__ import annotations

import re

from onestage.rollout.rewards.contract import Answer

OPEN, CLOSE = "<answer>", "</answer>"
HEADERS = ("Assistant:", "<|im_start|>assistant")
"""Behind the first of these the authors' scorers look for the response."""


def last_tag(text: str) -> tuple[str, int] | None:
    """What the last whole `<answer> .. </answer>` of a text holds, stripped, and where it ends."""
    end = text.rfind(CLOSE)
    start = text.rfind(OPEN, 0, end) if end >= 0 else -1
    return (text[start + len(OPEN) : end].strip(), end) if start >= 0 else None


def last_boxed(text: str) -> tuple[str, int] | None:
    r"""What the last `\boxed{..}` holds, stripped, and where it ends; one without end is none."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth, begin = 0, start + len("\\boxed")
        for brace in re.finditer(r"\\[\\{}]|[{}]", text[begin:]):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0 and brace.group() == "}":
                end = begin + brace.start()
                return text[begin + 1 : end].strip(), end
        start = text.rfind("\\boxed{", 0, start)
    return None


def behind_header(answer: Answer) -> str | None:
    """The authors' notion of a response: what follows the first "Assistant:" of prompt and response."""
    text = answer.prompt + answer.response
    for header in HEADERS:
        if header in text:
            return text.split(header, 1)[1]
    return None


def on_last_line(answer: Answer) -> str | None:
    """The authors' final answer: the last tag, with nothing of it outside the last line."""
    text = behind_header(answer)
    found = re.findall(r"<answer>(.*?)</answer>", (text or "").split("\n")[-1])
    return found[-1].strip() if found else None
