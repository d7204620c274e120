"""Models that can be merged: whole models and adapters of one architecture, read as deltas.

Everything is a delta from the `target`, whose weights the merge then overwrites: the base where there
is one (the adapters' own, or the one named), otherwise the first model. In memory there are the target,
the whole models, and the adapters' small factors; dense deltas exist a tensor at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from onestage.models.adapters import config_in, put_on
from onestage.models.endings import settle_together
from onestage.models.features import Door, require
from onestage.models.fingerprint import computed_by
from onestage.models.model import Model
from onestage.models.source import (
    adapter_base,
    check_vocabulary,
    config_of,
    text_part_note,
    tokenizer_of,
)
from onestage.models.weights import load_whole

BESIDE = frozenset(
    {"initializer_range", "max_position_embeddings", "router_aux_loss_coef", "output_router_logits"}
    | {"pretraining_tp", "vocab_size", "tie_word_embeddings"}
)
"""Settings that change no answer, or weights' shapes, which are compared themselves."""


class Parent(Protocol):
    """One of the models to be merged."""

    @property
    def name(self) -> str: ...

    def delta(self, tensor: str, target: Tensor) -> Tensor | None:
        """What the model has more than the target, in float32; None where it has the same."""
        ...

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        """The model, to be called."""
        ...


@dataclass(frozen=True)
class Whole:
    """A model with weights of its own."""

    name: str
    model: Any
    tensors: dict[str, Tensor]

    def delta(self, tensor: str, target: Tensor) -> Tensor | None:
        mine = self.tensors[tensor]
        return None if mine is target else mine.to(target.device).float() - target.float()

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        yield self.model


@dataclass(frozen=True)
class Itself:
    """The target, where it is one of the models to be merged."""

    name: str
    target: Any
    """The target, or the same with adapters around it."""

    def delta(self, tensor: str, target: Tensor) -> None:
        return None

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        with without_adapters(self.target):
            yield self.target


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on the target, one of several that lie side by side in one PEFT model."""

    name: str
    adapted: Any
    label: str
    layers: dict[str, Any]
    """The LoRA layer of each weight that it adapts."""

    @torch.no_grad()
    def delta(self, tensor: str, target: Tensor) -> Tensor | None:
        layer = self.layers.get(tensor)
        # What PEFT's own merge adds: s B A, with its transposition and scaling rules.
        return None if layer is None else layer.get_delta_weight(self.label).float()

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        self.adapted.set_adapter(self.label)
        yield self.adapted


@dataclass
class Family:
    """The target, the models to be merged, and what they share."""

    target: Any
    """A PEFT model around the target while adapters lie on it."""
    tensors: dict[str, Tensor]
    """The target's floating-point tensors, each once where weights are tied. Others (step counts,
    integer tables) are no weights: the merged model keeps the target's."""
    parents: Sequence[Parent]
    base: str | None
    """The base's name; None where deltas are from the first model, which then means nothing alone."""
    tokenizer: Any
    notes: list[str] = field(default_factory=list)
    """What of the models could not be carried."""

    def plain(self) -> Any:
        """The target without adapters, which are gone afterwards, as are the other models."""
        self.parents = ()
        if hasattr(self.target, "peft_config"):
            self.target = self.target.unload()
        return self.target


@contextlib.contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """Switch off the adapters of a model that may have some."""
    with model.disable_adapter() if hasattr(model, "peft_config") else contextlib.nullcontext():
        yield


