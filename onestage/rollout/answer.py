"""Problems to responses with feedback: choose hints, sample, judge, and keep the numbers of now.

A problem comes out as a record of the same kind with a response for each completion, whose scores are
the rewards. What it was given as a hint is a response of its own (role `hint`, no score), scored once
for the whole group; the worked answer joins as one of role `worked` where the objective asks for it.

Log-probabilities that losses use are the policy's own at temperature 1, from the same forward pass as
in training; those of the engine that sampled are only compared with them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from accelerate import Accelerator

from onestage.data.encoded import Encoded, Sampled
from onestage.data.record import ROLES
from onestage.data.trees import TokenPath
from onestage.models.exchange import Ranks
from onestage.models.policy import Policy
from onestage.models.sharding import whole
from onestage.rollout.engines import Completion, Decoding, Engine, Request
from onestage.rollout.engines._agreement import EngineGapError, complaint, gap
from onestage.rollout.group import Group, HintChosen, choose_hint
from onestage.rollout.outcome import Outcome, Report, advice, hopeless, unjudged
from onestage.rollout.parcel import answered_with, packed, unpacked
from onestage.rollout.problems import Problems, reward
from onestage.rollout.rollout import Rollout
from onestage.runfolder import Say

SHOWN = 3
"""Problems of each rollout that are kept to be shown."""


class Remember(Protocol):
    """What training makes of answered problems before the first update on them: the same records, in
    order, with the numbers that their objectives keep. All of them were sampled together. `again`:
    whether the policy is updated before the last step that uses them."""

    def __call__(self, records: Sequence[Encoded], *, again: bool) -> list[Encoded]: ...


@dataclass
class Answering:
    """Problems in, answered problems out, by the policy as it stands (or as it was before the run)."""

    section: Rollout
    problems: Mapping[str, Problems]
    engine: Engine
    policy: Policy
    tokenizer: Any
    accelerator: Accelerator
    remember: Remember
    worked: Callable[[Encoded], bool]
    """Whether a problem's worked answer joins its sampled ones."""
    taught: Callable[[Encoded], bool]
    """Whether these are also read behind a prompt that holds it."""
    seed: int
    say: Say
    start: Callable[[], AbstractContextManager[Policy]] | None = None
    """The policy as it was before the run, where that is who answers (iterative DPO)."""
    report: Report = field(default_factory=Report)
    hint_state: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each stream's hint rule, or of that of each of its problems."""
    _examples: list[Mapping[str, Any]] = field(default_factory=list)
    _barren: Counter[str] = field(default_factory=Counter)
    _said: set[str] = field(default_factory=set)

    def __call__(
        self,
        records: Sequence[Encoded],
        rollouts: Sequence[int],
        purpose: str,
        count: int | None = None,
    ) -> list[Encoded]:
        """Answered problems in order, without those that left nothing to train on (a tie as a pair).

        `rollouts`: how often was sampled before, for each. `purpose`: "" for training; another one gives
        other random numbers and leaves hints and reports as they are.
        """
        hints = [
            choose_hint(
                self.problems[record.source].hint,
                record,
                rollout,
                f"{self._key(record, purpose)}/hint",
                self.hint_state.get(self._hinted(record.source, record.id), {}),
            )
            for record, rollout in zip(records, rollouts, strict=True)
        ]
        began = time.perf_counter()
        how, count = self.section.decoding, count or self.section.num_generations
        answered, outcomes = self._answer(records, hints, purpose, how, count)
        if not purpose:
            self.report.seconds += time.perf_counter() - began
            self._take_in(outcomes)
        return self._finished(answered, again=self.section.reuse.steps > 1)

    def evaluate(self, records: Sequence[Encoded]) -> tuple[list[Encoded], dict[str, float]]:
        """Answers without hints, as an evaluation draws them, and metrics under `eval/`."""
        numbered = [replace(record, visit=n) for n, record in enumerate(records)]
        nothing = [HintChosen()] * len(numbered)
        how, count = self.section.eval_decoding, self.section.eval_generations
        answered, outcomes = self._answer(numbered, nothing, "eval", how, count)
        report = Report()
        report.add(outcomes, {})
        told = {f"eval/{name}": value for name, value in report.tell().items()}
        return self._finished(answered, again=False), told

    def shown(self) -> list[Mapping[str, Any]]:
        """Some problems, completions and rewards since the last time."""
        found, self._examples = self._examples, []
        return found

    def say_remarks(self) -> None:
        """Tell the user what the engine remarks, each once."""
        for remark in self.engine.remarks:
            self._say_once(remark, remark)

    def close(self) -> None:
        """Let go of the engine, and of the rewards' processes, models and connections."""
        self.engine.close()
        for stream in self.problems.values():
            stream.close()

    def _hinted(self, source: str, problem: str) -> str:
        """What the state of a problem's hint rule is kept under."""
        return source if self.problems[source].hint.per == "stream" else f"{source}/{problem}"

    def _key(self, record: Encoded, purpose: str) -> str:
        return f"{self.seed}/{purpose}/{record.source}/{record.visit}"

    def _answer(
        self,
        records: Sequence[Encoded],
        hints: Sequence[HintChosen],
        purpose: str,
        how: Decoding,
        count: int,
    ) -> tuple[list[Encoded], list[Outcome]]:
        """Answered problems and outcomes, in order; processes share the work and all know everything."""
        ranks = Ranks.of(self.accelerator)
        mine = range(ranks.rank, len(records), ranks.ranks)
        groups = [
            Group.of(
                records[n],
                hints[n],
                self.problems[records[n].source].hint,
                self._key(records[n], purpose),
                count,
            )
            for n in mine
        ]
        self._sample(groups, how)
        reward(
            groups,
            self.problems,
            missing_eos_penalty=self.section.missing_eos_penalty,
            on_failure=self.section.on_failure,
        )
        found = [(n, *self._made(group)) for n, group in zip(mine, groups, strict=True)]
        if ranks.ranks > 1:
            told = ranks.gather([array for one in found for array in packed(*one)])
            found = [one for arrays in told for one in unpacked(arrays, records)]
            found.sort(key=lambda one: one[0])
        return [record for _, record, _ in found], [outcome for _, _, outcome in found]

    def _sample(self, groups: Sequence[Group], how: Decoding) -> None:
        """Draw the completions of some groups and read them as answers."""
        requests = [request for group in groups for request in group.requests]
        start = self.start() if self.start else nullcontext()
        with (
            start,
            self.policy.evaluating(),
            whole(self.policy),
            self.accelerator.autocast(),
        ):
            # Only here, with the weights that are to answer in place: an engine may run a copy.
            self.engine.sync()
            found = self.engine(requests, how) if requests else []
            self.say_remarks()
            if self.engine.tolerance is not None:
                self._compare(requests, found, self.engine.tolerance)
        drawn = iter(found)
        for group in groups:
            group.drawn = [next(drawn) for _ in group.requests]
            worked, taught = self.worked(group.record), self.taught(group.record)
            group.read(self.tokenizer, worked=worked, taught=taught)

    def _compare(
        self, requests: Sequence[Request], drawn: Sequence[Sequence[Completion]], tolerance: float
    ) -> None:
        """Compare an engine that runs a copy of the policy with the policy."""
        found = gap(self.policy, requests, drawn)
        self.report.gap = max(self.report.gap, found)
        if not found <= tolerance:  # not a number is none of them
            if self.engine.on_gap == "stop":
                raise EngineGapError(complaint(found, tolerance))
            self.say(f"WARNING: {complaint(found, tolerance)}")

    def _made(self, group: Group) -> tuple[Encoded, Outcome]:
        record, completions = group.record, group.completions
        answered = answered_with(record, *group.responses())
        size = len(completions)
        rewards = tuple(group.totals[:size])
        texts = [answer.completion for answer in group.answers[:size]]
        return answered, Outcome(
            source=record.source,
            rewards=rewards,
            parts={name: tuple(values[:size]) for name, values in group.parts.items()},
            lengths=tuple(len(one.ids) for one in completions),
            ended=tuple(one.ended for one in completions),
            empty=sum(not text.strip() for text in texts),
            failures=group.failures,
            trouble=group.trouble,
            hint=group.hint.length,
            size=group.hint.size,
            success=sum(reward >= self.section.success_at for reward in rewards) / size,
            example={
                "stream": record.source,
                "id": record.id,
                "prompt": group.about.prompt,
                "hint": group.hint_text,
                "completions": texts,
                "rewards": list(rewards),
            },
        )

    def _take_in(self, outcomes: Sequence[Outcome]) -> None:
        """Count, move the hint rules on, and tell the user of what looks hopeless."""
        streams = self.problems
        self.report.add(outcomes, {name: stream.hint.gives for name, stream in streams.items()})
        self._examples += [one.example for one in outcomes[:SHOWN]]
        for one in outcomes:
            key = self._hinted(one.source, one.example["id"])
            self.hint_state[key] = streams[one.source].hint.advance(
                self.hint_state.get(key, {}), one.hint, one.size, one.success
            )
        for name in {one.source for one in outcomes}:
            mine = [one for one in outcomes if one.source == name]
            for part in unjudged(mine):
                self._say_once(
                    f"unjudged {name} {part}",
                    f"ALARM: stream {name}: reward {part} could be found for no answer of a rollout "
                    f"({mine[0].trouble}); rollout.on_failure says what that counts as",
                )
            self._barren[name] = self._barren[name] + 1 if hopeless(mine) else 0
            if self._barren[name] == self.section.alarm_after:
                self.say(
                    advice(name, self.section.alarm_after, mine, hinted=streams[name].hint.gives)
                )

    def _say_once(self, what: str, line: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self.say(line)

    def _finished(self, answered: Sequence[Encoded], again: bool) -> list[Encoded]:
        """The records that are left to learn from, in their form, with the numbers of now."""
        formed = [self._formed(record) for record in answered]
        return self.remember([record for record in formed if record is not None], again=again)

    def _formed(self, record: Encoded) -> Encoded | None:
        """The record as the stream's feedback has it; None for a tie."""
        if self.problems[record.source].feedback == "group":
            return record
        assert record.sampled is not None
        own = [n for n, role in enumerate(record.sampled.roles) if ROLES[role] == "response"]
        best = max(own, key=lambda n: record.scores[n])
        worst = min(own, key=lambda n: record.scores[n])
        if record.scores[best] == record.scores[worst]:
            return None
        paths = []
        for number, response in enumerate((best, worst)):
            path = next(path for path in record.paths if response in path.responses)
            span = path.spans[path.responses.index(response)]
            paths.append(TokenPath(path.ids, (span,), (number,)))
        scores = (record.scores[best], record.scores[worst])
        return replace(
            record, kind="pair", paths=tuple(paths), scores=scores, sampled=Sampled((0, 0))
        )
