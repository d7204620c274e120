"""Models measured by suites, beside their base: `onestage evaluate`.

Everything that can be refused is refused before the first weights are read. Answers are kept line by
line under a key of the model's content, of what is asked and how, so that the same command again asks
for what is missing only; two models that are compared answered the same items, and the interval of
their difference is of the differences item by item.
"""

from __future__ import annotations

import gc
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.config import plain
from onestage.models import Policy
from onestage.models.endings import unread
from onestage.models.model import Precision
from onestage.models.rates import slow_precision
from onestage.rollout import engines, suites
from onestage.rollout.candidates import Candidate, candidates
from onestage.rollout.suites import Kept, Measured, Subject, Suite
from onestage.runfolder import (
    Say,
    digest_of,
    environment,
    json_line,
    require_writable,
    silent,
    write_json,
    write_text,
)
from onestage.stats import Estimate

EVERY = 20.0
"""Seconds between two lines of progress."""


@dataclass
class Evaluated:
    """A model and what suites found of it, by their label."""

    model: Candidate
    found: dict[str, Measured] = field(default_factory=dict)


@dataclass
class Evaluation:
    """All models of an evaluation, a base in front of those that it stands beside."""

    suites: Mapping[str, Suite]
    models: list[Evaluated]

    def base_of(self, one: Evaluated) -> Evaluated | None:
        return next((m for m in self.models if one.model.stands_beside(m.model)), None)

    def difference(self, one: Evaluated, label: str) -> dict[str, Estimate]:
        """What a model has over its base in a suite, by metric, on items that both were scored on."""
        mine, theirs = self.on_the_same(one, label)
        return {name: mine[name] - theirs[name] for name in mine if name in theirs}

    def on_the_same(
        self, one: Evaluated, label: str
    ) -> tuple[Mapping[str, Estimate], Mapping[str, Estimate]]:
        """A suite's numbers of a model and of its base, on items that both were scored on; nothing where
        one of them was not asked."""
        base = self.base_of(one)
        if base is None or label not in base.found or label not in one.found:
            return {}, {}
        return _on_the_same(one.found[label], base.found[label])

    def costs(self) -> dict[str, dict[str, float]]:
        """What judges have used in this process, by suite."""
        return {label: spent for label, one in self.suites.items() if (spent := one.spent())}


def _on_the_same(
    left: Measured, right: Measured
) -> tuple[Mapping[str, Estimate], Mapping[str, Estimate]]:
    if left.scores.keys() == right.scores.keys():
        return left.metrics, right.metrics
    both = [one for one in left.scores if one in right.scores]
    if not both:
        return {}, {}
    mine, theirs = ({i: one.scores[i] for i in both} for one in (left, right))
    return left.suite.summarise(mine), left.suite.summarise(theirs)


def evaluate(
    models: Sequence[str],
    wanted: Sequence[Any],
    out: Path,
    *,
    base: str | None = "auto",
    data: Path | None = None,
    limit: int | None = None,
    chat: bool | None = None,
    judge: Any = None,
    engine: Any = "transformers",
    dtype: Precision = "auto",
    say: Say = silent,
) -> Evaluation:
    """Measure some models, and leave `evaluation.json` and the answers in a folder.

    models: folders or hub ids; wanted: suites, each a name, a table of it and its options, or made
    already; base: what they are compared with (`candidates`); data: a folder in which suites look for
    their files; limit, chat, judge: of every suite that does not say otherwise; engine: what samples.

    Raises `ValueError`, before anything long begins, for what cannot be had.
    """
    require_writable(out / "evaluation.json")
    out.mkdir(parents=True, exist_ok=True)
    engines.PLUGINS.check(engine)
    named = make_suites(wanted, data=data, limit=limit, chat=chat, judge=judge, cache=out / "judge")
    asked = candidates(models, base, dtype)
    for label, suite in named.items():
        suite.check()
        for templated in {one.templated for one in asked}:
            items = suites.chosen(suite, templated)
        own = (
            len(items) - theirs if (theirs := suites.of_benchmark(suite, items)) is not None else 0
        )
        foreign = f", {own:,} of them not of the benchmark of that name" if own else ""
        say(f"{label}: {len(items):,} items{foreign}")
    found = Evaluation(named, [])
    for one in asked:
        found.models.append(Evaluated(one))
        with _Loading(one, engine, say) as loading:
            for label, suite in named.items():
                file = out / "answers" / f"{_slug(label)}-{_slug(Path(one.name).name)}"
                found.models[-1].found[label] = _measured(suite, one, loading, file, label, say)
                loading.say_remarks()
                write_json(out / "evaluation.json", told(found))
    return found