def load_family(
    names: Sequence[str], base: str | None, *, needs_base: bool, device: torch.device | str = "cpu"
) -> Family:
    """Load models that belong together. ValueError says which do not, and why."""
    configs = {name: _adapter_config(name) for name in dict.fromkeys(names)}
    adapters = {name: config for name, config in configs.items() if config is not None}
    base = _common_base(adapters, base)
    if base is None and needs_base:
        raise ValueError(
            f"this method merges what was changed since a common base, and {', '.join(names)} are "
            "whole models: name the base with --base"
        )
    root = base or names[0]
    _check_kin([root, *(name for name in names if name not in adapters)])
    tokenizer, notes = _common_tokenizer(names)
    source = Model(name=root, revision=next((one.revision for one in adapters.values()), None))
    check_vocabulary(tokenizer, config_of(source))
    target = _still(source, device)
    tensors = floating_tensors(target)
    wholes = {
        name: _whole(name, tensors, root, device)
        for name in configs
        if name not in adapters and not _same(name, root)
    }
    _check_settings([root, *wholes])
    layers, wrapped = _put_on(target, adapters)
    members: dict[str, Parent] = {}
    for name in configs:
        if name in adapters:
            members[name] = Adapter(name, wrapped, _label(adapters, name), layers[name])
        else:
            members[name] = wholes.get(name) or Itself(name, wrapped)
    notes += [*settle_together(wrapped, list(configs)), *text_part_note(Model(name=root))]
    return Family(wrapped, tensors, [members[name] for name in names], base, tokenizer, notes)


def floating_tensors(model: Any) -> dict[str, Tensor]:
    """Parameters and saved buffers that hold numbers to average; tied ones under their first name."""
    found: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, tensor in model.state_dict().items():
        # Tied weights are one memory under two names, and would be merged twice.
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.is_floating_point() and place not in seen:
            seen.add(place)
            found[name] = tensor
    return found


def _same(left: str, right: str) -> bool:
    """Whether two names mean one folder or hub model."""
    if Path(left).is_dir() and Path(right).is_dir():
        return Path(left).resolve() == Path(right).resolve()
    return left == right


def _adapter_config(name: str) -> Any:
    """PEFT's config of an adapter folder, None for a whole model."""
    if adapter_base(Model(name=name)) is None:
        return None
    config = config_in(name)
    require(config, Door.MIXED, name)
    return config


def _common_base(adapters: dict[str, Any], named: str | None) -> str | None:
    """The one base of all adapters, which share one rank; the named one where there are none."""
    if not adapters:
        return named
    first, *others = adapters
    base, rank = adapters[first].base_model_name_or_path, adapters[first].r
    for other in others:
        theirs = adapters[other]
        if not _same(theirs.base_model_name_or_path, base):
            raise ValueError(
                f"adapters of different bases: {first} was trained on {base}, {other} on "
                f"{theirs.base_model_name_or_path}; adapters of one base are allowed"
            )
        if theirs.revision != adapters[first].revision:
            raise ValueError(
                f"adapters of different revisions of {base}: {first} of {adapters[first].revision}, "
                f"{other} of {theirs.revision}; adapters of one revision are allowed"
            )
        if theirs.r != rank:
            raise ValueError(
                f"adapters of different rank: {first} has r = {rank}, {other} has r = {theirs.r}; "
                "adapters of one rank are allowed"
            )
    if named is not None and not _same(named, base):
        raise ValueError(f"--base {named}, but {first} is an adapter that was trained on {base}")
    return base


def _check_kin(names: Sequence[str]) -> None:
    """One architecture, not quantised, before any weights are read."""
    first, *others = [(name, config_of(Model(name=name))) for name in names]
    for name, config in (first, *others):
        if getattr(config, "quantization_config", None):
            raise ValueError(f"{name} is quantised: its weights cannot be averaged")
        if config.model_type != first[1].model_type:
            raise ValueError(
                f"models of different architectures: {first[0]} is {first[1].model_type}, {name} is "
                f"{config.model_type}; models of one architecture are allowed"
            )


def _check_settings(names: Sequence[str]) -> None:
    """Raise `ValueError` for models of the same weights' shapes that compute differently with them."""
    first, *others = [(name, config_of(Model(name=name))) for name in names]
    for name, config in others:
        if odd := _computed_otherwise(first[1], config):
            raise ValueError(
                f"models that compute differently: {odd[0]} in {first[0]}, {odd[1]} in {name}; weights "
                "mean something for one of them alone (where the setting is a mistake, mend config.json)"
            )


