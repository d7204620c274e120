"""Where the final answer of a response stands. Everything here takes time linear in the text.

A hint may hold the answer of the worked solution (a whole one does, in its last box). What ends within
the hint was given, not found, and is no final answer. Neither is a draft: what is said while thinking,
or in a box that is followed by one that was begun and not finished.
"""

from __future__ import annotations

import re
from itertools import accumulate

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards._checker import NotJudged
from onestage.rollout.rewards._markup import thought_over
from onestage.rollout.rewards._second_thoughts import alternative, beside_box, denied, taken_back

OPEN, CLOSE = "<answer>", "</answer>"
HEADERS = ("Assistant:", "<|im_start|>assistant")
"""Behind the first of these the authors' scorers look for the response."""
_BOX = re.compile(r"\\{1,2}f?box(?:ed)?\s*\{")
_TAGS = re.compile(r"<(/?)answer>", re.IGNORECASE)
LONGEST = 1000
"""Characters of a box whose boxes are looked into."""
_BRACE = re.compile(r"\\boxed\{|\\[\\{}]|[{}]")


def last_tag(text: str) -> tuple[str, int] | None:
    """What the last whole `<answer> .. </answer>` of a text holds, stripped, and where it ends."""
    text = _TAGS.sub(r"<\1answer>", text)
    end = text.rfind(CLOSE)
    start = text.rfind(OPEN, 0, end) if end >= 0 else -1
    return (text[start + len(OPEN) : end].strip(), end) if start >= 0 else None


def last_boxed(text: str) -> tuple[str, int] | None:
    r"""What the last \boxed{..} that has an end holds, stripped, and where it ends: of boxes within one
    another the outermost, which holds all that was marked."""
    open_braces: list[int] = []  # where a box begins, -1 for other braces
    last, end = -1, -1
    for brace in _BRACE.finditer(text):
        what = brace.group()
        if what == "\\boxed{":
            open_braces.append(brace.end())
        elif what == "{":
            open_braces.append(-1)
        elif what == "}" and open_braces:
            start = open_braces.pop()
            if start >= 0:
                last, end = start, brace.start()
    return (_unboxed(text[last:end].strip()), end) if last >= 0 else None


def _unboxed(text: str) -> str:
    """What a box holds that holds nothing but a box."""
    while len(text) <= LONGEST and text.startswith("\\boxed{") and text.endswith("}"):
        inner = text[len("\\boxed{") : -1]
        depths = list(accumulate((c == "{") - (c == "}") for c in inner))
        if min(depths, default=0) < 0:
            break
        text = inner.strip()
    return text


def spoken(answer: Answer) -> str:
    """The response without what was thought aloud, which leaves blanks; empty where that never ended."""
    start = thought_over(answer.response, answer.prompt)
    return "" if start is None else " " * start + answer.response[start:]


def final_tag(answer: Answer) -> tuple[str, int] | None:
    """The last tag of a response, if the model ended it."""
    return _own(last_tag(spoken(answer)), answer)


def final_box(answer: Answer) -> tuple[str, int] | None:
    """The last box of a response, if the model ended it."""
    said = _BOX.sub(r"\\boxed{", spoken(answer))
    found = _own(last_boxed(said), answer)
    return None if found and said.rfind("\\boxed{") > found[1] else found


def stand(answer: Answer, final: tuple[str, int], mark: str, *, several_tags: bool = True) -> None:
    """`NotJudged` for a marked answer (what it holds, and where that ends) that its own response denies
    or takes back: `it is not \\boxed{7}`, `#### 7` and then `Wait, that is wrong`. several_tags: whether
    two tags side by side, as in `<answer>7</answer> or <answer>8</answer>`, leave the last."""
    said = spoken(answer)
    boxed = mark == "\\boxed{"
    said = _BOX.sub(r"\\boxed{", said) if boxed else _TAGS.sub(r"<\1answer>", said)
    begin = max(said.rfind(mark, 0, final[1]), 0)
    behind = said[final[1] :].removeprefix(CLOSE).removeprefix("}")
    # A box of the hint was given: it is no answer that this one stands beside.
    before = last_boxed(said[:begin]) if boxed else None
    if mark == OPEN and not several_tags:
        before = last_tag(said[:begin])
    earlier = _own(before, answer)
    asked = earlier and re.search(r"answer|\.\.\.|dots|\A\Z", earlier[0])  # \boxed{answer}
    if (
        earlier
        and not asked
        and earlier[0] != final[0]
        and alternative(said[earlier[1] + (1 if boxed else len(CLOSE)) : begin])
    ):
        raise NotJudged(f"{earlier[0][:60]!r} stands beside {final[0][:60]!r}")
    if boxed and beside_box(said[:begin], behind):
        raise NotJudged(f"what stands around {final[0][:60]!r} makes another value of it")
    if denied(said[:begin]) or taken_back(behind, final[0]):
        raise NotJudged(f"{final[0][:60]!r} is denied or taken back beside it")


def _own(found: tuple[str, int] | None, answer: Answer) -> tuple[str, int] | None:
    return found if found and found[1] >= len(answer.hint) else None


def behind_header(answer: Answer) -> str | None:
    """The authors' notion of a response: what follows the first "Assistant:" of prompt and response."""
    text = answer.prompt + answer.response
    for header in HEADERS:
        if header in text:
            return text.split(header, 1)[1]
    return None


def authors_tag(text: str) -> str | None:
    """The authors' last tag: pairs from left to right, each from the first opening tag that is free."""
    found, place = None, 0
    while (start := text.find(OPEN, place)) >= 0:
        start += len(OPEN)
        end = text.find(CLOSE, start)
        if end < 0:
            break
        found, place = text[start:end], end + len(CLOSE)
    return None if found is None else found.strip()


def on_last_line(answer: Answer) -> str | None:
    """The authors' final answer: the last tag, with nothing of it outside the last line."""
    return authors_tag((behind_header(answer) or "").split("\n")[-1])
