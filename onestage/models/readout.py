"""What a model says of a token, read off its last hidden states: how likely it is, or how good a text.

A language model's log-probability of a token is read at its parent, in chunks of the vocabulary. A
reward model is read at the token itself: the reward of a text is its head's value at the last token, so
the one at an earlier token is that of the text up to there. Neither knows how rows are made and masked
(that is the policy's), and both can be asked for the model's own slower answer, to compare with.

Legend: T nodes of a row, K scored entries, U distinct scored nodes, H hidden size, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from onestage.data.trees import TokenPath, Tree
from onestage.models.distributions import Head, Other, divergences, rivals, top_entropy
from onestage.models.head import shape_of, token_logps_and_entropy
from onestage.models.head_ways import OURS, logps_by
from onestage.models.likeliest import likeliest
from onestage.models.mixed import mixing
from onestage.models.model import GIVES
from onestage.models.reward_model import FAMILY

Said = dict[str, Tensor]
"""By what is read: a number (K, float32) for each scored entry."""


@dataclass(frozen=True)
class Places:
    """The scored nodes of a forward pass: where each stands, where it is read, its token (U each)."""

    node_U: Tensor
    source_U: Tensor
    target_U: Tensor


class Readout(ABC):
    """A transformers model (`base`, adapters in its layers) and how its hidden states are read."""

    gives: ClassVar[frozenset[str]]
    """What an objective can be told."""

    def __init__(self, base: Any) -> None:
        self.base = base
        self.value_head: nn.Linear | None = None
        self.numbers: Mapping[str, float] = {}
        """What goes with some of what is read: how many `rivals`, which share in `mixed_logp`."""
        self.way = OURS
        """Whose head is computed with (`head_ways`), where it is plain."""

    @abstractmethod
    def packed(
        self,
        inputs: dict[str, Any],
        tree: Tree,
        chunked: bool,
        reads: Collection[str],
        other: Other | None = None,
    ) -> Said:
        """Of the scored entries of a row, in one forward pass with these arguments. `other`: what a
        second model says at the row's nodes, where the two are compared."""

    @abstractmethod
    def alone(
        self,
        path: TokenPath,
        chunked: bool,
        reads: Collection[str],
        padding: int = 0,
        other: Other | None = None,
    ) -> Said:
        """Of one path in the model's plain causal forward pass; its spans one after another.

        Not `chunked`: by the model's own head, whatever that is. padding: tokens behind the path that
        the attention mask hides, which change nothing but rounding.
        """

    @abstractmethod
    def check(self, chunked: bool) -> None:
        """Raise `ValueError` for a model that cannot be read so. chunked: whether its head is plain."""

    def hidden(self, **inputs: Any) -> Tensor:
        """Last hidden states (T, H)."""
        states: Tensor = self.base.base_model(**inputs, use_cache=False).last_hidden_state
        return states[0]

    def states(self, path: TokenPath) -> Tensor:
        """Last hidden states (T, H) of one path in a plain causal forward pass."""
        return self.hidden(**self.plain_inputs(self._ids(path)[0], 0))

    def plain_inputs(self, ids: Tensor, padding: int) -> dict[str, Tensor]:
        """The arguments of a plain forward pass for one path."""
        if not padding:
            return {"input_ids": ids[None]}
        padded = torch.cat([ids, ids[-1:].expand(padding)])
        mask = torch.ones_like(padded)
        mask[len(ids) :] = 0
        return {"input_ids": padded[None], "attention_mask": mask[None]}

    def _ids(self, path: TokenPath) -> tuple[Tensor, np.ndarray[Any, Any]]:
        """Token ids of a path (T), and the places of its scored tokens (K)."""
        return on_device(path.ids.astype(np.int64), self.base.device), places_of(path)


