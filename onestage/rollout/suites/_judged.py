"""Suites whose answers a model judges: one judge of options, asked with several prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onestage.rollout import rewards
from onestage.rollout.rewards import Answer, Failure
from onestage.rollout.rewards.judge import Judge

TRIAL = """\
Grade the response that stands between the tags, from {low} to {high}.
{response}
Write one line of this form and nothing else:
Score: <number from {low} to {high}>
"""


def judge_of(what: str, given: Mapping[str, Any] | None, cache: Path | None, **how: Any) -> Judge:
    """The judge that a suite was given, with what the suite sets. Raises `ValueError` where none was."""
    if not given:
        raise ValueError(
            f"the suite {what} needs a judge: --judge '{{model: NAME, base_url: "
            "http://localhost:8000/v1}' (docs/judges.md lists its options)"
        )
    kept = {} if cache is None else {"cache": str(cache)}
    made = rewards.make({"name": "judge", **kept, **given, **how})
    assert isinstance(made, Judge)
    return made


def check(what: str, judge: Judge) -> None:
    """Ask a judge for a score once. Raises `ValueError` where it is down, or gives none."""
    trial = replace(judge, prompt=TRIAL, cache=None, retries=min(judge.retries, 1), samples=1)
    (found,) = trial([Answer("", "Two and two are four.")])
    for name, value in vars(trial.costs).items():  # it was asked, and paid, for the suite
        setattr(judge.costs, name, getattr(judge.costs, name) + value)
    if not isinstance(found, Failure):
        return
    if found.reason.startswith("not a chat completion"):
        raise ValueError(
            f"the suite {what}: what answers at {judge.base_url} is no chat endpoint ({found.reason}); "
            "mend base_url (it ends in /v1 as a rule)"
        )
    if found.sort == "nonsense":
        raise ValueError(
            f"the suite {what}: the judge {judge.model} gave no score to a test question "
            f"({found.reason}); take another model, or give it more max_tokens"
        )
    raise ValueError(
        f"the suite {what}: the judge at {judge.base_url} does not answer ({found.reason}); start it, "
        "or mend base_url, model or api_key_env"
    )
