"""Tasks of `lm-eval` as suites: its prompts, filters and verdicts; our sampler and forests.

The library loads the tasks, draws the examples in front, writes the prompts, and judges each answer
(`Task.process_results`); a model is run by `_forest_lm`, or by the library's own class of the name that
is given as `backend`. Means over items are its means (with sd / sqrt n, as it has them), and a group's
number weighs every item alike, as the groups do that papers report (`weight_by_size`).
"""

from __future__ import annotations

import abc
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from onestage.rollout.rewards import Failure, _ifeval_benchmark
from onestage.rollout.suites import Content, Item, Scores, Subject, Suite, Whole, _task_data
from onestage.rollout.suites._chat_later import as_messages
from onestage.stats import Estimate, Weighted, estimate, mean_of

SHOTS_SEED, SEED = 1234, 0
"""Of the examples in front and of what else a task draws: as the library's own command line has them."""
MEANS = {"mean"}
COUNTED = {"weighted_perplexity", "bits_per_byte"}
"""Aggregations of values that are a log-likelihood and a count."""
PREFERRED = ("acc_norm", "acc", "exact_match")
"""The metric that stands for a task where nobody says which."""
LISTS = "agg_inst_level_acc"
"""An aggregation of values that are lists, whose entries count alike."""


@dataclass(frozen=True)
class Part:
    """Tasks that make one number of a suite."""

    name: str
    """Of the number."""
    task: str
    """The library's name of a task, group or tag, or a YAML file of one."""
    shots: int | None = None
    """Examples in front; None: as the task has it."""
    metrics: tuple[str, ...] = ()
    """`metric` or `metric,filter`, whose mean is the number. None: the one that such tasks go by."""


