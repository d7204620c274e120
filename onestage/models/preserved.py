"""Low-rank updates that leave a weight's strongest directions alone: OPLoRA (arXiv 2510.13003).

    W = U S V^T,    dW = s (I - U_k U_k^T) B A (I - V_k V_k^T)

U_k and V_k are the k strongest singular directions of a layer's frozen weight. The update reads nothing
along V_k and writes nothing along U_k, so the k largest singular values of W and their directions are
singular values and directions of W + dW, too: what pretraining uses most is not overwritten, whatever
the loss asks for.

The paper leaves A and B free and projects in the forward pass. Here A and B themselves stay projected,
after each step, and so do their gradients before it. For an optimiser whose step is a decay and a
function of the gradients (AdamW, SGD) that is the same run, number by number, since projecting is linear
and does nothing the second time; and what is trained and saved is plain LoRA, which PEFT loads, merges
and serves. Only who trains it further must know: `preserved.json` beside it says how many directions.

Legend: I inputs and O outputs of a layer, R rank of the update, K directions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onestage.models.masters import Masters

OUT, IN = "preserved_out", "preserved_in"
"""Of an adapted layer, as buffers that no folder holds: U_k (O, K) and V_k (I, K), float32."""


FILE, RANK = "preserved.json", "preserve_rank"
"""Of an adapter folder: K."""


def preserve(model: nn.Module, k: int) -> None:
    """Keep the fresh adapters of a model (PEFT's) off the k strongest directions, in place.

    Their A is projected at once; B is 0 there. Raises as `go_on`.
    """
    go_on(model, k)
    for _, layer in _adapted(model):
        for factor in layer.lora_A.values():
            _take_off(factor.weight.detach().t(), getattr(layer, IN))


def go_on(model: nn.Module, k: int) -> None:
    """Keep adapters that are off the k strongest directions off them, in place.

    Raises `ValueError` for a layer that is no plain linear map, and for one that has no more than k
    directions.
    """
    for name, layer in _adapted(model):
        _check(name, layer, k)
        out_OK, in_IK = strongest(layer.base_layer.weight.detach(), k)
        device = layer.base_layer.weight.device
        layer.register_buffer(OUT, out_OK.to(device), persistent=False)
        layer.register_buffer(IN, in_IK.to(device), persistent=False)


def tell(model: nn.Module, folder: Path) -> None:
    """Write beside a model's adapter how many directions it was kept off, if it was."""
    for layer in Preserved(model).layers[:1]:
        (folder / FILE).write_text(json.dumps({RANK: layer.get_buffer(OUT).shape[1]}))


def told(folder: str | Path) -> int:
    """How many directions the adapter of a folder was kept off. Raises `ValueError` for a file that does
    not say it."""
    file = Path(folder) / FILE
    if not file.is_file():
        return 0
    try:
        k = json.loads(file.read_text())[RANK]
        if isinstance(k, int) and k > 0:
            return k
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f'{file} must say {{"{RANK}": K}}, how many directions the adapter was kept off; write it '
        "so, or remove it to train on without"
    )


def strongest(weight_OI: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """U_k (O, K) and V_k (I, K) of a weight, in float32.

    Those of the smaller side are eigenvectors of its Gram matrix, in float64. Spectra of trained weights
    fall so slowly (SmolLM2: the 16th singular value 12.99, the next 12.98) that `svd_lowrank` finds
    other directions, and takes as long where it iterates until it does not.
    """
    if weight_OI.device.type == "mps":  # has no float64
        weight_OI = weight_OI.cpu()
    tall = weight_OI.shape[0] >= weight_OI.shape[1]
    long_MN = (weight_OI if tall else weight_OI.t()).double()
    _, vector_NN = torch.linalg.eigh(long_MN.t() @ long_MN)  # by size, the largest last
    short_NK = vector_NN[:, -k:]
    # Orthonormal also where a weight has fewer than k directions at all.
    long_MK, _ = torch.linalg.qr(long_MN @ short_NK)
    out_OK, in_IK = (long_MK, short_NK) if tall else (short_NK, long_MK)
    return out_OK.float().contiguous(), in_IK.float().contiguous()


class Preserved:
    """The layers of a model whose updates are kept off some directions; none where nothing asked."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [layer for _, layer in _adapted(model) if hasattr(layer, OUT)]

    @torch.no_grad()
    def turn(self, masters: Masters) -> None:
        """Take those directions off the gradients, before they are measured, clipped and stepped on."""
        for factor_NR, top_NK in self._factors(masters, of_gradients=True):
            _take_off(factor_NR, top_NK)

    @torch.no_grad()
    def settle(self, masters: Masters) -> None:
        """Take them off the factors, after a step."""
        for factor_NR, top_NK in self._factors(masters, of_gradients=False):
            _take_off(factor_NR, top_NK)

    def _factors(self, masters: Masters, of_gradients: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """B (O, R) with U_k, then A turned over (I, R) with V_k, of each layer."""
        for layer in self.layers:
            for factors, top, turned in ((layer.lora_B, OUT, False), (layer.lora_A, IN, True)):
                for one in factors.values():
                    (stepped,) = masters.of([one.weight])
                    found = stepped.grad if of_gradients else stepped
                    if found is not None:
                        yield (found.t() if turned else found), getattr(layer, top)


def _take_off(factor_NR: Tensor, top_NK: Tensor) -> None:
    """(I - T T^T) x, in place."""
    factor_NR.sub_(top_NK @ (top_NK.t() @ factor_NR))


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers of a model that have low-rank adapters, by name."""
    if not any("lora_" in name for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name.removeprefix("base_model.model."), module


def _check(name: str, layer: Any, k: int) -> None:
    base = layer.get_base_layer()
    if type(base) is not nn.Linear or not base.weight.is_floating_point():
        raise ValueError(
            f"model.lora.preserve_rank: {name} is a {type(base).__name__}, and singular directions are "
            "taken of plain linear layers alone; leave it out of model.lora.target_modules, or "
            "preserve_rank out"
        )
    most = min(base.weight.shape)
    if k >= most:
        raise ValueError(
            f"model.lora.preserve_rank: {name} has {most} singular directions, so with {k} of them "
            f"preserved nothing of it could be trained; give at most {most - 1}"
        )
