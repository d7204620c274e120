"""A prompt has the same token ids whoever continues it: a rollout, `sample`, or an evaluation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.tiny import make_tokenizer, tiny_llama, write_rows

from onestage.data.encoded import Encoded
from onestage.data.prompts import Prompt, prompts_of
from onestage.data.reading import read
from onestage.data.template import TemplateError
from onestage.data.tokenize import encode, prompt_ids, whole_ids
from onestage.rollout import complete as module
from onestage.rollout.complete import complete
from onestage.rollout.engines import Completion, Decoding

NO_PROMPTS: list[tuple[Any, str]] = [
    (["say one", "say two"], r"`a prompt\[0\]`"),
    ([{"role": "user"}], r"`a prompt\[0\]`"),
    ([], "non-empty list of messages"),
    (None, "non-empty list of messages"),
    (3, "non-empty list of messages"),
]


@pytest.mark.parametrize(("given", "words"), NO_PROMPTS)
def test_what_is_no_prompt_is_answered_by_nobody(given: Any, words: str) -> None:
    """A message without content was answered as if the user had said something."""
    with pytest.raises(ValueError, match=words):
        Prompt.given(given)


def test_prompts_of_a_folder_and_of_what_is_not_there(tmp_path: Path) -> None:
    rows = [{"prompt": "2+2?"}, {"prompt": "3+3?"}]
    (tmp_path / "in").mkdir()
    write_rows(tmp_path / "in" / "a.jsonl", rows)
    (tmp_path / "prompts.md").write_text("2+2?\n\n3+3?\n")
    for place in ("in", "prompts.md"):
        found = prompts_of(str(tmp_path / place))
        assert [one.turns for one in found] == ["2+2?", "3+3?"]
    with pytest.raises(ValueError, match="no such file or folder"):
        prompts_of(str(tmp_path / "nowhere"))


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]


def ends_every_text() -> Any:
    from tokenizers import processors

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


@pytest.mark.parametrize("make", [make_tokenizer, ends_every_text])
@pytest.mark.parametrize("prompt", ["2 + 2 = ", "</s> é漢", CHAT, CHAT[1:]])
def test_sampling_and_a_rollout_have_the_same_ids(
    prompt: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, asked = make(), []

    class Engine:
        remarks = ("it samples one batch after the other",)

        def __init__(self, *given: Any) -> None: ...

        def __call__(self, requests: Any, how: Decoding) -> list[Any]:
            asked.extend(requests)
            none = np.zeros(0, np.float32)
            return [[Completion(request.ids, True, none)] for request in requests]

    monkeypatch.setattr(module, "Transformers", Engine)
    policy: Any = SimpleNamespace(model=tiny_llama(), tokenizer=tokenizer)
    with pytest.warns(UserWarning, match="one batch after the other") as told:
        complete(policy, [prompt], Decoding(4))
    assert told[0].filename == __file__  # the line that asked
    (problem,) = encode(read([{"prompt": prompt, "answer": "4"}]), tokenizer)
    assert isinstance(problem, Encoded)
    assert asked[0].ids.tolist() == problem.paths[0].ids.tolist()
    assert asked[0].ids[-1] != tokenizer.eos_token_id
    kept = prompt if isinstance(prompt, str) else tuple(prompt)
    assert prompt_ids(tokenizer, kept).tolist() == problem.paths[0].ids.tolist()


def test_a_prompt_begins_the_conversation_that_is_trained_on() -> None:
    tokenizer = make_tokenizer()
    answered = [*CHAT, {"role": "assistant", "content": "4"}]
    (record,) = encode(read([{"messages": answered}]), tokenizer)
    assert isinstance(record, Encoded)
    (path,) = record.paths
    assert path.ids[: path.opening].tolist() == prompt_ids(tokenizer, tuple(CHAT)).tolist()
    assert path.ids.tolist() == whole_ids(tokenizer, tuple(answered))


def test_messages_need_a_template_and_a_prompt_a_token() -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        prompt_ids(make_tokenizer(chat=None), tuple(CHAT))
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None  # nothing is put in front
    with pytest.raises(TemplateError, match="nothing to continue"):
        prompt_ids(tokenizer, "")