def _computed_otherwise(one: Any, other: Any) -> tuple[str, str] | None:
    """The first setting in which two configurations differ, of each; None where they compute alike.
    (How weights begin, what is dropped in training and how far positions may go change no answer.)"""
    ours, theirs = computed_by(one), computed_by(other)
    for name in sorted({*ours, *theirs}):
        if name not in BESIDE and "dropout" not in name:
            mine = ours.get(name, getattr(one, name, None))
            its = theirs.get(name, getattr(other, name, None))
            if mine != its:
                return f"{name} is {mine}", f"{its}"
    return None


def _common_tokenizer(names: Sequence[str]) -> tuple[Any, list[str]]:
    """The first tokenizer that has a chat template, or the first; their vocabularies must agree. And
    what is said where others have another template, end or beginning."""
    tokenizers = {name: tokenizer_of(Model(name=name)) for name in dict.fromkeys(names)}
    first = names[0]
    words = tokenizers[first].get_vocab()
    for name, tokenizer in tokenizers.items():
        theirs = tokenizer.get_vocab()
        if theirs != words:
            different = len(theirs.items() ^ words.items())
            raise ValueError(
                f"different vocabularies: {first} has {len(words):,} tokens, {name} {len(theirs):,}, "
                f"and {different:,} entries are not in both; one vocabulary is allowed"
            )
    name = next((n for n, t in tokenizers.items() if t.chat_template), first)
    taken = tokenizers[name]
    others = [n for n, t in tokenizers.items() if said_by(t) != said_by(taken)]
    if not others:
        return taken, []
    return taken, [
        f"the tokenizer is that of {name}; {', '.join(others)} has another chat template, end of text "
        "or beginning, which is not used"
    ]


def said_by(tokenizer: Any) -> tuple[Any, ...]:
    """What a tokenizer says beside its vocabulary: its template, its end, and what it puts in front."""
    return tokenizer.chat_template, tokenizer.eos_token_id, tokenizer("a").input_ids


def _whole(name: str, tensors: dict[str, Tensor], root: str, device: torch.device | str) -> Whole:
    model = _still(Model(name=name), device)
    mine = floating_tensors(model)
    if only := sorted(mine.keys() ^ tensors.keys()):
        raise ValueError(
            f"{root} and {name} do not have the same weights: {', '.join(only[:3])}"
            f"{', ...' if len(only) > 3 else ''} only in one of them (tied weights count once)"
        )
    for key, tensor in tensors.items():
        if mine[key].shape != tensor.shape:
            raise ValueError(
                f"weights of different shape: {key} is {tuple(tensor.shape)} in {root} and "
                f"{tuple(mine[key].shape)} in {name}"
            )
    return Whole(name, model, mine)


def _label(adapters: dict[str, Any], name: str) -> str:
    return f"parent{list(adapters).index(name)}"


def _put_on(target: Any, adapters: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], Any]:
    """Load all adapters on the target; for each, its LoRA layers by the weight that they adapt."""
    if not adapters:
        return {}, target
    from peft.tuners.lora import LoraLayer

    wrapped = target
    for name in adapters:
        wrapped = put_on(wrapped, name, Door.MIXED, _label(adapters, name))
    layers: dict[str, dict[str, Any]] = {name: {} for name in adapters}
    for path, layer in wrapped.get_base_model().named_modules():
        for name in adapters:
            if isinstance(layer, LoraLayer) and _label(adapters, name) in layer.r:
                layers[name][f"{path}.weight"] = layer
    return layers, wrapped.eval()


def _still(source: Model, device: torch.device | str) -> Any:
    """A model without adapters, as it stands: no gradients, in evaluation mode."""
    return load_whole(source, config_of(source), device).requires_grad_(False).eval()
