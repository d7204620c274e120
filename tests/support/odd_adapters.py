"""Adapters of every sort that PEFT can make of a tiny Llama, with random numbers in them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from onestage.data.packing import Row, pack
from support.tiny import TINY, make_tokenizer, sharpen, token_path

Q: dict[str, Any] = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
ALL: dict[str, Any] = Q | {"target_modules": "all-linear"}
OF: dict[str, Any] = {"task_type": "CAUSAL_LM"}


def lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**(Q | options))


def targeting(*names: str, **options: Any) -> peft.LoraConfig:
    return lora(target_modules=list(names), **options)


ADAPTERS: dict[str, peft.PeftConfig] = {
    "lora": lora(),
    "rank and alpha by layer": lora(rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 3}),
    "some layers": lora(layers_to_transform=[1]),
    "all linear but some": peft.LoraConfig(**ALL, exclude_modules=["up_proj"]),
    "rslora": lora(use_rslora=True),
    "gaussian start": lora(init_lora_weights="gaussian"),
    "orthogonal start": lora(init_lora_weights="orthogonal"),
    "dora": lora(use_dora=True),
    "biases": lora(bias="all"),
    "bias of its own": lora(lora_bias=True),
    "pissa start": lora(init_lora_weights="pissa"),
    "olora start": lora(init_lora_weights="olora"),
    "parameters": lora(target_parameters=["mlp.gate_proj.weight"]),
    "a norm saved whole": lora(modules_to_save=["norm"]),
    "embedding": targeting("embed_tokens", "q_proj"),
    "head": targeting("lm_head", "q_proj"),
    "embedding saved whole": lora(modules_to_save=["embed_tokens"]),
    "head saved whole": lora(modules_to_save=["lm_head"]),
    "tokens": lora(trainable_token_indices=[3, 4, 5]),
    "tokens of the head": lora(trainable_token_indices={"lm_head": [3, 4]}),
    "layers repeated": lora(layer_replication=[[0, 2], [1, 2]]),
    "activated by tokens": lora(alora_invocation_tokens=[5, 6]),
    "ia3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **OF
    ),
    "loha": peft.LoHaConfig(r=2, target_modules=["q_proj"], **OF),
    "lokr": peft.LoKrConfig(r=2, target_modules=["q_proj"], **OF),
    "oft": peft.OFTConfig(oft_block_size=4, target_modules=["q_proj"], **OF),
    "boft": peft.BOFTConfig(boft_block_size=4, target_modules=["q_proj"], **OF),
    "hra": peft.HRAConfig(r=2, target_modules=["q_proj"], **OF),
    "vera": peft.VeraConfig(r=4, target_modules=["q_proj"], **OF),
    "adalora": peft.AdaLoraConfig(target_modules=["q_proj"], total_step=100, **OF),
    "norms": peft.LNTuningConfig(target_modules=["input_layernorm"], **OF),
    "tokens alone": peft.TrainableTokensConfig(
        target_modules=["embed_tokens"], token_indices=[3, 4], **OF
    ),
    "prompt tuning": peft.PromptTuningConfig(num_virtual_tokens=3, **OF),
    "prefix tuning": peft.PrefixTuningConfig(num_virtual_tokens=3, **OF),
    "adaption prompt": peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=1, **OF),
}
FANNED = {
    "fan in, fan out": peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, **OF),
    "biases": peft.LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, bias="all", **OF
    ),
    "embedding": peft.LoraConfig(r=2, target_modules=["wte", "c_attn"], fan_in_fan_out=True, **OF),
}
"""Of a tiny GPT-2, whose layers are turned round and have biases."""
ROW: Row = pack(
    [
        [token_path([0, 5, 6, 7, 3, 4, 5, 8, 9, 4, 3, 1], (2, 12))],
        [token_path([0, 5, 6, 17, 30, 41, 1], (2, 7))],
    ],
    100,
)[0]


def make_base(folder: Path, *, tied: bool, gpt2: bool = False) -> Path:
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": tied}
    small = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=400, n_positions=64, **ends)
    config = small if gpt2 else LlamaConfig(**(TINY | ends))
    sharpen(AutoModelForCausalLM.from_config(config)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_adapter(base: Path, config: peft.PeftConfig, folder: Path, seed: int = 1) -> torch.Tensor:
    """Save an adapter; returns what PEFT's model says of `ROW` (K), each path alone."""
    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    model: Any = peft.get_peft_model(plain, copy.deepcopy(config))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return said_by(model)


@torch.no_grad()
def said_by(model: Any) -> torch.Tensor:
    """Log-probabilities (K) of `ROW`'s scored tokens, by a plain forward pass of each path."""
    found = []
    for path in ROW.paths:
        ids = torch.from_numpy(path.ids.astype(np.int64))
        logp = model(input_ids=ids[None]).logits[0].float()[-len(ids) :].log_softmax(-1)
        ((start, end),) = path.spans
        found.append(logp[torch.arange(start - 1, end - 1), ids[start:end]])
    return torch.cat(found)