@dataclass(frozen=True)
class Harness(Suite):
    """The base of suites of the library's tasks. Prompts are raw text where nothing else is asked for:
    the papers that these numbers are compared with gave them so to every model."""

    backend: str = "onestage"
    """What runs the model: ours, or a model class of lm-eval (`hf`, ...)."""
    batch_size: int = 16
    """Of a model class of lm-eval."""

    headline: ClassVar[str] = "average"
    raw: ClassVar[bool] = True
    takes_system: ClassVar[bool] = False

    @abc.abstractmethod
    def parts(self) -> Sequence[Part]:
        """What the suite is made of."""

    def check(self) -> None:
        _task_data.require()
        for part in self.parts():
            if "ifeval" in part.task.lower():
                _ifeval_benchmark.load()  # whose sentence model would be fetched for the first score
        if self.backend != "onestage":
            from onestage.rollout.suites._forest_lm import check_backend

            check_backend(_name(self), self.backend)

    def items(self, chat: bool) -> list[Item]:
        if chat not in self._made:
            found: list[Item] = []
            for name, (_, task) in self._tasks.items():
                _build(task, self.limit, chat)
                found += _items(name, task)
            self._made[chat] = found
        return self._made[chat]

    def first(self, items: Sequence[Item]) -> list[Item]:
        """All: `limit` is of each task, and was kept when prompts were made."""
        return list(items)

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        from onestage.rollout.suites._forest_lm import answered

        every = [one for item in items for one in item.facts["instances"]]
        said = zip(*answered(subject, every, self.backend, self.batch_size), strict=True)
        found: list[Content] = []
        for item in items:
            resps, cut, ended = zip(*(next(said) for _ in item.facts["instances"]), strict=True)
            told: Content = {"resps": [*resps], **({"cut": max(cut)} if any(cut) else {})}
            found.append(told if all(ended) else {**told, "ended": False})
        return found

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Scores | Failure]:
        found: list[Scores | Failure] = []
        for item, answer in zip(items, answers, strict=True):
            part, task = self._tasks[item.facts["task"]]
            values = _judged(task, item.facts["instances"], answer["resps"])
            found.append({f"{part.name}/{k}": _score(task, k, one) for k, one in values.items()})
        return found

    def summarise(self, scores: Mapping[str, Scores]) -> dict[str, Estimate]:
        each = super().summarise(scores)
        each = {name: self._finished(name, one) for name, one in each.items()}
        each |= self._by_the_library(scores)
        numbers = {part.name: self._part(part, each, scores) for part in self.parts()}
        whole = mean_of([*numbers.values()]) if numbers else Estimate(math.nan)
        return {"average": whole, **numbers, **each}

    def lower_is_better(self, metric: str) -> bool:
        if metric == self.headline:
            return all(self.lower_is_better(part.name) for part in self.parts())
        name, _, plain = metric.partition("/")
        own = [task for part, task in self._tasks.values() if part.name == name]
        told = {n: up for task in own for n, up in (task.higher_is_better() or {}).items()}
        wanted = next((part.metrics for part in self.parts() if part.name == metric), None)
        if wanted is not None:  # the number of a part, which is the mean of these
            names = wanted or _standing(told)
            return bool(names) and all(told.get(_plain(one)) is False for one in names)
        return told.get(_plain(plain)) is False

    @cached_property
    def _tasks(self) -> dict[str, tuple[Part, Any]]:
        """Every task by its name, with the part that it belongs to."""
        _task_data.require()
        parts = self.parts()
        _task_data.require_data(_name(self), [part.task for part in parts], self.data)
        found: dict[str, tuple[Part, Any]] = {}
        for part in parts:
            # Some tasks shuffle choices while they are loaded: the same wherever they are.
            random.seed(SEED)
            for name, task in _task_data.load(part.task, self.data, part.shots):
                if name in found and found[name][0] != part:
                    raise ValueError(
                        f"the suite {_name(self)}: the task {name} is in {found[name][0].task} and in "
                        f"{part.task}, and counts in one of them alone: leave one out"
                    )
                found[name] = (part, task)
        return found

    @cached_property
    def _made(self) -> dict[bool, list[Item]]:
        return {}

    def _finished(self, name: str, found: Estimate) -> Estimate:
        kind = self._aggregation(name)
        return found.exp() if kind in ("weighted_perplexity", "perplexity") else found

    def _aggregation(self, name: str) -> str:
        part, _, metric = name.partition("/")
        task = next(task for one, task in self._tasks.values() if one.name == part)
        return _aggregation(task, metric)

    def _by_the_library(self, scores: Mapping[str, Scores]) -> dict[str, Estimate]:
        """Metrics that are no means over items (a corpus BLEU, say), without standard errors."""
        asked: dict[tuple[str, str], list[Any]] = {}
        for i, one in scores.items():
            for name, value in one.items():
                if isinstance(value, Whole):
                    asked.setdefault((i.rpartition("/")[0], name), []).append(value.value)
        found: dict[str, list[tuple[float, int]]] = {}
        for (own, name), values in asked.items():
            whole = self._tasks[own][1].aggregation()[_plain(name.partition("/")[2])]
            found.setdefault(name, []).append((float(whole(values)), len(values)))
        return {
            name: Estimate(sum(v * n for v, n in some) / sum(n for _, n in some), {}, 0)
            for name, some in found.items()
        }

    def _part(
        self, part: Part, each: Mapping[str, Estimate], scores: Mapping[str, Scores]
    ) -> Estimate:
        """The number of a part: its metrics' mean; of a group what it goes by itself, else a metric that
        all of its tasks have, else each task by its own."""
        own = {n.partition("/")[2]: one for n, one in each.items() if n.startswith(f"{part.name}/")}
        if part.metrics:
            chosen = [v for w in part.metrics for k, v in own.items() if w in (k, _plain(k))]
            return mean_of(chosen) if chosen else Estimate(math.nan)
        by_task: dict[str, dict[str, Scores]] = {}
        for i, one in scores.items():
            if self._tasks[i.rpartition("/")[0]][0] == part:
                by_task.setdefault(i.rpartition("/")[0], {})[i] = one
        metrics = {
            task: [name.partition("/")[2] for name in next(iter(some.values()))]
            for task, some in by_task.items()
        }
        told = _task_data.told_of(part.task)
        said = next((str(one["metric"]) for one in told if one.get("metric")), "")
        alike = all(one.get("weight_by_size", True) for one in told)
        common = [m for m in own if all(m in has for has in metrics.values())]
        names = {task: _chosen(said, common or has) for task, has in metrics.items()}
        if len(set(names.values())) == 1 and alike:
            (name,) = set(names.values())
            return mean_of([one for metric, one in own.items() if _plain(metric) == name])
        found: list[dict[str, float | Weighted]] = []
        for task, some in by_task.items():
            metric = next(one for one in metrics[task] if _plain(one) == names[task])
            values = {i: one[f"{part.name}/{metric}"] for i, one in some.items()}
            found.append({i: v for i, v in values.items() if not isinstance(v, Whole)})
        if not all(found):
            return Estimate(math.nan)  # no mean over items; the metrics stand beside it
        if alike:
            return estimate({i: v for some in found for i, v in some.items()})
        return mean_of([estimate(some) for some in found])


