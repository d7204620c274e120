"""The policy: a forest row in, log-probabilities (or rewards) of its scored tokens out.

How a model is run is decided by trying it (`probe`): as a forest, with the attention in which that is
exact, or each path alone.

Legend: T nodes of a row, K scored entries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onestage.data.packing import EMPTY, Row
from onestage.data.trees import TokenPath
from onestage.models.attention import masks, reach
from onestage.models.beside import Beside
from onestage.models.distributions import DIVERGENCES
from onestage.models.low_rank import in_fewer_passes
from onestage.models.mixed import read_two_ways
from onestage.models.preserved import Preserved
from onestage.models.probe import Fit, probe
from onestage.models.readout import Likelihoods, Readout, Rewards, Said, on_device
from onestage.models.reward_model import check_head, is_judge
from onestage.models.sharding import Sharded, more_passes, opened

PLAIN_HEAD = frozenset({"value", "top_entropy", "rivals", "mixed_logp", *DIVERGENCES})
"""What can be read where the head is a plain linear map alone."""
NUMBERED = ("rivals", "mixed_logp")
"""What is read with a number (`Policy.ask_with`)."""


class Policy(nn.Module):
    """A model of transformers (plain or with adapters) that scores forest rows.

    What is said of a scored token is its readout's: a log-probability, or a classifier's reward.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        fit: Fit | None = None,
        pad_to: int | None = None,
    ) -> None:
        """`tokenizer`: for who asks the policy in words, and for the text that the model is tried on;
        without one, that is random tokens. The model is left in the attention it is run with.

        Raises `ValueError` for a classifier that is no reward model of a known form, and for a model
        that is not causal.
        """
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        in_fewer_passes(model)
        self.preserved = Preserved(model)
        self.readout = _readout_of(self)
        self.value_head: nn.Linear | None = None
        self.beside: Beside | None = None
        """The reference, where its whole distributions are compared with."""
        self.sharded: Sharded | None = None
        """How it lies in parts on many devices, where it does."""
        self.together = False
        """Whether all parts are put together now, for as long as is needed (`sharding.whole`)."""
        on_cuda = next(model.parameters()).device.type == "cuda"
        # FlexAttention works in blocks of 128, and rows of few lengths leave less to compile.
        self.pad_to = pad_to if pad_to is not None else (128 if on_cuda else 1)
        # A new module is in training mode, whatever the model inside it is in.
        self.train(model.training)
        self.run_as(fit if fit is not None else probe(self))

    def run_as(self, fit: Fit) -> None:
        """Settle how the model is run. Raises `ValueError` where it cannot be read so."""
        self.fit = fit
        if fit.attention not in (None, self.base.config._attn_implementation):
            self.base.set_attn_implementation(fit.attention)
        self.readout.check(fit.chunked_head)

    @property
    def gives(self) -> frozenset[str]:
        """What it says of a token: what an objective may need (`objectives.Need`)."""
        return self.readout.gives

    @property
    def base(self) -> Any:
        """The transformers model inside, adapters included in its layers."""
        adapted = hasattr(self.model, "peft_config")
        return self.model.get_base_model() if adapted else self.model

    @property
    def device(self) -> torch.device:
        return self.sharded.device if self.sharded else next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        if self.sharded:
            return self.sharded.dtype
        return self.base.get_input_embeddings().weight.dtype

    def forward(self, row: Row) -> Tensor:
        """Log-probabilities (K, float32) of the row's scored entries, in the order of its tree."""
        # Not by `look`: where weights lie in parts, hooks hang on either, and must run once.
        return self._said(row, ())["logp"]

    def look(self, row: Row, reads: Collection[str] = ()) -> Said:
        """What the policy says of the row's scored entries (K each, float32): `logp` (of a reward model
        the reward), and what else is read: `entropy` of the distribution that the token comes from,
        `top_entropy` of its likeliest tokens, `value` of the state before it, how far it is from the
        reference's (`DIVERGENCES`), which must stand `beside` for that; `rivals`: how other tokens stand
        against it; `mixed_logp`: its log-probability where what is scored is read partly as what the
        policy would have said, in a second pass (both with `ask_with`); `likeliest`: 1 where no token
        would have been likelier, else 0."""
        return self._said(row, reads)

    def _said(self, row: Row, reads: Collection[str]) -> Said:
        chunked = self.fit.chunked_head
        if not chunked and set(reads) & PLAIN_HEAD:
            what = "a value head" if "value" in reads else "a look at whole distributions"
            raise ValueError(f"{what} needs a model with a plain head ({self.fit.reason})")
        for what in NUMBERED:
            if what in reads and what not in self.readout.numbers:
                raise ValueError(
                    f"{what} is read with a number, which nobody gave: call "
                    "policy.ask_with(objective.numbers) before"
                )
        beside = self.beside if set(reads) & set(DIVERGENCES) else None
        packs = self.packs(row, reads) and (beside is None or beside.packs(row))
        more = self._more(1 if packs else len(row.paths))
        if packs:
            # Asked before the policy, whose weights it may stand on.
            other = beside.packed(row) if beside else None
            said = self.readout.packed(self.inputs(row), row.tree, chunked, reads, other)
        else:
            others = [beside.alone(path) if beside else None for path in row.paths]
            found = [
                self.readout.alone(path, chunked, reads, other=other)
                for path, other in zip(row.paths, others, strict=True)
            ]
            said = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        spare = [self.readout.alone(EMPTY.paths[0], chunked, reads) for _ in range(more)]
        if not spare:
            return said
        # A zero whose graph goes through them all.
        nothing = torch.stack([0.0 * value.sum() for one in spare for value in one.values()]).sum()
        return {**said, "logp": said["logp"] + nothing}

    def _more(self, passes: int) -> int:
        """How many forward passes more another rank runs for its row than these: where weights lie in
        parts, all ranks put them together for each pass, and add up its gradients."""
        one = self.fit.layout == "forest" and reach(self.base.config) is None
        return 0 if one else more_passes(self, passes)

    def packs(self, row: Row, reads: Collection[str] = ()) -> bool:
        """Whether a row is run in one forward pass, or each of its paths alone, where this is read."""
        if "mixed_logp" in reads and read_two_ways(row):
            return False
        end = reach(self.base.config)
        longest = int(row.tree.position_T.max()) + 1
        return self.fit.layout == "forest" and (end is None or longest <= end)

    def packed(self, row: Row, *, chunked: bool = True) -> Tensor:
        """The log-probabilities, the whole row in one forward pass."""
        return self.readout.packed(self.inputs(row), row.tree, chunked, ())["logp"]

    def alone(self, path: TokenPath, *, chunked: bool = True, padding: int = 0) -> Tensor:
        """One path in the model's plain causal forward pass; its spans' tokens one after another.

        padding: tokens behind it that the attention mask hides.
        """
        return self.readout.alone(path, chunked, (), padding)["logp"]

    def inputs(
        self, row: Row, config: Any = None, dtype: torch.dtype | None = None
    ) -> dict[str, Any]:
        """The arguments of the model's forward pass for a whole row.

        config, dtype: of a copy that is run with them, where it is not the model itself.
        """
        token_T, position_T, exit_T = self._padded(row)
        mask = masks(
            config or self.base.config, exit_T, position_T, self._parts(row), dtype or self.dtype
        )
        return {
            "input_ids": token_T[None],
            "position_ids": position_T[None],
            "attention_mask": mask,
        }

    def add_value_head(self) -> None:
        """A linear map from hidden states to expected rewards (PPO), 0 at the start."""
        size = self.base.get_output_embeddings().weight.shape[1]
        self.value_head = nn.Linear(size, 1, device=self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.readout.value_head = self.value_head

    def ask_with(self, numbers: Mapping[str, float]) -> None:
        """Numbers that go with what is read: how many `rivals`, which share of its guesses is in what
        `mixed_logp` reads."""
        self.readout.numbers = dict(numbers)

    def _parts(self, row: Row) -> tuple[tuple[int, int, bool], ...]:
        size = len(row)
        padding = tuple((i, i + 1, True) for i in range(size, self._padded_size(size)))
        return row.parts + padding

    def _padded_size(self, size: int) -> int:
        return -(-size // self.pad_to) * self.pad_to

    def _padded(self, row: Row) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, positions and exits; padding sees itself alone, so that no softmax is empty."""
        size, tree = len(row), row.tree
        extra = np.arange(size, self._padded_size(size))
        zeros = np.zeros(len(extra), dtype=np.int64)
        columns = (
            np.concatenate([tree.token_T, zeros]),
            np.concatenate([tree.position_T, zeros]),
            np.concatenate([tree.exit_T, extra + 1]),
        )
        token_T, position_T, exit_T = (on_device(column, self.device) for column in columns)
        return token_T, position_T, exit_T

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off and no gradients inside; the mode before is restored. All ranks of a policy that
        lies in parts must enter it together."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), opened(self):
                yield
        finally:
            self.train(training)


def _readout_of(policy: Policy) -> Readout:
    base, adapted = policy.base, hasattr(policy.model, "peft_config")
    if not is_judge(base):
        return Likelihoods(base)
    if not adapted:  # under adapters the head is PEFT's own copy, which was checked before
        check_head(base)
    return Rewards(base, adapted)
