"""The policy: a forest row in, log-probabilities of its scored tokens out.

How a model is run is decided by trying it (`probe`): a few random paths are packed and compared with
the model's own forward pass on each path alone. A model that is exact when packed runs as a forest;
one that is not (recurrent, convolutional, or of an unknown mask type) runs each path alone; one whose
head is not a plain linear map keeps its own logits. So an unusual model is slow, never silently
wrong.

Legend: T nodes of a row, K scored entries, U distinct scored nodes, H hidden size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from onestage.data.packing import Row, pack
from onestage.data.trees import TokenPath
from onestage.models.attention import masks
from onestage.models.head import Shape, token_logps, token_logps_and_entropy
from onestage.models.stacking import FROZEN, TRAINED, activate, is_stacked

Layout = Literal["forest", "alone"]


TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of a token's log-probability that is rounding, by the model's precision."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model is run, and why where that is not the fast way."""

    layout: Layout
    chunked_head: bool
    reason: str = ""


class Policy(nn.Module):
    """A causal language model (plain or with adapters) that scores forest rows."""

    gives = frozenset({"logp", "entropy", "value"})
    """What it says of a token: what an objective may need (`objectives.Need`)."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        fit: Fit | None = None,
        pad_to: int | None = None,
    ) -> None:
        """`tokenizer`: kept for who asks the policy in words; it is not needed here."""
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.value_head: nn.Linear | None = None
        on_cuda = next(model.parameters()).device.type == "cuda"
        self.pad_to = pad_to if pad_to is not None else (128 if on_cuda else 1)
        self.train(model.training)
        self.fit = fit if fit is not None else probe(self)

    @property
    def base(self) -> Any:
        """The transformers model inside, adapters included in its layers."""
        adapted = hasattr(self.model, "peft_config")
        return self.model.get_base_model() if adapted else self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.get_input_embeddings().weight.dtype

    def forward(self, row: Row) -> Tensor:
        """Log-probabilities (K, float32) of the row's scored entries, in the order of its tree."""
        return self.look(row)["logp"]

    def look(self, row: Row, reads: Collection[str] = ()) -> dict[str, Tensor]:
        """What the policy says of the row's scored entries (K each, float32): `logp`, and what else is
        read: `entropy` of the distribution that the token comes from, `value` of the state before it."""
        chunked = self.fit.chunked_head
        if self.fit.layout == "forest":
            return self._packed(row, chunked, reads)
        found = [self._alone(path, chunked, reads) for path in row.paths]
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def packed(self, row: Row, *, chunked: bool = True) -> Tensor:
        """The log-probabilities, the whole row in one forward pass."""
        return self._packed(row, chunked, ())["logp"]

    def _packed(self, row: Row, chunked: bool, reads: Collection[str]) -> dict[str, Tensor]:
        tree = row.tree
        node_U, entry_K = np.unique(tree.node_K, return_inverse=True)
        source_U, target_U = (
            self._tensor(array[node_U]) for array in (tree.parent_T, tree.token_T)
        )
        found = self._score(self._inputs(row), source_U, target_U, chunked, reads)
        entry = self._tensor(entry_K)
        return {name: value_U[entry] for name, value_U in found.items()}

    def _inputs(self, row: Row) -> dict[str, Any]:
        token_T, position_T, exit_T = self._padded(row)
        mask = masks(self.base.config, exit_T, position_T, self._parts(row), self.dtype)
        return {
            "input_ids": token_T[None],
            "position_ids": position_T[None],
            "attention_mask": mask,
        }

    def states(self, row: Row) -> tuple[Tensor, Tensor]:
        """Final hidden states (K, H) from which the row's scored tokens (K) are predicted."""
        if self.fit.layout == "forest":
            tree = row.tree
            hidden = self.base.base_model(**self._inputs(row), use_cache=False).last_hidden_state
            parent_K, token_K = tree.parent_T[tree.node_K], tree.token_T[tree.node_K]
            return hidden[0, self._tensor(parent_K)], self._tensor(token_K)
        hidden_parts, target_parts = [], []
        for path in row.paths:
            at_K = np.concatenate([np.arange(start, end) for start, end in path.spans])
            ids = self._tensor(path.ids.astype(np.int64))
            hidden = self.base.base_model(input_ids=ids[None], use_cache=False).last_hidden_state
            hidden_parts.append(hidden[0, self._tensor(at_K - 1)])
            target_parts.append(ids[self._tensor(at_K)])
        return torch.cat(hidden_parts), torch.cat(target_parts)

    def alone(self, path: TokenPath, *, chunked: bool = True) -> Tensor:
        """One path in the model's plain causal forward pass; its spans' tokens one after another."""
        return self._alone(path, chunked, ())["logp"]

    def _alone(self, path: TokenPath, chunked: bool, reads: Collection[str]) -> dict[str, Tensor]:
        at_K = np.concatenate([np.arange(start, end) for start, end in path.spans])
        ids = self._tensor(path.ids.astype(np.int64))
        target_K = ids[self._tensor(at_K)]
        inputs = {"input_ids": ids[None]}
        return self._score(inputs, self._tensor(at_K - 1), target_K, chunked, reads)

    def _score(
        self,
        inputs: dict[str, Any],
        source_U: Tensor,
        target_U: Tensor,
        chunked: bool,
        reads: Collection[str],
    ) -> dict[str, Tensor]:
        if not chunked:
            if "value" in reads:
                raise ValueError(
                    f"a value head needs a model with a plain head ({self.fit.reason})"
                )
            logits = self.base(**inputs, use_cache=False).logits[0, source_U].float()
            logp_UV = torch.log_softmax(logits, -1)
            found = {"logp": logp_UV.gather(1, target_U[:, None])[:, 0]}
            if "entropy" in reads:
                found["entropy"] = -(logp_UV.exp() * logp_UV).sum(-1)
            return found
        hidden = self.base.base_model(**inputs, use_cache=False).last_hidden_state[0, source_U]
        head = self.base.get_output_embeddings()
        shape = head_shape(self.base.config)
        how: dict[str, Any] = {"bias_V": getattr(head, "bias", None), "shape": shape}
        if "entropy" in reads:
            logp_U, entropy_U = token_logps_and_entropy(hidden, head.weight, target_U, **how)
            found = {"logp": logp_U, "entropy": entropy_U}
        else:
            found = {"logp": token_logps(hidden, head.weight, target_U, **how)}
        if "value" in reads:
            assert self.value_head is not None
            found["value"] = self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0].float()
        return found

    def add_value_head(self) -> None:
        """A linear map from hidden states to expected rewards (PPO), 0 at the start."""
        size = self.base.get_output_embeddings().weight.shape[1]
        self.value_head = nn.Linear(size, 1, device=self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def head_difference(self, path: TokenPath) -> tuple[float, float]:
        """Largest difference of the chunked head from full logits on a path: values, gradients.

        Gradients are those of the summed log-probability by the hidden states, relative to their
        largest, or to the head's largest weight: they are differences of its rows, so where the model
        is sure of every token what is left of them is the rounding of those.
        """
        at_K = self._tensor(np.concatenate([np.arange(a, b) for a, b in path.spans]))
        ids = self._tensor(path.ids.astype(np.int64))
        head, shape = self.base.get_output_embeddings(), head_shape(self.base.config)
        with torch.no_grad():
            hidden = self.base.base_model(input_ids=ids[None], use_cache=False).last_hidden_state
            full = self.base(input_ids=ids[None], use_cache=False).logits[0, at_K - 1].float()
            full_K = torch.log_softmax(full, -1).gather(1, ids[at_K, None])[:, 0]
        hidden_KH = hidden[0, at_K - 1].detach().requires_grad_()
        bias = getattr(head, "bias", None)
        chunked_K = token_logps(
            hidden_KH, head.weight.detach(), ids[at_K], bias_V=bias, shape=shape, chunk=16
        )
        (mine,) = torch.autograd.grad(chunked_K.sum(), hidden_KH)
        logits = nn.functional.linear(hidden_KH.float(), head.weight.detach().float(), bias)
        logits = logits * shape.scale
        if shape.softcap is not None:
            logits = torch.tanh(logits / shape.softcap) * shape.softcap
        naive_K = torch.log_softmax(logits, -1).gather(1, ids[at_K, None])[:, 0]
        (theirs,) = torch.autograd.grad(naive_K.sum(), hidden_KH)
        scale = torch.maximum(theirs.abs().max(), head.weight.detach().abs().max() * shape.scale)
        values = (chunked_K - full_K).abs().max()
        return values.item(), ((mine - theirs).abs().max() / scale).item()

    @contextlib.contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The model without the adapter that is trained: what a run with a fresh one starts from.

        Under a stacked adapter that is the base with the earlier adapter, which stays on.

        Raises `ValueError` where switching adapters off does not give back the base.
        """
        config = next(iter(getattr(self.model, "peft_config", {}).values()), None)
        if config is None:
            raise ValueError("the model has no adapter to switch off")
        kept = list(getattr(config, "modules_to_save", None) or ())
        if kept or getattr(config, "bias", "none") != "none":
            raise ValueError(
                f"switching the adapter off does not give the base model back: modules_to_save "
                f"{kept} and bias {config.bias!r} stay trained; the reference must be computed before"
            )
        if not is_stacked(self.model):
            with self.model.disable_adapter():
                yield
            return
        activate(self.model, FROZEN)
        try:
            yield
        finally:
            activate(self.model, FROZEN, TRAINED)

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
        token_T, position_T, exit_T = (self._tensor(column) for column in columns)
        return token_T, position_T, exit_T

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off and no gradients inside; the mode before is restored."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)


def head_shape(config: Any) -> Shape:
    """What the model does to its logits, from the names transformers uses."""
    scale = getattr(config, "logit_scale", None)
    if scale is None:
        divisor = getattr(config, "logits_scaling", None)
        scale = 1.0 / divisor if divisor else 1.0
    return Shape(float(scale), getattr(config, "final_logit_softcapping", None))


def probe(policy: Policy) -> Fit:
    """Decide how to run a model by comparing with its own logits on random paths of a few tokens."""
    trial = _trial_paths(policy.base.config)
    with policy.evaluating():
        plain = torch.cat([policy.alone(path, chunked=False) for path in trial])
        tolerance = TOLERANCE[policy.dtype]
        chunked_head, head_trouble = _agrees(
            lambda: torch.cat([policy.alone(path) for path in trial]), plain, tolerance
        )
        if getattr(policy.base, "_is_stateful", False):
            return Fit("alone", chunked_head, "its layers carry a recurrent state along the row")
        row = pack([trial[:2], trial[2:]], 1 << 30)[0]
        packs, trouble = _agrees(lambda: policy.packed(row, chunked=chunked_head), plain, tolerance)
    if packs:
        return Fit("forest", chunked_head, head_trouble)
    return Fit("alone", chunked_head, f"packed and alone disagree ({trouble})")


def _trial_paths(config: Any) -> list[TokenPath]:
    generator, vocabulary = np.random.default_rng(0), config.vocab_size
    ids = generator.integers(0, vocabulary, size=40).astype(np.int32)
    padding = getattr(config, "pad_token_id", None)  # classifiers look for it
    ids[ids == padding] = (ids[ids == padding] + 1) % vocabulary
    first, second = ids[:14], np.concatenate([ids[:8], ids[14:24]])
    return [
        TokenPath(first, ((8, 14),), (0,)),
        TokenPath(second, ((8, 18),), (1,)),
        TokenPath(ids[24:], ((2, 6), (9, 16)), (2, 3)),
    ]


def _agrees(score: Any, plain: Tensor, tolerance: float) -> tuple[bool, str]:
    try:
        difference = (score() - plain).abs().max().item()
    except (
        NotImplementedError,
        TypeError,
        ValueError,
        RuntimeError,
        KeyError,
        AttributeError,
    ) as e:
        return False, f"{type(e).__name__}: {str(e).splitlines()[0][:120] if str(e) else ''}"
    return difference <= tolerance, f"values differ by up to {difference:.2g}"
