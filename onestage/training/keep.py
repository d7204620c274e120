"""How much may be forgotten: the section of bounds, each with what holds it (docs/forgetting.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from onestage.config import Choice, Section
from onestage.data.stream import Stream
from onestage.rollout import suites
from onestage.schedules._multiplier import FIRST

What = Literal["kl", "text", "loss", "suite"]
OF_LOSSES = ("kl", "text", "loss")
"""What is kept and named by itself; any other name is a suite's."""
By = Literal["kl", "replay", "anchor", "fisher", "step", "nothing"]
MARGIN = 0.1
"""Where nothing says by how much samples differ."""
UNUSED = (
    "weight",
    "per_step",
    "reward",
    "hint",
    "feedback",
    "ratings",
    "score_range",
    "unlabelled",
)
"""Options of a stream that say nothing of text which is only retained."""
HELD_OUT = ("eval_path", "eval_split", "eval_limit")
"""Of a text that is only pulled on."""


class Keep(Section):
    """A bound on what may be forgotten, and what holds it. See docs/forgetting.md."""

    what: Choice
    """`kl`: KL(start model to model now) a token on a text; `text`: the rise of its loss a token;
    `loss`: the rise of a stream's held-out loss under its own objective; or a suite, by its name or a
    table of its options (`{name: ifeval, path: prompts.jsonl}`): the fall of its headline."""
    at_most: float
    """The bound, in nats; of a suite in the unit of its headline (of ifeval and gsm8k a share: 0.02 is
    2 points of 100)."""
    of: Stream | None = None
    """Of `kl` and `text`: what shall not be forgotten, text or prompts with answers. Held-out rows
    (`eval_path`) are for the certificate; without them every fourth record is. Of a suite: text by which
    it is held (`by: kl` or `fisher`)."""
    stream: str | None = None
    """Of `loss`: one of `data` that has held-out rows. Half of them are for the certificate."""
    by: By | None = None
    """What is raised: `kl`, a pull to the start model on the text (default where there is one);
    `replay`, the weight of `term` (default of `loss`); `anchor`, a decay of the weights to where they
    started; `fisher`, the same of each weight as much as the text depends on it (EWC); `step`, which
    makes steps shorter; `nothing`, to measure and certify alone."""
    term: str | None = None
    """Of `replay`: the term whose weight is raised; of `loss` by default the stream's. It is no goal."""
    then: Literal["stop", "relax"] = "stop"
    """Where nothing holds the bound: stop the run, or move the bound to what there is and say so."""
    steps: int = Field(default=10, ge=1)
    """Between two measurements."""
    watch_tokens: int = Field(default=4096, ge=1)
    """Scored tokens that are measured; they are not trained on."""
    step_tokens: int = Field(default=512, ge=1)
    """Of `by: kl`: tokens of the text that a step pulls on, a record at least."""
    pool_tokens: int = Field(default=16_384, ge=1)
    """Of `by: kl`: scored tokens, at most, that steps pull on; the start model's hidden states of them
    are kept in memory (a number for each of the model's dimensions). Of `by: fisher`: from which weights
    are weighed, once."""
    beyond: Literal["draw_back", "wait"] | None = None
    """Where a measurement is beyond what is aimed at: `draw_back` the weights on the line to where they
    started, until it is not (default; at_most must be above 0), or `wait` for what is raised to bring
    it back (default of a suite, of a `multiplier` that stays, of by: nothing, and where at_most is not
    above 0)."""
    margin: float | None = Field(default=None, ge=0, lt=1)
    """What is aimed at is this part of the bound below it; by default as far below as keeps another
    sample, as large as the certificate's, within the bound in 95 % of cases, but by no more than half
    of it (a suite: .1)."""
    items: int | None = Field(default=None, ge=1)
    """Of a suite: how many are watched, whatever it takes; as many others are for the certificate.
    Default: as many as fit `share`."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """Of a suite: how much of the run's time its answers may take."""
    multiplier: float | None = Field(default=None, ge=0)
    """Instead of a controller: a weight that stays, so that the two can be compared. The bound is
    measured and certified as ever; it stops nothing."""

    @model_validator(mode="after")
    def _complete(self) -> Keep:
        if self.on_suite:
            self._complete_suite()
        elif (self.what == "loss") != (self.stream is not None) or (self.what == "loss") == (
            self.of is not None
        ):
            raise ValueError("keep: `loss` is of a `stream`; `kl` and `text` have a text: `of`")
        if self.what == "kl" and not self.at_most > 0:
            raise ValueError(
                f"keep {self.name}: a KL is 0 at the start and never below, so at_most must be above 0, "
                f"got {self.at_most}"
            )
        if self.what == "loss" and self.by in ("kl", "fisher"):
            raise ValueError(
                f"keep {self.name}: by: {self.by} is of a text (what: kl or text); a stream's loss is "
                "held by replay, anchor, step or nothing"
            )
        if self.term is not None and self.means != "replay":
            raise ValueError(f"keep {self.name}: a term is of by: replay, not of {self.means}")
        if self.means == "replay" and self.term is None and self.what != "loss":
            raise ValueError(f"keep {self.name}: by: replay needs the term whose weight it raises")
        if self.multiplier is not None and self.means == "nothing":
            raise ValueError(f"keep {self.name}: a multiplier weighs something; give by")
        if self.beyond == "draw_back" and not self.at_most > 0:
            raise ValueError(
                f"keep {self.name}: beyond: draw_back leads to the start model, which breaks a bound of "
                f"{self.at_most:g} itself; take wait, or at_most above 0"
            )
        unused = UNUSED + (HELD_OUT if self.on_suite else ())
        odd = self.of.model_fields_set & set(unused) if self.of else ()
        if odd:
            raise ValueError(f"keep {self.name}: {sorted(odd)} of `of` would do nothing")
        for option, why in self._idle():
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(
                    f"keep {self.name}: {option} would change nothing {why}; take it out"
                )
        return self

    def _complete_suite(self) -> None:
        """Raise `ValueError` for a suite that nobody knows or that nothing holds."""
        if self.stream is not None:
            raise ValueError(f"keep {self.name}: a stream is of what: loss")
        if self.means in ("kl", "fisher") and self.of is None:
            raise ValueError(
                f"keep {self.name}: give the text (`of`) on which the model is held near its start, or "
                "hold it by: replay of a term, anchor or step"
            )
        if self.of is not None and self.means not in ("kl", "fisher"):
            raise ValueError(
                f"keep {self.name}: a text (`of`) would do nothing with by: {self.means}"
            )

    def _idle(self) -> Iterator[tuple[str, str]]:
        """Options that nothing reads, and beside what."""
        by = f"with by: {self.means}"
        if not self.controlled:
            stays = by if self.multiplier is None else "beside a multiplier that stays as it is"
            yield "then", stays
            if not self.draws:
                yield "margin", stays
        if self.of is None or self.on_suite:
            yield "watch_tokens", "where no text is watched"
        if self.means != "kl":
            yield "step_tokens", by
        if self.means not in ("kl", "fisher"):
            yield "pool_tokens", by
        if not self.on_suite:
            yield from (("items", "where no suite is kept"), ("share", "where no suite is kept"))
        elif self.items is not None:
            yield "share", "where items says how many are watched"

    @property
    def on_suite(self) -> bool:
        """Whether it is a suite that is kept."""
        return self.what not in OF_LOSSES

    @property
    def measure(self) -> What:
        """What is measured, in a word."""
        found: What = "suite" if self.on_suite else self.what
        return found

    @property
    def controlled(self) -> bool:
        """Whether a multiplier follows what is measured."""
        return self.means != "nothing" and self.multiplier is None

    @property
    def first(self) -> float:
        """mu at the start. What a fall of a suite is worth in nats nobody knows: what holds it begins at
        the weight of the goal."""
        return abs(self.at_most) or FIRST if self.on_suite else FIRST

    @property
    def _suite(self) -> str:
        """The name of a suite that is kept."""
        if isinstance(self.what, suites.Suite):
            return suites.name_of(self.what)
        given = self.what.get("name") if isinstance(self.what, Mapping) else self.what
        place = str(given).partition(":")[0]
        is_file = "/" in place or place.endswith((".py", ".yaml"))
        return Path(place).stem if is_file else place.rpartition(".")[2]

    @property
    def name(self) -> str:
        if self.on_suite:
            return self._suite
        return self.stream or (self.of.name if self.of else "")

    @property
    def means(self) -> By:
        """`by`, or the default."""
        replayed = self.what == "loss" or (self.on_suite and self.term is not None)
        return self.by or ("replay" if replayed else "kl")

    @property
    def least_margin(self) -> float:
        """`margin`, or what is taken where too few records are watched to say how samples differ."""
        return MARGIN if self.margin is None else self.margin

    @property
    def draws(self) -> bool:
        """Whether weights are drawn back."""
        plain = self.at_most > 0 and self.controlled and not self.on_suite
        return self.beyond == "draw_back" or (self.beyond is None and plain)

    @property
    def allows(self) -> bool:
        """Whether the margin is what samples differ by (of a suite: of few items, that is too much)."""
        return self.margin is None and not self.on_suite

    @property
    def priced(self) -> bool:
        """Whether nu is what one unit of x costs in the goal: what is raised is x itself, and it alone
        holds the bound."""
        own = (self.what, self.means) in (("kl", "kl"), ("loss", "replay"))
        return own and self.multiplier is None and not self.draws

    def streams(self) -> Iterator[Stream]:
        """What is read for it: the text, and the text of its certificate."""
        for place, stream in (("", self.of), ("/held_out", self.of.held_out if self.of else None)):
            if stream:
                plain = dict.fromkeys(HELD_OUT)
                yield stream.model_copy(update={**plain, "name": f"keep/{self.name}{place}"})
