"""A model class of `lm-eval` that runs our way: its tokenisation, our forests and our sampler.

The choices of a question share the question, and questions of one task often share the examples in
front of them: in a forest each stands once. `lm-eval`'s own class for transformers models runs every
pair of prompt and choice whole, padded to the longest of its batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from lm_eval.api.registry import get_model, model_registry
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from onestage.config import nearest
from onestage.data.trees import TokenPath
from onestage.models import Model, adapter_base
from onestage.models.release.serving import rank_of
from onestage.rollout.engines import Decoding
from onestage.rollout.suites import Subject
from onestage.rollout.suites._chat_later import MARK, rendered

DRAWN = {"do_sample", "temperature", "top_p", "top_k", "min_p", "until", "max_gen_toks"}
"""What a task may ask of how an answer is drawn."""


class Forests(HFLM):
    """`HFLM` for what it makes of texts; what it would compute is done by a subject."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(
            pretrained=subject.policy.model,
            tokenizer=subject.tokenizer,
            batch_size=1,
            # The library counts what is read, without the last token of a text, which is only foreseen.
            max_length=subject.context - 1,
        )
        self.subject = subject
        self.cut: list[int] = []
        """Tokens that were left out at the beginning of each text of the last call."""
        self.ended: list[bool] = []
        """Whether each answer of the last call ended by itself, before the limit of tokens."""

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        paths, room = [], self.subject.context
        self.cut = [max(len(one[1]) + len(one[2]) - room, 0) for one in requests]
        self.ended = [True] * len(requests)
        for _text, before, behind in requests:
            if len(behind) >= room:
                raise ValueError(
                    f"a choice of {len(behind):,} tokens leaves no room for its question in the model's "
                    f"context of {room:,}; leave that task out"
                )
            ids = np.asarray([*before, *behind][-room:], np.int32)
            paths.append(TokenPath(ids, ((len(ids) - len(behind), len(ids)),), (0,)))
        return self.subject.likelihoods(paths)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        found: list[str] = [""] * len(requests)
        self.cut, self.ended = [0] * len(requests), [True] * len(requests)
        groups: dict[str, list[int]] = {}
        for place, one in enumerate(requests):
            groups.setdefault(repr(one.args[1]), []).append(place)
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        for places in groups.values():
            how = normalize_gen_kwargs(requests[places[0]].args[1], self.max_gen_toks)
            until = handle_stop_sequences(how.pop("until", None), eos=eos)
            texts = [requests[place].args[0] for place in places]
            ids = [np.asarray(self.tok_encode(text), np.int32) for text in texts]
            keys = [f"{requests[p].task_name}/{requests[p].doc_id}/{p}" for p in places]
            said = self.subject.continued(ids, _decoding(how), keys, [u for u in until if u])
            for place, one in zip(places, said, strict=True):
                found[place], self.cut[place] = one["completion"], one.get("cut", 0)
                self.ended[place] = one["ended"]
        return found


def _decoding(how: dict[str, Any]) -> Decoding:
    if unknown := sorted(set(how) - DRAWN):
        raise ValueError(
            f"the task asks for {', '.join(unknown)} when answers are drawn, which our sampler does not "
            "know; set backend: hf"
        )
    sampled = {k: how[k] for k in ("top_p", "top_k", "min_p") if how.get(k) is not None}
    temperature = float(how.get("temperature") or 0.0) if how.get("do_sample") else 0.0
    return Decoding(int(how["max_gen_toks"]), temperature, **sampled)


