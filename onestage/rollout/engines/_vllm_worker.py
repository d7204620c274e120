"""What a worker of vLLM needs added on a CPU: a tied head that follows its embedding.

On a CPU vLLM computes with copies of weights, packed for its kernels, and packs a layer anew once
weights were loaded into it. None are loaded into a head that is tied to the embedding, so its copy stays
old (seen with 0.32; on GPUs there is no such copy). A server for such a model is started with

    --worker-extension-cls onestage.rollout.engines._vllm_worker.TiedHead
"""

from __future__ import annotations

from typing import Any

EXTENSION = f"{__name__}.TiedHead"


class TiedHead:
    """Mixed into vLLM's worker, in the server's process."""

    def reload_with_head(self, weights_path: str) -> None:
        """Like the worker's own `reload_weights`, of a folder, the head's copy included."""
        worker: Any = self
        worker.reload_weights(weights_path=weights_path)
        pack_head(worker.get_model())


def pack_head(model: Any) -> None:
    """Pack the head of a model of vLLM anew."""
    head = model.lm_head
    head.quant_method.process_weights_after_loading(head)
