"""A real model and real data: a model folder or hub id, and a folder of `KIND.SPLIT.jsonl` files.

    data/demonstration.train.jsonl  data/demonstration.validation.jsonl  data/demonstration.test.jsonl
    data/pair.train.jsonl           ...

The splits are files, so that nothing is reported on what was trained or tuned on. What is measured
depends on which kinds have the split: losses, accuracies against the base, and how answers end; and
on the suites that are named (`suites: [{name: ifeval, limit: 150}]`), which are asked on test alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from onestage import models
from onestage.config import Choice
from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.data.prompts import Prompt
from onestage.data.reading import read
from onestage.data.record import Record, Refusal
from onestage.data.tokenize import Encoder
from onestage.models.divergence import between
from onestage.models.estimate import held_in
from onestage.models.fingerprint import bit_sums
from onestage.models.model import Precision
from onestage.models.policy import Policy
from onestage.models.rates import slow_precision
from onestage.models.score import score_records
from onestage.rollout.complete import drawn
from onestage.rollout.engines import Decoding
from onestage.rollout.evaluation import make_suites
from onestage.rollout.suites import Subject, Suite, chosen, measure
from onestage.runfolder import Say
from onestage.stats import rank_correlation
from onestage.studies.worlds import Evaluated, Ground, Metric, Split, World

METRICS = {
    "overall": Metric("mean of imitation, preference and retention, as far as there are files"),
    "imitation": Metric(
        "e^-loss on held-out demonstrations: geometric mean probability of a token"
    ),
    "demonstration_loss": Metric("nats a token on held-out demonstrations", "lower", "imitation"),
    "preference": Metric(
        "pairs in which the chosen answer gained more on the base than the rejected"
    ),
    "pair_accuracy": Metric("pairs in which the chosen answer is the likelier", group="preference"),
    "pair_loss": Metric(
        "DPO's loss on held-out pairs at beta .1, against the base (there: log 2)",
        "lower",
        "preference",
    ),
    "score_rank": Metric("Spearman's rho of implicit reward and score", group="preference"),
    "label_gap": Metric("nats that good answers gained more than bad ones", group="preference"),
    "retention": Metric("e^-(loss - the base's loss) on plain text, at most 1"),
    "text_loss": Metric("nats a token on plain text", "lower", "retention"),
    "text_kl": Metric("KL(base || model), nats a token of plain text", "lower", "retention"),
    "length": Metric("tokens of a greedy answer", None, "answers"),
    "stops": Metric("greedy answers that end by themselves", "higher", "answers"),
}
BETA = 0.1
"""Of `pair_loss`, whatever a method trains with: DPO's usual one, and Fernando et al.'s."""
KINDS = ("demonstration", "pair", "score", "label", "text")
AREAS = {"demonstration": "imitation", "pair": "preference", "text": "retention"}
"""What `overall` is a mean of, by the kind of file that it is measured on."""
SPLITS: tuple[Split, ...] = ("validation", "test")
Logps = list[tuple[float, int]]
"""Sum of log-probabilities and number of tokens, a response."""
BEFORE: dict[str, Logps] = {}
"""What bases said, by their weights and what they were asked: two numbers a response."""


@dataclass(frozen=True)
class Folder(World):
    """Options of `world: {name: folder, ...}`."""

    model: str
    """A folder or hub id."""
    data: Path
    limit: int = Field(default=256, ge=1)
    """Rows of each kind that are measured."""
    max_length: int = Field(default=1024, ge=2)
    """Longer rows are left out of the measurements."""
    answers: int = Field(default=32, ge=0)
    """Prompts of held-out demonstrations that are answered, greedily."""
    max_completion_length: int = Field(default=128, ge=1)
    dtype: Precision = "auto"
    suites: tuple[Choice, ...] = ()
    """Asked of what is reported and not of trials: names (`ifeval`), or tables of one and its options.
    `ifeval` is then a metric, the suite's headline."""

    headline = ("overall", "imitation", "preference", "retention", "text_loss", "stops")

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {
            **METRICS,
            **{name: _of_suite(name, suite) for name, suite in self._suites().items()},
        }

    def check(self) -> None:
        if not self.data.is_dir():
            raise ValueError(f"world folder: there is no folder {self.data}")
        if not any(self._file(kind, "test").is_file() for kind in KINDS):
            raise ValueError(
                f"world folder: {self.data} has none of "
                f"{', '.join(f'{kind}.test.jsonl' for kind in KINDS)}: there is nothing to measure"
            )
        path = Path(self.model)
        looks_local = self.model.startswith((".", "/", "~")) or self.model.count("/") != 1
        is_model = any((path / f).is_file() for f in ("config.json", "adapter_config.json"))
        if looks_local and not is_model:
            raise ValueError(f"world folder: no base model at {self.model}")
        for suite in self._suites().values():
            suite.check()

    def prepare(self, seed: int, cache: Path, say: Say) -> Ground:
        tokenizer = models.tokenizer_of(models.Model(name=self.model))
        templated = getattr(tokenizer, "chat_template", None) is not None
        for suite in self._suites().values():
            chosen(suite, templated)  # it fails here, not in every cell
        notes = [
            line
            for split in SPLITS
            for kind in self._kinds(split)
            for line in self._encoded(tokenizer, kind, split)[1]
        ]
        areas = [[kind for kind in self._kinds(split) if kind in AREAS] for split in SPLITS]
        if all(areas) and areas[0] != areas[1]:
            notes.append(
                f"overall is a mean over {areas[0]} on validation, and over {areas[1]} on test"
            )
        held = held_in(models.config_of(models.Model(name=self.model)), self.dtype)
        if slow := slow_precision(held, "cpu"):
            notes.append(f"measuring {self.model}: {slow} (world: {{dtype: float32}})")
        for line in notes:
            say(line)
        return Ground(Path(self.model), self.data, notes=notes)

    def evaluate(self, ground: Ground, model: Path, seed: int, split: Split) -> Evaluated:
        trained, base = models.open(model, self.dtype), models.open(self.model, self.dtype)
        weights = f"{self.model} {bit_sums(base.model)} {base.base.dtype}"
        found: dict[str, float] = {}
        shown: list[dict[str, Any]] = []
        notes: list[str] = []
        for kind in self._kinds(split):
            records, left_out = self._encoded(trained.tokenizer, kind, split)
            notes += left_out
            if kind == "text":
                found |= _texts(trained, base, records)
                continue
            mine, before = _logps(trained, records), _before(base, weights, records)
            measured = MEASURES[kind](records, mine, before)
            found |= measured
            if not measured:
                notes.append(f"{kind}.{split}.jsonl: nothing to compare, all answers are alike")
        if self.answers and self._file("demonstration", split).is_file():
            found |= self._answer(trained, split, shown)
        for name, suite in self._suites().items() if split == "test" else ():
            found[name], told = _asked(name, suite, trained)
            notes += told
        areas = [found[name] for name in AREAS.values() if name in found]
        found["overall"] = sum(areas) / len(areas) if areas else math.nan
        metrics = {name: found[name] for name in self.metrics if name in found}
        return Evaluated(metrics, shown, notes)

    def _kinds(self, split: str) -> list[str]:
        return [kind for kind in KINDS if self._file(kind, split).is_file()]

    def _suites(self) -> dict[str, Suite]:
        """By the name of their metric. Raises `ValueError` for one that another metric has."""
        made = make_suites(self.suites)
        if taken := [name for name in made if name in METRICS]:
            raise ValueError(
                f"world folder: a suite's metric has the suite's name, and {', '.join(taken)} is "
                "another metric here; give the suite another name"
            )
        return made

    def _answer(
        self, trained: Policy, split: Split, shown: list[dict[str, Any]]
    ) -> dict[str, float]:
        records = [
            record for record in self._records("demonstration", split) if isinstance(record, Record)
        ]
        prompts = [Prompt.of(record) for record in records[: self.answers]]
        how = Decoding(self.max_completion_length, temperature=0)
        answers = drawn(trained, prompts, how)
        for prompt, one in zip(prompts, answers, strict=True):
            told = {"prompt": _shown(prompt.turns), "response": one.text, "metric": "answers"}
            shown.append(told)
        lengths, ended = [one.tokens for one in answers], [one.ended for one in answers]
        return {"length": _mean(lengths), "stops": _mean(ended)} if answers else {}

    def _file(self, kind: str, split: str) -> Path:
        return self.data / f"{kind}.{split}.jsonl"

    def _records(self, kind: str, split: Split) -> Iterator[Any]:
        file = self._file(kind, split)
        yield from read(file, name=kind, limit=self.limit)

    def _encoded(self, tokenizer: Any, kind: str, split: Split) -> tuple[list[Encoded], list[str]]:
        """What of a file can be measured, and what is to be said of the rest. Raises `ValueError` where
        nothing can: another mean would be called `overall`."""
        encoder = Encoder(tokenizer, self.max_length, "drop")
        given = list(encoder.encode_responses(self._records(kind, split)))
        records = [item for item in given if isinstance(item, Encoded)]
        refused = [item for item in given if isinstance(item, Refusal)]
        if not refused:
            return records, []
        long = sum(one.overlong for one in refused)
        other = [one for one in refused if not one.overlong]
        why = [f"{long} longer than max_length {self.max_length}"] if long else []
        why += [f"{len(other)} refused, the first: {other[0].reason}"] if other else []
        told = f"{len(refused)} of {len(records) + len(refused)} rows ({'; '.join(why)})"
        if not records:
            raise ValueError(
                f"world folder: nothing of {kind}.{split}.jsonl can be measured: left out would be "
                f"{told}; raise world.max_length, mend the rows, or take the file away"
            )
        return records, [f"{kind}.{split}.jsonl: not measured are {told}"]


