"""Instructions whose following can be checked (IFEval, Zhou et al., arXiv 2311.07911): 541 prompts.

Four numbers, by the benchmark's own checkers as `lm-eval` carries them: whole prompts or single
instructions, read strictly or loosely. `mean` of the four is what UNA, UFT and others report. An answer
is drawn greedily, of at most 1,280 tokens, as `lm-eval` has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onestage.data.messages import Turns
from onestage.rollout.engines import Decoding
from onestage.rollout.rewards import Answer, Failure
from onestage.rollout.rewards.ifeval import IFEval as Checker
from onestage.rollout.suites import Content, Item, Scores, Subject, Suite, _files
from onestage.stats import Estimate, Weighted, mean_of

READINGS = ("strict", "loose")
COLUMNS = ("instruction_id_list", "kwargs")


@dataclass(frozen=True)
class IFEval(Suite):
    path: str | None = None
    """The prompts: rows with `key`, `prompt`, `instruction_id_list` and `kwargs`."""
    max_completion_length: int = 1280
    deadline: float = 10.0
    """Seconds to check one answer; one that takes longer counts as following nothing."""

    headline: ClassVar[str] = "mean"
    span: ClassVar[float | None] = 1.0
    judging: ClassVar[frozenset[str]] = frozenset({"deadline"})

    def check(self) -> None:
        self._checker("strict").prepare()

    def begin(self) -> None:
        self._checker("strict").begin()

    def items(self, chat: bool) -> list[Item]:
        checker = self._checker("strict")
        known = ("ifeval_prompts", "ifeval")
        found: list[Item] = []
        for row in _files.rows(
            "ifeval", self.path, self.data, known, ("google/IFEval", None, "train")
        ):
            (prompt,) = _files.texts("ifeval", row, "prompt")
            facts = {name: row.columns.get(name) for name in COLUMNS}
            try:
                checker.check(facts)
            except ValueError as error:
                raise ValueError(f"the suite ifeval: {row.where}: {error}") from error
            turns: Turns = ({"role": "user", "content": prompt},) if chat else prompt
            key = str(row.columns.get("key", len(found)))
            found.append(Item(key, turns, {"prompt": prompt, **facts}))
        return found

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        how = Decoding(self.max_completion_length, temperature=0)
        return [*subject.write([i.prompt for i in items], how, [i.id for i in items])]

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Scores | Failure]:
        given = [
            Answer(item.facts["prompt"], answer["completion"], item.facts)
            for item, answer in zip(items, answers, strict=True)
        ]
        found: list[dict[str, float | Weighted]] = [{} for _ in items]
        for reading in READINGS:
            for into, item, share in zip(found, items, self._checker(reading)(given), strict=True):
                failed = isinstance(share, Failure)
                followed = 0.0 if isinstance(share, Failure) else share
                asked = len(item.facts["instruction_id_list"])
                into[f"prompt_level_{reading}_acc"] = float(followed == 1.0)
                into[f"inst_level_{reading}_acc"] = Weighted(followed, asked)
                into["unchecked"] = max(into.get("unchecked", 0.0), float(failed))
        return [*found]

    def summarise(self, scores: Mapping[str, Scores]) -> dict[str, Estimate]:
        metrics = super().summarise(scores)
        if not (lost := metrics.pop("unchecked")).value:
            return {"mean": mean_of([*metrics.values()]), **metrics}
        return {"mean": mean_of([*metrics.values()]), **metrics, "unchecked": lost}

    def lower_is_better(self, metric: str) -> bool:
        return metric == "unchecked"

    def _checker(self, reading: Any) -> Checker:
        return Checker(rules="compat", level="instruction", reading=reading, deadline=self.deadline)