def make_suites(
    wanted: Sequence[Any],
    *,
    data: Path | None = None,
    limit: int | None = None,
    chat: bool | None = None,
    judge: Any = None,
    cache: Path | None = None,
) -> dict[str, Suite]:
    """Suites by their label: the name, numbered where it stands twice. A name that no suite has may be a
    task of lm-eval. Raises `ValueError` for an unknown one, with the nearest."""
    found: dict[str, Suite] = {}
    filled = {"data": data, "limit": limit, "chat": chat, "judge": judge, "cache": cache}
    filled = {name: value for name, value in filled.items() if value is not None}
    for one in wanted:
        suite = suites.make(_or_task(one), filled)
        is_task = isinstance(one, str) and one not in suites.names() and ":" not in one
        label = Path(one).stem if is_task else suites.name_of(suite)
        found[label if label not in found else f"{label}_{len(found) + 1}"] = suite
    if judge is not None and not any(hasattr(suite, "judge") for suite in found.values()):
        raise ValueError(f"judge: nothing of {', '.join(found)} is judged; leave it out")
    return found


def _or_task(given: Any) -> Any:
    if (
        not isinstance(given, str)
        or given in suites.names()
        or ":" in given
        or given.endswith(".py")
    ):
        return given
    from onestage.rollout.suites import _task_data

    missing = _task_data.missing()
    if missing is None and _task_data.known(given):
        return {"name": "lm_eval", "tasks": given}
    try:
        suites.find(given)
    except ValueError as error:
        if missing:
            raise ValueError(f"{error}, and a task of that name {missing}") from error
        near = _task_data.near(given)
        raise ValueError(f"{error}, and lm-eval has no such task{near}") from error
    return given


class _Loading:
    """A candidate's weights, read when they are first needed and let go of at the end."""

    def __init__(self, one: Candidate, engine: Any, say: Say) -> None:
        self.one, self.engine, self.say = one, engine, say
        # Another engine draws other answers, and other options round otherwise.
        plain = engine in ("transformers", {"name": "transformers"})
        self.sampler = "" if plain else f"-{digest_of(engine)}"
        self.subject: Subject | None = None
        self.base: Policy | None = None
        self.said: set[str] = set()

    def __enter__(self) -> _Loading:
        return self

    def __exit__(self, *_: object) -> None:
        if self.subject is not None:
            self.subject.engine.close()
        self.subject = self.base = None
        gc.collect()

    def say_remarks(self) -> None:
        """What the engine has found out by now, each once."""
        for remark in () if self.subject is None else self._remarks(self.subject):
            if remark not in self.said:
                self.said.add(remark)
                self.say(remark)

    def _remarks(self, subject: Subject) -> list[str]:
        passed_over = ", ".join(unread(subject.policy.model))
        told = (
            f"{self.one.name}: answers are drawn without what its generation_config.json says of "
            f"{passed_over}; transformers' generate would have it"
        )
        return [*subject.engine.remarks, *([told] if passed_over else [])]

    def __call__(self, with_base: bool) -> Subject:
        if self.subject is None:
            policy = self.one.load()
            if slow := slow_precision(policy.dtype, policy.device.type):
                self.say(f"{self.one.name}: {slow} (--dtype float32)")
            engine = engines.make(self.engine, policy.model, policy.tokenizer)
            engine.sync()  # one that runs a copy knows the base alone until then
            self.subject = Subject(policy, policy.tokenizer, engine, source=self.one.name)
        if with_base and self.base is None and self.one.beside is not None:
            self.base = self.one.beside.load()
        return Subject(
            self.subject.policy,
            self.subject.tokenizer,
            self.subject.engine,
            self.base if with_base else None,
            self.subject.source,
        )


