"""Records to what objectives see of them."""

from __future__ import annotations

from support.tiny import token_path

from onestage.data.encoded import Encoded
from onestage.training.terms import feedback_of


def record(number: int, kind: str = "demonstration") -> Encoded:
    scores = {"label": (1.0,), "pair": (float("nan"),) * 2}.get(kind, (float("nan"),))
    paths = tuple(
        token_path([0, 5, 6, 7 + n, number % 90 + 10], (2, 4), responses=(n,))
        for n in range(len(scores))
    )
    return Encoded(kind, paths, scores, 1.0 + number, "s", f"file:{number}")  # type: ignore[arg-type]


def test_feedback_of_records() -> None:
    records = [record(0), record(1, "pair"), record(2, "label")]
    feedback = feedback_of(records)
    assert feedback.tokens_N.tolist() == [2, 2, 2, 2]
    assert feedback.record_N.tolist() == [0, 1, 1, 2]
    assert feedback.pair_P2.tolist() == [[1, 2]]
    assert feedback.weight_N.tolist() == [1.0, 2.0, 2.0, 3.0]
    assert feedback_of(records, [7, 3, 9]).record_N.tolist() == [7, 3, 3, 9]
    assert feedback_of([]).pair_P2.shape == (0, 2)
