"""A second model beside the policy, whose whole distributions it is compared with row by row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from onestage.data.packing import Row
from onestage.data.trees import TokenPath
from onestage.models.distributions import Head, Other
from onestage.models.head import shape_of

if TYPE_CHECKING:
    from onestage.models.policy import Policy


class Beside:
    """The reference, asked about rows while the policy is trained on them.

    `reference`: the policy it is, for as long as the context lasts: another one, or the trained one with
    its first weights. What is asked of it must be held before the policy's own forward pass, since the
    weights may change places.
    """

    def __init__(self, reference: Callable[[], AbstractContextManager[Policy]]) -> None:
        self.reference = reference

    def packs(self, row: Row) -> bool:
        """Whether it can be asked about the row in one forward pass."""
        with self.reference() as other:
            return other.packs(row)

    def packed(self, row: Row) -> Other:
        """Its distributions at the nodes of a row."""
        with self.reference() as other, other.evaluating():
            return Other(other.readout.hidden(**other.inputs(row)), head_of(other))

    def alone(self, path: TokenPath) -> Other:
        """Its distributions along a path."""
        with self.reference() as other, other.evaluating():
            return Other(other.readout.states(path), head_of(other))


def head_of(policy: Policy) -> Head:
    """The head as it is now, also after its weights have changed places."""
    head = policy.base.get_output_embeddings()
    bias = getattr(head, "bias", None)
    return Head(
        head.weight.detach(),
        None if bias is None else bias.detach(),
        shape_of(policy.base.config),
    )