def _measured(
    suite: Suite, one: Candidate, loading: _Loading, stem: Path, label: str, say: Say
) -> Measured:
    items = suites.chosen(suite, one.templated)
    # What a comparison with the base has found holds for that base.
    base = one.beside if suite.uses_base else None
    key = f"{one.key}{base.key if base else ''}{suites.digest(suite, items)}{loading.sampler}"
    kept = Kept(stem.with_name(f"{stem.name}-{key}.jsonl"))
    answers = {item.id: kept[item.id] for item in items if item.id in kept}
    what = f"{one.name}, {label}"
    if len(answers) == len(items):
        say(f"{what}: all {len(items):,} answers are known")
        found = suites.scored(suite, items, answers)
    else:
        known = f", {len(answers):,} are known" if answers else ""
        say(f"{what}: {len(items):,} items{known}")
        found = suites.measure(suite, loading(suite.uses_base), kept, _Progress(what, say))
    _write_scores(stem.with_name(f"{stem.name}-{key}.scores.jsonl"), found)
    return found


class _Progress:
    """A line now and then."""

    def __init__(self, what: str, say: Say) -> None:
        self.what, self.say, self.began = what, say, time.monotonic()
        self.last = self.began

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now - self.last < EVERY:
            return
        self.last = now
        self.say(f"{self.what}: {line}, {now - self.began:,.0f} s")


def _write_scores(file: Path, found: Measured) -> None:
    """What each item is worth, a line each: for those who look for what got worse."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [
        {"id": i, "scores": suites.told(one)} for i, one in found.scores.items()
    ]
    lines += [{"id": i, "failed": f"{f.sort}: {f.reason}"} for i, f in found.failures.items()]
    write_text(file, "".join(json_line(line) for line in lines))


def told(evaluation: Evaluation) -> dict[str, Any]:
    """The content of `evaluation.json`."""
    return {
        "format": 1,
        **environment(),
        "suites": {name: _suite(one) for name, one in evaluation.suites.items()},
        "models": [_model(evaluation, one) for one in evaluation.models],
        "costs": evaluation.costs(),
    }


def _suite(suite: Suite) -> dict[str, Any]:
    options = json.loads(json.dumps(plain(suite), default=str))  # of paths, their text
    return {"options": options, "headline": suite.headline}


def _model(evaluation: Evaluation, one: Evaluated) -> dict[str, Any]:
    base = evaluation.base_of(one)
    found = {}
    for label, measured in one.found.items():
        apart = evaluation.difference(one, label)
        found[label] = {
            "items": len(measured.items),
            "failed": len(measured.failures),
            "cut": measured.count("cut"),
            "unfinished": measured.unfinished,
            "chat": _through_template(measured, one.model),
            "of_benchmark": suites.of_benchmark(measured.suite, measured.items),
            "metrics": {
                name: {
                    **_numbers(number),
                    "lower_is_better": measured.suite.lower_is_better(name),
                    **({"difference": _numbers(apart[name])} if name in apart else {}),
                }
                for name, number in measured.metrics.items()
            },
        }
    beside = None if base is None else base.model.name
    return {"name": one.model.name, "base": beside, "key": one.model.key, "suites": found}


def _through_template(measured: Measured, model: Candidate) -> bool:
    """Whether its prompts went through the chat template; lm-eval's are rendered when they are asked."""
    rendered = not measured.suite.takes_system
    late = rendered and suites.through_template(measured.suite, model.templated)
    return late or not isinstance(measured.items[0].prompt, str)


def _numbers(one: Estimate) -> dict[str, Any]:
    low, high = one.value - one.half, one.value + one.half
    numbers = {"value": one.value, "stderr": one.stderr, "low": low, "high": high}
    clean = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
    return {**clean, "n": one.n}


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)[:60]