class Likelihoods(Readout):
    """Log-probabilities of a causal language model; also entropies, and values where there is a head."""

    gives = GIVES["causal"]

    def packed(
        self,
        inputs: dict[str, Any],
        tree: Tree,
        chunked: bool,
        reads: Collection[str],
        other: Other | None = None,
    ) -> Said:
        # A token that several responses share is read once.
        node_U, entry_K = np.unique(tree.node_K, return_inverse=True)
        arrays = (node_U, tree.parent_T[node_U], tree.token_T[node_U])
        places = Places(*(on_device(array, self.base.device) for array in arrays))
        found = self._score(inputs, places, chunked, reads, other)
        entry = on_device(entry_K, self.base.device)
        return {name: value_U[entry] for name, value_U in found.items()}

    def alone(
        self,
        path: TokenPath,
        chunked: bool,
        reads: Collection[str],
        padding: int = 0,
        other: Other | None = None,
    ) -> Said:
        ids, at_K = self._ids(path)
        node_K = on_device(at_K, ids.device)
        places = Places(node_K, node_K - 1, ids[node_K])
        return self._score(self.plain_inputs(ids, padding), places, chunked, reads, other)

    def check(self, chunked: bool) -> None:
        """Any head will do: one that is not plain keeps its own logits."""

    def _score(
        self,
        inputs: dict[str, Any],
        places: Places,
        chunked: bool,
        reads: Collection[str],
        other: Other | None,
    ) -> Said:
        if not chunked:
            return self._by_its_own_logits(inputs, places, reads)
        source_U, target_U = places.source_U, places.target_U
        hidden = self.hidden(**inputs)[source_U]
        head = self.base.get_output_embeddings()
        if hasattr(head, "base_layer"):
            raise NotImplementedError("an adapter lies on its output head")
        how: dict[str, Any] = {
            "bias_V": getattr(head, "bias", None),
            "shape": shape_of(self.base.config),
        }
        now = Head(head.weight, **how)
        if "entropy" in reads:
            logp_U, entropy_U = token_logps_and_entropy(hidden, head.weight, target_U, **how)
            found = {"logp": logp_U, "entropy": entropy_U}
        else:
            found = {"logp": logps_by(self.way, hidden, head.weight, target_U, **how)}
        if "likeliest" in reads:
            found["likeliest"] = (likeliest(hidden, head.weight, now.bias_V) == target_U).float()
        if "mixed_logp" in reads:
            mixed = self._mixed(inputs, places, likeliest(hidden, head.weight, now.bias_V))
            found["mixed_logp"] = logps_by(self.way, mixed, head.weight, target_U, **how)
        if "value" in reads:
            assert self.value_head is not None
            value = self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0]
            found["value"] = value.to(torch.float32, copy=True)
        if "top_entropy" in reads:
            found["top_entropy"] = top_entropy(hidden, now)
        if "rivals" in reads:
            found["rivals"] = rivals(hidden, now, target_U, int(self.numbers["rivals"]))
        if other is not None:
            found |= divergences(reads, hidden, now, other.hidden_TH[source_U], other.head)
        return found

    def _mixed(self, inputs: dict[str, Any], places: Places, guess_U: Tensor) -> Tensor:
        """Hidden states (U, H) where each scored token is read partly as the one that was guessed."""
        embedding, share = self.base.get_input_embeddings(), self.numbers["mixed_logp"]
        with mixing(embedding, places.node_U, guess_U, share):
            return self.hidden(**inputs)[places.source_U]

    def _by_its_own_logits(
        self,
        inputs: dict[str, Any],
        places: Places,
        reads: Collection[str],
    ) -> Said:
        logits_UV = self.base(**inputs, use_cache=False).logits[0, places.source_U].float()
        # Not `log_softmax`: on the CPU it adds up one number after the other, and over 262,144 tokens
        # (Gemma 3) is off by 6e-5 from float64, which a yardstick may not be.
        norm_U = torch.logsumexp(logits_UV, -1)
        found = {"logp": logits_UV.gather(1, places.target_U[:, None])[:, 0] - norm_U}
        if "likeliest" in reads:
            found["likeliest"] = (logits_UV.argmax(-1) == places.target_U).float()
        if "entropy" in reads:
            logp_UV = logits_UV - norm_U[:, None]
            found["entropy"] = -(logp_UV.exp() * logp_UV).sum(-1)
        return found


class Rewards(Readout):
    """Rewards of a sequence classifier with one label. The loop calls them `logp`."""

    gives = GIVES["reward"]

    def __init__(self, base: Any, adapted: bool) -> None:
        super().__init__(base)
        if adapted:
            _in_float32(base.score)

    def packed(
        self,
        inputs: dict[str, Any],
        tree: Tree,
        chunked: bool,
        reads: Collection[str],
        other: Other | None = None,
    ) -> Said:
        return {
            "logp": self._rewards(self.hidden(**inputs)[on_device(tree.node_K, self.base.device)])
        }

    def alone(
        self,
        path: TokenPath,
        chunked: bool,
        reads: Collection[str],
        padding: int = 0,
        other: Other | None = None,
    ) -> Said:
        """Not `chunked`: the model's own classifier on the text up to the end of each span."""
        ids, at_K = self._ids(path)
        states = self.hidden(**self.plain_inputs(ids, padding))
        reward_K = self._rewards(states[on_device(at_K, ids.device)])
        if not chunked:
            last = np.cumsum([end - start for start, end in path.spans]) - 1
            dtype = self.base.get_input_embeddings().weight.dtype
            half = dtype in (torch.bfloat16, torch.float16)
            with torch.autocast(ids.device.type, dtype if half else None, enabled=half):
                for place, (_, end) in zip(last.tolist(), path.spans, strict=True):
                    own = self.base(input_ids=ids[None, :end], use_cache=False).logits
                    reward_K[place] = own[0, 0].float()
        return {"logp": reward_K}

    def check(self, chunked: bool) -> None:
        if not chunked:
            raise ValueError(
                f"{FAMILY}; {type(self.base).__name__} differs: at the end of a text it says something "
                "else than that layer"
            )

    def _rewards(self, hidden_KH: Tensor) -> Tensor:
        """The head in its own precision: under autocast the rewards of a pair would be rounded to
        two digits before they are compared."""
        *_, weight = self.base.score.parameters()
        with torch.autocast(hidden_KH.device.type, enabled=False):
            rewards = self.base.score(hidden_KH.to(weight.dtype))[:, 0]
        # A copy: on what is returned hang the hooks of weights in parts, which a view might lose.
        return torch.as_tensor(rewards.to(torch.float32, copy=True))


def _in_float32(head: Any) -> None:
    """What is trained of the head under adapters, as PEFT holds theirs: in bfloat16 a step at the usual
    learning rates would be rounded away."""
    for parameter in head.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def places_of(path: TokenPath) -> np.ndarray[Any, Any]:
    """Places (K) of a path's scored tokens, span after span."""
    return np.concatenate([np.arange(start, end) for start, end in path.spans])


def on_device(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """A numpy array as a tensor there."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
