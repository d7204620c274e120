"""What the feedback alone decides, found where it lay before it went to a device.

Which responses are units, and how many, is known from the data. Asking the device for it would wait for
all that it has to do, once in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from onestage.objectives._batch import Feedback


def sent(feedback: Feedback, device: torch.device | str) -> Feedback:
    """The feedback on a device, which remembers what it was on the host."""
    if torch.device(device) == feedback.kind_N.device:
        return feedback
    known = {field.name: getattr(feedback, field.name) for field in fields(feedback)}
    there: dict[str, Any] = {
        name: there_of(value, device) for name, value in known.items() if isinstance(value, Tensor)
    }
    return replace(feedback, **there, host=feedback)


def there_of(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on a device, whose work is not waited for."""
    return tensor.to(device, non_blocking=True)


def found(feedback: Feedback, find: Callable[[Feedback], Iterable[Tensor]]) -> list[Tensor]:
    """Some tensors of any length that the feedback alone decides."""
    return [there_of(t, feedback.kind_N.device) for t in find(feedback.host or feedback)]


def places(feedback: Feedback, mask: Callable[[Feedback], Tensor]) -> Tensor:
    """Numbers (int64) of the responses of a mask (N) that the feedback alone decides."""
    return found(feedback, lambda known: [mask(known).nonzero()[:, 0]])[0]


def records(feedback: Feedback) -> int:
    """One more than the largest number of a record."""
    record_N = (feedback.host or feedback).record_N
    return int(record_N.max()) + 1 if len(record_N) else 0