def _logps(policy: Policy, records: list[Encoded]) -> Logps:
    lines = score_records(policy, records, _row(records))
    return [(line["logp"], line["tokens"]) for line in lines]


def _before(base: Policy, weights: str, records: list[Encoded]) -> Logps:
    """The base's numbers: computed once for all the cells that a process does."""
    asked = hashlib.blake2b(weights.encode())
    for path in (path for record in records for path in record.paths):
        asked.update(f"{path.spans}".encode() + path.ids.tobytes())
    key = asked.hexdigest()
    if key not in BEFORE:
        BEFORE[key] = _logps(base, records)
    return BEFORE[key]


def _row(records: list[Encoded]) -> int:
    return max(2 * max(len(path.ids) for record in records for path in record.paths), 1024)


def _loss(mine: Logps) -> float:
    return -sum(logp for logp, _ in mine) / max(1, sum(tokens for _, tokens in mine))


def _rewards(mine: Logps, before: Logps) -> list[float]:
    """Implicit rewards at beta 1: what a response gained on the base, in nats."""
    return [a - b for (a, _), (b, _) in zip(mine, before, strict=True)]


def _demonstrations(records: list[Encoded], mine: Logps, before: Logps) -> dict[str, float]:
    loss = _loss(mine)
    return {"demonstration_loss": loss, "imitation": math.exp(-loss)}


