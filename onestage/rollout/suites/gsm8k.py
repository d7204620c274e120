r"""Grade-school word problems (GSM8K, Cobbe et al., arXiv 2110.14168), read as `lm-eval` reads them.

`strict`: the number behind the first "####"; `flexible`: the last number of the answer. Either must
equal the worked answer's as text, but for commas, dollar signs and a final full stop. `mean` of the two
is what UFT and UNA report. Five worked examples stand in front, drawn for each problem (`shots`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from onestage.data.messages import Turns
from onestage.randomness import generator
from onestage.rollout.engines import Decoding
from onestage.rollout.rewards import Failure
from onestage.rollout.suites import Content, Item, Scores, Subject, Suite, _files
from onestage.stats import Estimate, mean_of

UNTIL = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = tuple(re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"))
NO_NUMBER = "[invalid]"
HUB = "openai/gsm8k"


@dataclass(frozen=True)
class GSM8K(Suite):
    path: str | None = None
    """The problems: rows with `question` and `answer`, a solution that ends in "#### 18"."""
    shots: int = 5
    """Worked examples in front of each problem."""
    shots_path: str | None = None
    """Where they are drawn from: rows of the training set."""
    max_completion_length: int = 256

    headline: ClassVar[str] = "mean"
    span: ClassVar[float | None] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shots < 0:
            raise ValueError(f"shots must be at least 0, got {self.shots}")

    def items(self, chat: bool) -> list[Item]:
        known = ("gsm8k.test", "gsm8k_test")
        rows = _files.rows("gsm8k", self.path, self.data, known, (HUB, "main", "test"))
        examples = self._examples()
        found = []
        for number, row in enumerate(rows):
            question, answer = _files.texts("gsm8k", row, "question", "answer")
            if "####" not in answer:
                raise ValueError(
                    f"the suite gsm8k: {row.where}: `answer` must end in '#### ' and a number"
                )
            text = self._shown(examples, question) + _asked(question)
            turns: Turns = ({"role": "user", "content": text},) if chat else text
            found.append(Item(str(number), turns, {"question": question, "answer": answer}))
        return found

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        how = Decoding(self.max_completion_length, temperature=0)
        return [*subject.write([i.prompt for i in items], how, [i.id for i in items], UNTIL)]

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Scores | Failure]:
        return [
            {
                name: float(_plain(read(answer["completion"])) == _plain(item.facts["answer"]))
                for name, read in (("strict", strict), ("flexible", flexible))
            }
            for item, answer in zip(items, answers, strict=True)
        ]

    def summarise(self, scores: Mapping[str, Scores]) -> dict[str, Estimate]:
        metrics = super().summarise(scores)
        return {"mean": mean_of([*metrics.values()]), **metrics}

    def _examples(self) -> list[tuple[str, str]]:
        if not self.shots:
            return []
        known = ("gsm8k.train", "gsm8k_train")
        rows = _files.rows(
            "gsm8k", self.shots_path, self.data, known, (HUB, "main", "train"), "shots_path"
        )
        if len(rows) <= self.shots:
            raise ValueError(
                f"the suite gsm8k: shots: {self.shots} must be drawn from more examples than "
                f"{len(rows)}; give a longer shots_path, or set shots: 0"
            )
        found = [_files.texts("gsm8k", row, "question", "answer") for row in rows]
        return [(question, answer) for question, answer in found]

    def _shown(self, examples: Sequence[tuple[str, str]], question: str) -> str:
        """Examples for a problem: a function of the problem, so that what is asked does not depend on
        how many are; never the problem itself."""
        if not examples:
            return ""
        order = generator(f"gsm8k {question}").permutation(len(examples))[: self.shots + 1]
        drawn = [examples[n] for n in order if examples[n][0] != question][: self.shots]
        return "".join(f"{_asked(asked)} {answer}\n\n" for asked, answer in drawn)


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def strict(text: str) -> str:
    found = STRICT.search(text)
    return found[1].strip() if found else NO_NUMBER


def flexible(text: str) -> str:
    found = FLEXIBLE.findall(text)
    return (found[-1][0] or found[-1][1]).strip() if found else NO_NUMBER


def _plain(text: str) -> str:
    for pattern in IGNORED:
        text = pattern.sub("", text)
    return text.lower()