def answered(
    subject: Subject, instances: Sequence[Any], backend: str, batch_size: int
) -> tuple[list[Any], list[int], list[bool]]:
    """A model's answers to some of the library's requests, in their order, how many tokens of each were
    left out to fit its context, and whether it ended by itself (where we run it: the library's classes
    do not say)."""
    if backend == "onestage":
        lm: Any = Forests(subject)
    elif subject.source is None:
        raise ValueError(
            f"backend {backend} reads a model from its folder, and this one is in memory: leave it out"
        )
    else:
        device = str(subject.policy.device)
        dtype = str(subject.policy.dtype).removeprefix("torch.")
        lm = _theirs(backend, str(subject.source), batch_size, dtype, device)
    asked = [_greedy(_rendered(one, subject.tokenizer)) for one in instances]
    found: list[Any] = [None] * len(asked)
    cut, ended = [0] * len(asked), [True] * len(asked)
    for sort in dict.fromkeys(one.request_type for one in asked):
        places = [n for n, one in enumerate(asked) if one.request_type == sort]
        said = getattr(lm, sort)([asked[n] for n in places], disable_tqdm=True)
        for place, answer in zip(places, said, strict=True):
            found[place] = list(answer) if isinstance(answer, tuple) else answer
        # Of whole texts it is of their windows, of which none is cut.
        if sort != "loglikelihood_rolling" and backend == "onestage":
            for place, *told in zip(places, lm.cut, lm.ended, strict=True):
                cut[place], ended[place] = told
    return found, cut, ended


@lru_cache(maxsize=1)
def _theirs(backend: str, source: str, batch_size: int, dtype: str, device: str) -> Any:
    """The library's own model class on a folder or hub id, adapters as it loads them."""
    base = adapter_base(Model(name=source))
    of: dict[str, Any] = {"pretrained": base or source, "dtype": dtype}
    if backend == "vllm":  # it finds its device and its batches itself
        if base and device == "cpu":
            raise ValueError(
                "backend vllm: on a CPU vLLM ends where a text's log-probabilities are asked of an "
                f"adapter (seen with 0.32): merge {source} into its base first (onestage merge), or "
                "leave backend out"
            )
        adapted = {"lora_local_path": source, "max_lora_rank": rank_of(source)} if base else {}
        return get_model(backend)(**of, **adapted, **_beside_ours())
    if base and backend != "hf":
        raise ValueError(
            f"backend {backend} cannot load the adapter {source}: set backend: hf or vllm, or merge it "
            "into its base first (onestage merge)"
        )
    adapted = {"peft": source} if base else {}
    return get_model(backend)(**of, **adapted, batch_size=batch_size, device=device)


def _beside_ours() -> dict[str, float]:
    """How much of a GPU vLLM may take: it takes nine tenths of all there is where nobody says, and our
    model is there already."""
    if not torch.cuda.is_available():
        return {}
    free, whole = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": 0.9 * free / whole}


def check_backend(what: str, backend: str) -> None:
    """Raise `ValueError` for a backend that there is not, before any weights are read."""
    if backend == "vllm" and find_spec("vllm") is None:
        raise ValueError(
            f"the suite {what}: backend vllm needs the package vllm: pip install 'onestage[vllm]', or "
            "leave backend out"
        )
    import lm_eval.models  # noqa: F401 - it fills the registry

    known = ["onestage", *model_registry.keys()]
    if backend not in known:
        raise ValueError(
            f"the suite {what}: lm-eval has no model class {backend!r}{nearest(backend, known)}"
        )
    try:
        get_model(backend)
    except Exception as error:  # whatever a package of others says where it is imported
        raise ValueError(
            f"the suite {what}: lm-eval's model class {backend} cannot be imported ({error}); leave "
            "backend out, or mend that"
        ) from error


def _greedy(one: Any) -> Any:
    """A request that draws nothing where its task does not say that it does.

    lm-eval means that, and its class of vLLM samples at vLLM's own temperature of 1 then (0.4.13).
    """
    if one.request_type != "generate_until" or {"do_sample", "temperature"} & set(one.args[1]):
        return one
    told = copy.copy(one)
    how = {**one.args[1], "do_sample": False, "temperature": 0.0}
    told.arguments = (one.args[0], how, *one.args[2:])
    return told


def _rendered(one: Any, tokenizer: Any) -> Any:
    if not str(one.args[0]).startswith(MARK):
        return one
    told = copy.copy(one)
    told.arguments = (rendered(one.args[0], tokenizer), *one.args[1:])
    return told