def _pairs(records: list[Encoded], mine: Logps, before: Logps) -> dict[str, float]:
    gained = _rewards(mine, before)
    chosen, rejected = gained[::2], gained[1::2]
    logps = [logp for logp, _ in mine]
    return {
        "preference": _mean(_more(a, b) for a, b in zip(chosen, rejected, strict=True)),
        "pair_accuracy": _mean(_more(a, b) for a, b in zip(logps[::2], logps[1::2], strict=True)),
        "pair_loss": _mean(
            np.logaddexp(0.0, BETA * (b - a)) for a, b in zip(chosen, rejected, strict=True)
        ),
    }


def _scores(records: list[Encoded], mine: Logps, before: Logps) -> dict[str, float]:
    scores = [float(score) for record in records for score in record.scores]
    return {"score_rank": rank_correlation(_rewards(mine, before), scores)}


def _labels(records: list[Encoded], mine: Logps, before: Logps) -> dict[str, float]:
    scores = [float(score) for record in records for score in record.scores]
    gained = _rewards(mine, before)
    good = [gain for gain, score in zip(gained, scores, strict=True) if score > 0.5]
    bad = [gain for gain, score in zip(gained, scores, strict=True) if score <= 0.5]
    return {"label_gap": _mean(good) - _mean(bad)} if good and bad else {}


def _texts(trained: Policy, base: Policy, records: list[Encoded]) -> dict[str, float]:
    rows = pack_records(records, _row(records)).rows
    with trained.evaluating(), base.evaluating():
        parts = [between(base, trained, row) for row in rows]
    loss = -_mean_of(part.now_logp_K for part in parts)
    before = -_mean_of(part.start_logp_K for part in parts)
    return {
        "text_loss": loss,
        "retention": min(1.0, math.exp(before - loss)),
        "text_kl": _mean_of(part.kl_K for part in parts),
    }


MEASURES = {
    "demonstration": _demonstrations,
    "pair": _pairs,
    "score": _scores,
    "label": _labels,
}


def _more(a: float, b: float) -> float:
    """Ties, as of the base with itself, count half."""
    return 1.0 if a > b else 0.5 if a == b else 0.0


def _asked(name: str, suite: Suite, trained: Policy) -> tuple[float, list[str]]:
    """The suite's headline, over all of its items: models are compared by the same ones; and what is to
    be said of its answers."""
    measured = measure(suite, Subject.of(trained))
    for failure in measured.failures.values():
        raise ValueError(
            f"the suite {name}: {len(measured.failures)} of {len(measured.items)} "
            f"answers could not be scored ({failure.reason})"
        )
    return measured.headline.value, [f"suite {name}: {line}" for line in measured.remarks()]


def _of_suite(name: str, suite: Suite) -> Metric:
    better: Literal["higher", "lower"]
    better = "lower" if suite.lower_is_better(suite.headline) else "higher"
    return Metric(f"{suite.headline} of the suite {name}", better, "suites")


def _mean_of(parts: Iterable[Tensor]) -> float:
    return float(torch.cat([part.cpu().double() for part in parts]).mean())


def _mean(values: Any) -> float:
    many = [float(value) for value in values]
    return sum(many) / len(many)


def _shown(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