def _chosen(said: str, has: Sequence[str]) -> str:
    """The metric (without its filter) that stands for tasks which have these."""
    plain = [_plain(one) for one in has]
    return said if said in plain else next(iter(_standing(plain)), "")


def _plain(name: str) -> str:
    """A metric's name without its filter."""
    return name.partition(",")[0]


def _name(suite: Suite) -> str:
    return type(suite).__module__.rpartition(".")[2]


def _standing(own: Iterable[str]) -> tuple[str, ...]:
    plain = [_plain(name) for name in own]
    for name in PREFERRED:
        if name in plain:
            return (name,)
    return tuple(plain[:1])


def _build(task: Any, limit: int | None, chat: bool) -> None:
    """Have the library make a task's prompts, the same whenever they are made."""
    random.seed(SEED)
    task.set_fewshot_seed(seed=SHOTS_SEED)
    task.build_all_requests(
        limit=limit,
        rank=0,
        world_size=1,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,  # as the library does where it is not told
        # Of which model they will be asked is not known yet: messages are kept, and rendered then.
        chat_template=as_messages if chat else None,
    )


def _items(name: str, task: Any) -> list[Item]:
    by_doc: dict[int, list[Any]] = {}
    for one in task.instances:
        by_doc.setdefault(one.doc_id, []).append(one)
    found = []
    for number, ones in by_doc.items():
        ones.sort(key=lambda one: one.idx)
        facts = {
            "task": name,
            "asked": [[one.request_type, *one.args] for one in ones],
            "instances": ones,
        }
        found.append(Item(f"{name}/{number}", str(ones[0].args[0]), facts))
    return found


def _judged(task: Any, instances: Sequence[Any], said: Sequence[Any]) -> dict[str, Any]:
    """What the library makes of the answers to one document, by `metric,filter`."""
    for one, answer in zip(instances, said, strict=True):
        one.resps, one.filtered_resps = [_as_asked(answer)] * (one.repeats or 1), {}
    for each in task._filters:
        each.apply(instances)
    found: dict[str, Any] = {}
    for key in instances[0].filtered_resps:
        results = [one.filtered_resps[key] for one in instances]
        values = task.process_results(instances[0].doc, results)
        found |= {f"{metric},{key}": value for metric, value in values.items()}
    return found


def _as_asked(answer: Any) -> Any:
    return tuple(answer) if isinstance(answer, list) else answer


def _aggregation(task: Any, name: str) -> str:
    used = task.aggregation().get(_plain(name))
    return getattr(used, "__name__", "mean") if used is not None else "mean"


def _score(task: Any, name: str, value: Any) -> float | Weighted | Whole:
    number = _number(task, name, value)
    return Whole(_as_json(value)) if number is None else number


def _as_json(value: Any) -> Any:
    """A value of the library's as JSON holds it: what a run keeps of its start model is read again."""
    if isinstance(value, Mapping):
        return {str(name): _as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _number(task: Any, name: str, value: Any) -> float | Weighted | None:
    """A value of the library's as what an item says of a mean; None where the metric is no such mean."""
    kind = _aggregation(task, name)
    if kind in MEANS and (isinstance(value, int | float) or getattr(value, "ndim", 1) == 0):
        return float(value)
    if kind == "perplexity":
        return -float(value)
    if kind == LISTS:
        return Weighted(sum(map(bool, value)) / len(value), len(value))
    if kind in COUNTED:
        likelihood, count = value
        if not count:
            return Weighted(0.0, 0.0)  # a text without a word
        unit = math.log(2) if kind == "bits_per_byte" else 1.0
        return Weighted(-likelihood / count / unit, count)
    return None
