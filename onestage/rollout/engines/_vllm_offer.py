"""What a vLLM server is and can do, as it says itself, and whether it serves the policy's model.

Weights that are handed over replace the server's. What they do not replace is compared: the vocabulary,
what the tokenizer makes of a text, the width of the model, and how log-probabilities are reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from onestage.rollout.engines._vllm_link import Link, RefusedError
from onestage.rollout.engines._vllm_probe import TEXT, probe_ids
from onestage.rollout.engines._vllm_transfer import NATIVE
from onestage.rollout.engines._vllm_worker import EXTENSION

OLDEST, TRIED = (0, 28), (0, 32)
"""Versions of vLLM: the first whose trainer side of the weight transfer is the one that is called here,
and the one that was run."""
NOT_FOUND = 404


@dataclass(frozen=True)
class Offer:
    """What a server was started with."""

    version: str
    model: str
    """The name under which its own model is asked, without adapters."""
    source: str
    """The folder or hub id that it was loaded from."""
    adapter_room: int
    """The largest rank of an adapter that can be loaded while it runs; 0: none."""
    transfer: str | None
    """The backend of its weight transfer, of those that are spoken here."""
    on_cpu: bool
    packs_head: bool
    """Whether its workers have `TiedHead`."""


def offer_of(link: Link) -> Offer:
    """Raises `ValueError` for a version or a start without what a run needs."""
    version = link.get("/version")["version"]
    check_version(version, f"at {link.base_url} is")
    try:
        info = link.get("/server_info?config_format=json")
    except RefusedError as error:
        if error.status != NOT_FOUND:
            raise
        raise ValueError(
            f"the vLLM server at {link.base_url} takes no weights: start it with "
            "VLLM_SERVER_DEV_MODE=1 in its environment"
        ) from error
    config = info["vllm_config"]
    reported = config["model_config"]["logprobs_mode"]
    if reported != "raw_logprobs":
        raise ValueError(
            f"the vLLM server at {link.base_url} reports {reported}; start it with --logprobs-mode "
            "raw_logprobs, since log-probabilities at temperature 1 are compared with the policy's"
        )
    own = next(one for one in link.get("/v1/models")["data"] if one["parent"] is None)
    transfer = (config["weight_transfer_config"] or {}).get("backend")
    return Offer(
        version=version,
        model=own["id"],
        source=own["root"],
        adapter_room=_adapter_room(config, info["vllm_env"]),
        transfer=transfer if transfer in NATIVE else None,
        on_cpu=config["device_config"]["device"] == "cpu",
        packs_head=config["parallel_config"]["worker_extension_cls"] == EXTENSION,
    )


def check_version(version: str, what: str) -> None:
    """Raise `ValueError` for a vLLM that is too old. `what`: where it is, with its verb."""
    if numbers(version) < OLDEST:
        raise ValueError(
            f"the vLLM {what} {version}; the rollout engine vllm needs {dotted(OLDEST)} or later (it "
            f"was run with {dotted(TRIED)}): update vllm, or sample with `rollout.engine: transformers`"
        )


def named(version: str) -> str:
    """A version as remarks name it."""
    tried = dotted(TRIED)
    return f"vLLM {version}" + (
        "" if numbers(version) == TRIED else f" (this was run with {tried})"
    )


def numbers(version: str) -> tuple[int, ...]:
    """The first two."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def check_model(link: Link, offer: Offer, model: Any, tokenizer: Any) -> None:
    """Raise `ValueError` where the server's model or tokenizer is another one than the policy's."""
    ours, theirs = probe_ids(tokenizer), _tokens(link, offer)
    if theirs is not None and theirs != ours:
        at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), -1)
        raise ValueError(
            f"{_named(link, offer)} has another tokenizer than the policy: the same text is "
            f"{len(theirs)} tokens there and {len(ours)} here (the first difference is token "
            f"{min(len(ours), len(theirs)) if at < 0 else at}); serve the policy's folder"
        )
    width = model.get_input_embeddings().weight.shape[1]
    found = _embedding(link)
    if found is not None and found != (_vocabulary(model), width):
        raise ValueError(
            f"{_named(link, offer)} is another model than the policy: {found[0]} tokens of {found[1]} "
            f"numbers there, {_vocabulary(model)} of {width} here; serve the policy's folder"
        )


def _named(link: Link, offer: Offer) -> str:
    return f"the vLLM server at {link.base_url} serves {offer.model}, which"


def _adapter_room(config: dict[str, Any], environment: dict[str, Any]) -> int:
    lora = config["lora_config"]
    # With data-parallel groups only one of them would load it.
    alone = config["parallel_config"]["data_parallel_size"] == 1
    allowed = environment.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    return int(lora["max_lora_rank"]) if lora and allowed and alone else 0


def _tokens(link: Link, offer: Offer) -> list[int] | None:
    """What the server's tokenizer makes of the probe's text; None where it was started without one."""
    try:
        asked = {"model": offer.model, "prompt": TEXT, "add_special_tokens": False}
        tokens: list[int] = link.post("/tokenize", asked)["tokens"]
    except RefusedError:
        return None
    return tokens


def _embedding(link: Link) -> tuple[int, int] | None:
    """Tokens and width of the server's embedding, by the words in which vLLM describes its model; None
    where it does not."""
    try:
        (told, *_) = link.post("/collective_rpc", {"method": "get_model_inspection"})["results"]
    except RefusedError:
        return None
    found = re.search(r"embedding_dim=(\d+), org_vocab_size=(\d+)", told)
    return (int(found[2]), int(found[1])) if found else None


def _vocabulary(model: Any) -> int:
    size: int = model.config.get_text_config().vocab_size
    return size
