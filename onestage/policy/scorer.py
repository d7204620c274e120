"""A reward model in the place of the policy: a forest row in, the reward at every scored token out.

The reward of a text is the head's value at its last token, so the one at an earlier token is that of
the text up to there. Everything else is the policy's: rows, masks, and finding out by trial how the
model can be run. A model whose own classifier says something else than the linear map of its hidden
states is refused by that trial.

Legend: K scored entries.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.forest.packing import Row
from onestage.forest.trees import Path
from onestage.policy.classifier import FAMILY, Task, check_head
from onestage.policy.policy import Fit, Policy


class Scorer(Policy):
    """A sequence classifier with one label (plain or with adapters) that scores forest rows.

    What the loop calls `logp` is the reward at each scored token (K, float32).
    """

    task: Task = "reward"

    def __init__(self, model: Any, *, fit: Fit | None = None, pad_to: int | None = None) -> None:
        if hasattr(model, "peft_config"):
            _in_float32(model.get_base_model().score)
        else:
            check_head(model)
        super().__init__(model, fit=fit, pad_to=pad_to)
        if not self.fit.chunked_head:
            raise ValueError(
                f"{FAMILY}; {type(self.base).__name__} differs: at the end of a text it says something "
                "else than that layer"
            )

    def _packed(self, row: Row, chunked: bool, reads: Collection[str]) -> dict[str, Tensor]:
        hidden = self.base.base_model(**self._inputs(row), use_cache=False).last_hidden_state
        return {"logp": self._rewards(hidden[0, self._tensor(row.tree.node_K)])}

    def _alone(self, path: Path, chunked: bool, reads: Collection[str]) -> dict[str, Tensor]:
        """Not `chunked`: the model's own classifier on the text up to the end of each span."""
        at_K = np.concatenate([np.arange(start, end) for start, end in path.spans])
        ids = self._tensor(path.ids.astype(np.int64))
        hidden = self.base.base_model(input_ids=ids[None], use_cache=False).last_hidden_state
        reward_K = self._rewards(hidden[0, self._tensor(at_K)])
        if not chunked:
            last = np.cumsum([end - start for start, end in path.spans]) - 1
            half = self.dtype in (torch.bfloat16, torch.float16)
            with torch.autocast(ids.device.type, self.dtype if half else None, enabled=half):
                for place, (_, end) in zip(last.tolist(), path.spans, strict=True):
                    own = self.base(input_ids=ids[None, :end], use_cache=False).logits
                    reward_K[place] = own[0, 0].float()
        return {"logp": reward_K}

    def _rewards(self, hidden_KH: Tensor) -> Tensor:
        """The head in its own precision: under autocast the rewards of a pair would be rounded to
        two digits before they are compared."""
        *_, weight = self.base.score.parameters()
        with torch.autocast(hidden_KH.device.type, enabled=False):
            rewards: Tensor = self.base.score(hidden_KH.to(weight.dtype))[:, 0].float()
        return rewards


def _in_float32(head: Any) -> None:
    """What is trained of the head under adapters, as PEFT holds theirs: in bfloat16 a step at the usual
    learning rates would be rounded away."""
    for parameter in head.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def policy_of(model: Any) -> Policy:
    """The model behind the loop's interface: a `Scorer` where it is a classifier."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    judges = type(inner).__name__.endswith("ForSequenceClassification")
    return Scorer(model) if judges else Policy(model)
